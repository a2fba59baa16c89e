"""Whether a solver's own fields are sound, with the line of each finding."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.errors import from_caffe
from tiny_imagenet.inspect import describe
from tiny_imagenet.inspect.findings import Finding
from tiny_imagenet.models import solvers

# lr_policy: the fields that it needs.
_NEEDS = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma", "stepvalue"),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
}
_NO_MOMENTUM = ("AdaGrad", "RMSProp")
_NETS = ("net", "net_param", "train_net", "train_net_param", "test_net", "test_net_param")
# A net that any solver can be made for.
_ANY_NET = """
layer { name: "x" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
"""


def check(solver: caffe_pb2.SolverParameter, lines: dict[str, int], path: Path) -> list[Finding]:
    """What is wrong with the fields of a solver; its nets are looked at elsewhere.

    Args:
        solver: the message.
        lines: of its fields, as `prototxt.parse` gives them.
        path: its file.
    """
    found: list[Finding] = []
    add = _adder(found, lines, path)
    if solver.HasField("type") and solver.HasField("solver_type"):
        add("solver_type", "type and solver_type exclude each other: leave solver_type out")
    solver = solvers.upgraded(solver)
    trained = [name for name in ("net", "net_param", "train_net", "train_net_param") if solver.HasField(name)]
    if len(trained) > 1:
        add(trained[1], f"{trained[0]} and {trained[1]} exclude each other: only one net is trained")
    for field, value in solver.ListFields():
        if isinstance(value, float) and not math.isfinite(value):
            add(field.name, f"{field.name} is {value}: it must be a finite number")
    found += learning(solver, lines, path)
    _length(solver, add)
    for name in solver.test_net:
        if not solvers.find(name, path):
            add("test_net", f"names the test net {name}, which is neither there nor beside the solver")
    if not any(finding.error for finding in found):
        refusal = _refusal(solver)
        if refusal:
            add(next((f.name for f, _ in solver.ListFields() if re.search(rf"\b{f.name}\b", refusal)), ""), refusal)
    return found


def learning(solver: caffe_pb2.SolverParameter, lines: dict[str, int], path: Path) -> list[Finding]:
    """What is wrong with how a solver learns: its type, rate, momentum and decay; arguments as of `check`."""
    found: list[Finding] = []
    _learning(solvers.upgraded(solver), _adder(found, lines, path))
    return found


def _adder(found: list[Finding], lines: dict[str, int], path: Path) -> Callable[..., None]:
    def add(field, what, error=True):
        found.append(Finding(str(path), lines.get(field, lines.get(f"{field}[0]", 0)), what, error))

    return add


def _learning(solver, add) -> None:
    if math.isfinite(solver.base_lr) and solver.base_lr <= 0:
        add("base_lr", f"base_lr is {solver.base_lr:g}: it must be above 0")
    if math.isfinite(solver.momentum) and not 0 <= solver.momentum < 1:
        add("momentum", f"momentum is {solver.momentum:g}: it must be at least 0 and below 1")
    elif solver.type in _NO_MOMENTUM and solver.momentum:
        add("momentum", f"{solver.type} has no momentum: leave it out, or take another type")
    if solver.weight_decay < 0:
        add("weight_decay", f"weight_decay is {solver.weight_decay:g}: below 0 it makes weights grow", False)
    if solver.regularization_type not in ("L1", "L2"):
        add("regularization_type", f'regularization_type is "{solver.regularization_type}": it must be L1 or L2')
    if solver.type == "RMSProp" and not 0 <= solver.rms_decay < 1:
        add("rms_decay", f"rms_decay is {solver.rms_decay:g}: it must be at least 0 and below 1")
    if solver.type not in describe.HISTORY:
        add("type", f'type is "{solver.type}": it must be one of {", ".join(describe.HISTORY)}')
    if solver.lr_policy not in _NEEDS:
        said = f'lr_policy is "{solver.lr_policy}"' if solver.HasField("lr_policy") else "there is no lr_policy"
        add("lr_policy", f"{said}: it must be one of {', '.join(_NEEDS)}")
    for field in _NEEDS.get(solver.lr_policy, ()):
        if not (solver.stepvalue if field == "stepvalue" else solver.HasField(field)):
            add("lr_policy", f'lr_policy "{solver.lr_policy}" needs {field}')
    if list(solver.stepvalue) != sorted(solver.stepvalue):
        add("stepvalue", "the values of stepvalue must rise", False)


def _length(solver, add) -> None:
    for name in ("max_iter", "iter_size", "average_loss"):
        if getattr(solver, name) < 1:
            add(name, f"{name} is {getattr(solver, name)}: it must be at least 1")
    tests = len(solver.test_net) + len(solver.test_net_param)
    if any(count < 1 for count in solver.test_iter):
        add("test_iter", "each test_iter must be at least 1: so many batches has a test")
    if solver.test_interval < 0 or (solver.test_iter and not solver.test_interval):
        add("test_interval", f"test_interval is {solver.test_interval}: between tests must be at least 1 iteration")
    elif solver.test_interval and not solver.test_iter:
        add("test_interval", "test_interval without test_iter: nothing is tested", False)
    if solver.HasField("net") or solver.HasField("net_param"):
        if 0 < len(solver.test_iter) < tests:
            add("test_iter", f"{len(solver.test_iter)} test_iter for {tests} test nets: give one for each")
    elif len(solver.test_iter) != tests:
        add("test_iter", f"{len(solver.test_iter)} test_iter for {tests} test nets: give one for each")
    if solver.test_state and len(solver.test_state) != len(solver.test_iter):
        counts = f"{len(solver.test_state)} test_state for {len(solver.test_iter)} test_iter"
        add("test_state", f"{counts}: give one for each")


def _refusal(solver: caffe_pb2.SolverParameter) -> str:
    """What Caffe itself has against a solver, made with a net that is not the solver's; "" for nothing."""
    tried = caffe_pb2.SolverParameter()
    tried.CopyFrom(solver)
    # What would be read, written, or change this process.
    for field in (*_NETS, "test_iter", "test_interval", "test_state", "train_state", "weights", "random_seed"):
        tried.ClearField(field)
    for field in ("snapshot", "snapshot_prefix", "snapshot_after_train", "solver_mode", "device_id", "debug_info"):
        tried.ClearField(field)
    tried.solver_mode = caffe_pb2.SolverParameter.CPU
    tried.snapshot_after_train = False
    text_format.Parse(_ANY_NET, tried.net_param)
    try:
        float(caffe.get_solver(tried).lr)
    except caffe.CaffeError as error:
        return from_caffe(str(error))
    return ""
