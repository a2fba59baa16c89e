"""Solvers as SolverParameter messages: built from a row of the zoo, read from prototxt."""

from __future__ import annotations

import math
import os
from pathlib import Path

from caffe.proto import caffe_pb2

from tiny_imagenet import nets, prototxt
from tiny_imagenet.errors import NetError
from tiny_imagenet.zoo import Model

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

# Tiny ImageNet's sizes: what a solver file counts in iterations.
TRAIN_IMAGES = 100_000
VAL_IMAGES = 10_000


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


def read(path: str | os.PathLike[str]) -> caffe_pb2.SolverParameter:
    """The solver of a prototxt file.

    Raises:
        NetError: it is missing, does not parse, names no net or holds a number that trains nothing.
    """
    solver = prototxt.read(caffe_pb2.SolverParameter(), path)
    if not solver.net:
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    if not 0 < solver.base_lr < math.inf:
        raise NetError(f"{path}: base_lr is {solver.base_lr:g}, it must be a number above 0")
    for name in ("max_iter", "iter_size"):
        if getattr(solver, name) < 1:
            raise NetError(f"{path}: {name} is {getattr(solver, name)}, it must be at least 1")
    return solver


def net_path(solver: caffe_pb2.SolverParameter, path: str | os.PathLike[str]) -> Path | None:
    """The file of a solver's net; None where the net is written in the solver.

    It is looked for from the solver's folder and those above it (a solver of this project names its net from the top of
    the checkout), then from the working folder as Caffe does, then as a bare name beside the solver.

    Raises:
        NetError: no net is named, or there is no such file.
    """
    name = solver.net or solver.train_net
    if not name:
        if solver.HasField("net_param") or solver.HasField("train_net_param"):
            return None
        raise NetError(f'{path} names no net: add a line such as net: "train_val.prototxt"')
    folder = Path(path).resolve().parent
    places = [above / name for above in (folder, *folder.parents)]
    places += [Path(name), folder / Path(name).name]
    found = next((place for place in places if place.is_file()), None)
    if not found:
        raise NetError(f"{path} names the net {name}, which is neither there nor beside the solver")
    return found


def to_text(solver: caffe_pb2.SolverParameter) -> str:
    """A solver as prototxt, in the order people write it."""
    lines = nets.to_text(solver).splitlines(keepends=True)
    names = [line.split(":", 1)[0] for line in lines]
    order = sorted(range(len(lines)), key=lambda i: _ORDER.index(names[i]) if names[i] in _ORDER else len(_ORDER))
    return "".join(lines[i] for i in order)
