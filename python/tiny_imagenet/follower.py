"""What the ranks beside rank 0 do: they build the solver that it builds, and step when and as it steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2

from tiny_imagenet import gpu, snapshots, solving
from tiny_imagenet.errors import RunError
from tiny_imagenet.ranks import Ranks


@dataclass(frozen=True)
class Begin:
    """Build a solver, put it where a checkpoint was, and join.

    Attributes:
        solver: a SolverParameter's bytes.
        checkpoint: its folder; None for a training that begins.
        seed: of the dropout masks.
    """

    solver: bytes
    checkpoint: str | None
    seed: int


@dataclass(frozen=True)
class Step:
    """Make the iteration after so many, with a base rate."""

    iteration: int
    base_lr: float


class Compare:
    """Say which weights you have."""


class Done:
    """There is nothing left to train."""


def follow(ranks: Ranks, compute: dict[str, Any]) -> None:
    """Do what rank 0 says until it is done.

    Args:
        ranks: those that train together; this one is not rank 0.
        compute: what `gpu.compute_on` takes.

    Raises:
        RankLostError: another rank has gone.
        RunError, GpuError, caffe.CaffeError: something fails here.
    """
    solver: Any = None
    iterations: Any = None
    while not isinstance(order := ranks.broadcast(), Done):
        if isinstance(order, Begin):
            solver = iterations = None  # gives its memory back
            gpu.compute_on(**compute)
            solver = solving.build(caffe_pb2.SolverParameter.FromString(order.solver), ranks)
            if order.checkpoint:
                snapshots.restore(solver, Path(order.checkpoint))
            iterations = solving.Iterations(solver, order.seed, ranks)
            join(ranks, solver)
        elif isinstance(order, Step):
            if order.iteration != solver.iter:
                raise RunError(f"rank 0 is at iteration {order.iteration}, rank {ranks.rank} at {solver.iter}")
            solver.param.base_lr = order.base_lr
            iterations.step()
        elif isinstance(order, Compare):
            ranks.gather(solving.digest(solver.net))


def join(ranks: Ranks, solver: Any) -> None:
    """Let the ranks' solvers train together, once all are built: one that fails before that keeps nobody waiting.

    Raises:
        RankLostError: one of them has gone.
        caffe.CaffeError: they cannot come together.
    """
    ranks.gather(None)
    ranks.broadcast()
    ranks.join(solver)
