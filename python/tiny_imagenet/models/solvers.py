"""Solvers as SolverParameter messages: built from a row of the zoo, read from prototxt."""

from __future__ import annotations

import math
import os
from pathlib import Path

from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import nets, prototxt
from tiny_imagenet.models.zoo import TRAIN_IMAGES, VAL_IMAGES, Model

# The order people write a solver in; protobuf's own is that in which fields were added over the years.
_ORDER = (
    "net",
    "test_iter",
    "test_interval",
    "test_initialization",
    "type",
    "base_lr",
    "lr_policy",
    "momentum",
    "weight_decay",
    "max_iter",
    "display",
    "snapshot",
    "snapshot_prefix",
    "solver_mode",
)


_NET_FIELDS = {field.name for field in caffe_pb2.NetParameter.DESCRIPTOR.fields}
_SOLVER_FIELDS = {field.name for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields}
_OLD_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def build(model: Model, folder: str = "") -> caffe_pb2.SolverParameter:
    """The solver of a model (section 5.2.1): SGD with momentum and L2 weight decay, batches of 200.

    The rate is `fixed` in the file because tools/train.py lowers it when validation stops improving, which no
    lr_policy of Caffe's can say; `caffe train` with this file keeps it.

    Args:
        model: a row of the zoo.
        folder: of its net, from the top of the checkout (default: prototxt/NAME).
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
    """Whether a prototxt is a solver's: more of its fields are a solver's than a net's."""
    return _leaning(text) > 0


def _leaning(text: str) -> int:
    """How many more of a prototxt's fields are a solver's than a net's."""
    return sum((name in _SOLVER_FIELDS) - (name in _NET_FIELDS) for name in prototxt.top_fields(text))


def read(path: str | os.PathLike[str]) -> caffe_pb2.SolverParameter:
    """The solver of a prototxt file.

    Raises:
        NetError: it is missing, does not parse, names no net or holds a number that trains nothing.
    """
    text = prototxt.read_text(path)
    if _leaning(text) < 0:
        raise NetError(f"{path} is a net, and a solver is expected: name the solver.prototxt that trains it")
    solver = caffe_pb2.SolverParameter()
    prototxt.parse(solver, text, path)
    if not (solver.net or solver.train_net):
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    if not 0 < solver.base_lr < math.inf:
        raise NetError(f"{path}: base_lr is {solver.base_lr:g}, it must be a number above 0")
    for name in ("max_iter", "iter_size"):
        if getattr(solver, name) < 1:
            raise NetError(f"{path}: {name} is {getattr(solver, name)}, it must be at least 1")
    return solver


def upgraded(solver: caffe_pb2.SolverParameter) -> caffe_pb2.SolverParameter:
    """A copy that says its type as today: `type: "Adam"` for the old `solver_type: ADAM`."""
    result = caffe_pb2.SolverParameter()
    result.CopyFrom(solver)
    if solver.HasField("solver_type"):
        result.type = _OLD_TYPES[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
        result.ClearField("solver_type")
    return result


def net_path(solver: caffe_pb2.SolverParameter, path: str | os.PathLike[str]) -> Path | None:
    """The file of a solver's net; None where the net is written in the solver.

    It is looked for from the solver's folder; then beside the solver under its bare name, whatever folder is given (a
    solver that was copied with its net, to be edited, means its own); then from the folders above (a solver of this
    project names its net from the top of the checkout), and from the working folder, as Caffe does.

    Raises:
        NetError: no net is named, or there is no such file.
    """
    name = solver.net or solver.train_net
    if not name:
        if solver.HasField("net_param") or solver.HasField("train_net_param"):
            return None
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    found = find(name, path)
    if not found:
        raise NetError(f"{path} names the net {name}, which is neither there nor beside the solver")
    return found


def find(name: str, path: str | os.PathLike[str]) -> Path | None:
    """The file that a solver at `path` means by `name` (`net_path` says where it is looked for); None for none."""
    return next((place for place in places(name, path) if place.is_file()), None)


def places(name: str, path: str | os.PathLike[str]) -> list[Path]:
    """Where a file that a solver at `path` names may be; the first that is there is meant."""
    folder = Path(path).resolve().parent
    return [folder / name, folder / Path(name).name, *(above / name for above in folder.parents), Path(name)]


def to_text(solver: caffe_pb2.SolverParameter) -> str:
    """A solver as prototxt, in the order people write it."""
    lines = nets.to_text(solver).splitlines(keepends=True)
    names = [line.split(":", 1)[0] for line in lines]
    order = sorted(range(len(lines)), key=lambda i: _ORDER.index(names[i]) if names[i] in _ORDER else len(_ORDER))
    return "".join(lines[i] for i in order)
