"""Solvers as SolverParameter messages: built from a row of the zoo, read from prototxt."""

from __future__ import annotations

import math
import os
from pathlib import Path

from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import nets, prototxt
from tiny_imagenet.models.zoo import TRAIN_IMAGES, VAL_IMAGES, Model

# The usual order of a solver's fields; protobuf's own is the order in which they were added.
_ORDER = (
    *("net", "test_iter", "test_interval", "test_initialization", "type", "base_lr", "lr_policy", "momentum"),
    *("weight_decay", "max_iter", "display", "snapshot", "snapshot_prefix", "solver_mode"),
)
_NET_FIELDS = {field.name for field in caffe_pb2.NetParameter.DESCRIPTOR.fields}
_SOLVER_FIELDS = {field.name for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields}
TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
_OLD_TYPES = {name.upper(): name for name in TYPES}  # of the field solver_type


def build(model: Model, folder: str = "") -> caffe_pb2.SolverParameter:
    """Return the solver of a model (section 5.2.1): SGD with momentum and L2 weight decay, batches of 200.

    The file's rate is `fixed`: tools/train.py lowers it by the schedule of the model's row, `caffe train` keeps it.

    Args:
        model: a row of the zoo.
        folder: of its net, relative to the top of the checkout (default: prototxt/NAME).
    """
    epoch = TRAIN_IMAGES // model.batch
    return caffe_pb2.SolverParameter(
        net=f"{folder or f'prototxt/{model.name}'}/train_val.prototxt",
        type="SGD",
        base_lr=model.base_lr,
        lr_policy="fixed",
        momentum=model.momentum,
        weight_decay=model.weight_decay,
        max_iter=model.max_epochs * epoch,
        test_iter=[VAL_IMAGES // nets.TEST_BATCH],
        test_interval=epoch,
        test_initialization=False,
        display=20,
        snapshot=epoch,
        snapshot_prefix=f"runs/{model.name}",
        solver_mode=caffe_pb2.SolverParameter.CPU,
    )


def is_solver(text: str) -> bool:
    """Whether a prototxt is a solver's: it has more fields of a solver than of a net."""
    return _solver_fields(text) > 0


def _solver_fields(text: str) -> int:
    """Number of top-level fields that a solver has, less the number of those that a net has."""
    return sum((name in _SOLVER_FIELDS) - (name in _NET_FIELDS) for name in prototxt.top_fields(text))


def read(path: str | os.PathLike[str]) -> caffe_pb2.SolverParameter:
    """Read a solver from a prototxt file.

    Raises:
        NetError: it is missing, does not parse, names no net, or has a value that nothing can be trained with.
    """
    text = prototxt.read_text(path)
    if _solver_fields(text) < 0:
        raise NetError(f"{path} is a net, expected the solver.prototxt that trains it")
    solver = caffe_pb2.SolverParameter()
    prototxt.parse(solver, text, path)
    if not (solver.net or solver.train_net):
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    if not 0 < solver.base_lr < math.inf:
        raise NetError(f"{path}: base_lr is {solver.base_lr:g}, expected a number above 0")
    for name in ("max_iter", "iter_size"):
        if getattr(solver, name) < 1:
            raise NetError(f"{path}: {name} is {getattr(solver, name)}, expected at least 1")
    return solver


def upgraded(solver: caffe_pb2.SolverParameter) -> caffe_pb2.SolverParameter:
    """Return a copy with today's `type: "Adam"` for the old `solver_type: ADAM`."""
    result = caffe_pb2.SolverParameter()
    result.CopyFrom(solver)
    if solver.HasField("solver_type"):
        result.type = _OLD_TYPES[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
        result.ClearField("solver_type")
    return result


def net_path(solver: caffe_pb2.SolverParameter, path: str | os.PathLike[str]) -> Path | None:
    """Return the file of a solver's net (the first of `places` that exists); None if the solver contains the net.

    Raises:
        NetError: no net is named, or its file is missing.
    """
    name = solver.net or solver.train_net
    if not name:
        if solver.HasField("net_param") or solver.HasField("train_net_param"):
            return None
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    found = find(name, path)
    if not found:
        raise NetError(f"{path}: the net {name} is missing")
    return found


def find(name: str, path: str | os.PathLike[str]) -> Path | None:
    """Return the first of `places` that exists, or None."""
    return next((place for place in places(name, path) if place.is_file()), None)


def places(name: str, path: str | os.PathLike[str]) -> list[Path]:
    """Return the paths that `name` in the solver at `path` may refer to, in the order in which they are tried.

    The solver's folder comes first, so that a solver that was copied together with its net uses the copy. The folders
    above follow, since generated solvers name their nets from the top of the checkout, and then the working folder,
    where Caffe looks.
    """
    folder = Path(path).resolve().parent
    if Path(name).is_absolute():
        return [folder / Path(name).name, Path(name)]
    return [folder / name, folder / Path(name).name, *(above / name for above in folder.parents), Path(name)]


def to_text(solver: caffe_pb2.SolverParameter) -> str:
    """Return a solver as prototxt, in the usual order of its fields."""
    lines = nets.to_text(solver).splitlines(keepends=True)
    names = [line.split(":", 1)[0] for line in lines]
    order = sorted(range(len(lines)), key=lambda i: _ORDER.index(names[i]) if names[i] in _ORDER else len(_ORDER))
    return "".join(lines[i] for i in order)
