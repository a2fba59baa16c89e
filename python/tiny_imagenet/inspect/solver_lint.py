"""Checks of a solver's own fields."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.errors import from_caffe
from tiny_imagenet.inspect.findings import Finding, at
from tiny_imagenet.models import solvers
from tiny_imagenet.models.prototxt import Position

# Fields that an lr_policy needs.
_NEEDS = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
}
NETS = ("net", "net_param", "train_net", "train_net_param")  # a solver has one of them
# Fields that name files or change this process.
_OUTSIDE = (
    *(*NETS, "test_net", "test_net_param", "test_iter", "test_interval", "test_state", "train_state", "weights"),
    *("random_seed", "snapshot", "snapshot_prefix", "snapshot_after_train", "solver_mode", "device_id", "debug_info"),
)
_ANY_NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
"""
_Problem = tuple[str, str, str]  # field, severity, text
_Solver = caffe_pb2.SolverParameter


def fields(solver: _Solver, positions: Mapping[str, Position], path: Path) -> list[Finding]:
    """Check all fields of a solver except its nets. Arguments as `learning`."""
    problems: list[_Problem] = []
    if solver.HasField("type") and solver.HasField("solver_type"):
        problems.append(("solver_type", "error", "type and solver_type exclude each other: remove solver_type"))
    solver = solvers.upgraded(solver)
    trained = [name for name in NETS if solver.HasField(name)]
    if len(trained) > 1:
        problems.append((trained[1], "error", f"{trained[0]} and {trained[1]} exclude each other: name one net"))
    for field, value in solver.ListFields():
        if isinstance(value, float) and not math.isfinite(value):
            problems.append((field.name, "error", f"{field.name} is {value}, expected a finite number"))
    problems += [*_learning(solver), *_length(solver)]
    if not any(severity == "error" for _, severity, _ in problems):
        text = _rejection(solver)
        named = (field.name for field, _ in solver.ListFields() if re.search(rf"\b{field.name}\b", text))
        problems += [(next(named, ""), "error", text)] if text else []
    return [at(path, positions, field, text, severity) for field, severity, text in problems]


def learning(solver: _Solver, positions: Mapping[str, Position], path: Path) -> list[Finding]:
    """Check how a solver learns: its type, rate, policy, momentum and weight decay.

    Args:
        solver: the message.
        positions: of its fields (`prototxt.parse`).
        path: its file.
    """
    return [at(path, positions, field, text, severity) for field, severity, text in _learning(solvers.upgraded(solver))]


def _learning(solver: _Solver) -> Iterator[_Problem]:
    if solver.base_lr <= 0:
        yield "base_lr", "error", f"base_lr is {solver.base_lr:g}, expected a number above 0"
    if math.isfinite(solver.momentum) and not 0 <= solver.momentum < 1:
        yield "momentum", "error", f"momentum is {solver.momentum:g}, expected a number from 0 to below 1"
    elif solver.type in ("AdaGrad", "RMSProp") and solver.momentum:
        yield "momentum", "error", f"{solver.type} has no momentum: remove it, or choose another type"
    if solver.weight_decay < 0:
        yield "weight_decay", "warning", f"weight_decay is {solver.weight_decay:g}: weights grow if it is negative"
    if solver.type == "RMSProp" and not 0 <= solver.rms_decay < 1:
        yield "rms_decay", "error", f"rms_decay is {solver.rms_decay:g}, expected a number from 0 to below 1"
    for field, known in (("type", solvers.TYPES), ("lr_policy", _NEEDS), ("regularization_type", ("L1", "L2"))):
        value = getattr(solver, field)
        if value not in known:
            what = f"{field} is {value!r}" if value else f"{field} is missing"
            yield field, "error", f"{what}, expected one of {', '.join(known)}.{did_you_mean(value, known)}".rstrip(".")
    for field in _NEEDS.get(solver.lr_policy, ()):
        if not (solver.stepvalue if field == "stepvalue" else solver.HasField(field)):
            yield "lr_policy", "error", f"lr_policy {solver.lr_policy!r} needs {field}"
    if list(solver.stepvalue) != sorted(solver.stepvalue):
        yield "stepvalue", "warning", "the values of stepvalue are not in ascending order"


def _length(solver: _Solver) -> Iterator[_Problem]:
    for name in ("max_iter", "iter_size", "average_loss"):
        if getattr(solver, name) < 1:
            yield name, "error", f"{name} is {getattr(solver, name)}, expected at least 1"
    if any(count < 1 for count in solver.test_iter):
        yield "test_iter", "error", "test_iter, the number of test batches, must be at least 1"
    if solver.test_interval < 0 or (solver.test_iter and not solver.test_interval):
        yield "test_interval", "error", f"test_interval is {solver.test_interval}, expected at least 1"
    elif solver.test_interval and not solver.test_iter:
        yield "test_interval", "warning", "test_interval without test_iter: nothing is tested"
    tests, iters = len(solver.test_net) + len(solver.test_net_param), len(solver.test_iter)
    generic = (solver.HasField("net") or solver.HasField("net_param")) and (iters > tests or not iters)
    if iters != tests and not generic:
        yield "test_iter", "error", f"{iters} test_iter for {tests} test nets: write one per net"
    if solver.test_state and len(solver.test_state) != iters:
        yield "test_state", "error", f"{len(solver.test_state)} test_state for {iters} test_iter: write one per test"


def _rejection(solver: _Solver) -> str:
    """Caffe's error for a solver of a small net with the same settings; "" if Caffe accepts them."""
    tried = _Solver()
    tried.CopyFrom(solver)
    for field in _OUTSIDE:
        tried.ClearField(field)
    tried.solver_mode = _Solver.CPU
    tried.snapshot_after_train = False
    text_format.Parse(_ANY_NET, tried.net_param)
    try:
        float(caffe.get_solver(tried).lr)
    except caffe.CaffeError as error:
        return from_caffe(str(error))
    return ""
