"""A solver's weights and state as the two files of a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import files
from tiny_imagenet.errors import RunError

FILES = ("weights.caffemodel", "solver.solverstate")


def write(solver: Any, folder: Path) -> None:
    """Write weights.caffemodel and solver.solverstate of a solver into a folder.

    Raises:
        RunError: they cannot be written.
    """
    former = solver.param.snapshot_prefix
    solver.param.snapshot_prefix = str(folder / "snapshot")
    try:
        solver.snapshot()
    except caffe.CaffeError as error:
        why = str(error).rpartition(": ")[2]  # before that is the name of a temporary file
        raise RunError(f"cannot write the checkpoint of iteration {solver.iter}: {why}") from error
    finally:
        solver.param.snapshot_prefix = former
    next(folder.glob("snapshot*.caffemodel")).rename(folder / "weights.caffemodel")
    solverstate = next(folder.glob("snapshot*.solverstate")).rename(folder / "solver.solverstate")
    with open(solverstate, "ab") as stream:  # of a field that comes twice in a message, the last counts
        stream.write(caffe_pb2.SolverState(learned_net="weights.caffemodel").SerializeToString())
    for path in folder.iterdir():
        files.sync(path)


def read(folder: Path) -> dict[str, bytes]:
    """The files that `restore` needs, by their names."""
    return {name: (folder / name).read_bytes() for name in FILES}


def restore(solver: Any, folder: Path) -> None:
    """Put a solver where it was when `write` wrote the folder: weights, history, iteration, CropData's records.

    Raises:
        caffe.CaffeError: a file does not fit the solver.
    """
    former = Path.cwd()
    os.chdir(folder)  # the solverstate names the weights beside it, and Caffe looks for them from here
    try:
        solver.restore("solver.solverstate")
    finally:
        os.chdir(former)
