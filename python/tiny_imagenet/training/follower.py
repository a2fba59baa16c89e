"""What the ranks beside rank 0 do: they build the solver that it builds, and step and validate when it does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2

from tiny_imagenet import gpu
from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.training import snapshots, solving, validation
from tiny_imagenet.training.ranks import Ranks

DEPLOY, MEAN = "deploy.prototxt", "mean.binaryproto"


@dataclass(frozen=True)
class Begin:
    """Build a solver, put it where a checkpoint was, and join.

    Attributes:
        solver: a SolverParameter's bytes.
        files: the deploy net, the mean, and those of the checkpoint, by their names: rank 0's folders may be nowhere
            else.
        resumes: whether there is a checkpoint.
        seed: of the dropout masks.
        data: rank 0's data folder.
    """

    solver: bytes
    files: dict[str, bytes]
    resumes: bool
    seed: int
    data: Path


@dataclass(frozen=True)
class Step:
    """Make the iteration after so many, with a base rate."""

    iteration: int
    base_lr: float


@dataclass(frozen=True)
class Validate:
    """Validate your share, with these statistics of the BatchNorm layers."""

    statistics: dict[str, list[Any]]


class Compare:
    """Say which weights you have."""


class Part:
    """Give your solver back, as rank 0 does now: NCCL lets none leave before all do."""


class Done:
    """There is nothing left to train."""


def follow(ranks: Ranks, compute: dict[str, Any], data: Path | None) -> None:
    """Do what rank 0 says until it is done.

    Args:
        ranks: those that train together; this one is not rank 0.
        compute: what `gpu.compute_on` takes.
        data: the data folder on this machine; None where it is where rank 0 has it.

    Raises:
        RankLostError: another rank has gone.
        RunError, DatasetError, GpuError, caffe.CaffeError: something fails here.
    """
    solver: Any = None
    iterations: Any = None
    predictor: Any = None
    split: Any = None
    while not isinstance(order := ranks.broadcast(), Done):
        if isinstance(order, Begin):
            gpu.compute_on(**compute)
            message = caffe_pb2.SolverParameter.FromString(order.solver)
            split = (data or order.data) / "val.lmdb"
            if data and data.resolve() != order.data:
                solving.relocate(message, data)
            solver = solving.build(message, ranks)
            with _folder(order.files) as folder:
                if order.resumes:
                    snapshots.restore(solver, folder)
                predictor = Predictor(folder / DEPLOY, folder / MEAN, solver.net, gpu=compute["device"])
            iterations = solving.Iterations(solver, order.seed, ranks)
            join(ranks, solver)
        elif isinstance(order, Step):
            if order.iteration != solver.iter:
                raise RunError(f"rank 0 is at iteration {order.iteration}, rank {ranks.rank} at {solver.iter}")
            solver.param.base_lr = order.base_lr
            iterations.step()
        elif isinstance(order, Validate):
            validation.set_statistics(solver.net, order.statistics)
            with contextlib.suppress(validation.StoppedEarly):
                validation.validate(ranks, predictor, split)
        elif isinstance(order, Compare):
            ranks.gather(solving.digest(solver.net))
        elif isinstance(order, Part):
            solver = iterations = predictor = None


@contextlib.contextmanager
def _folder(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files, for the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        yield folder


def join(ranks: Ranks, solver: Any) -> None:
    """Let the ranks' solvers train together, once all are built: one that fails before that keeps nobody waiting.

    Raises:
        RankLostError: one of them has gone.
        caffe.CaffeError: they cannot come together.
    """
    ranks.gather(None)
    ranks.broadcast()
    ranks.join(solver)
