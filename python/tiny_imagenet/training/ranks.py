"""Processes that train one net together, each on its share of every batch: Caffe's data parallelism.

Every rank has the whole net and the same weights. The gradients are averaged over all ranks before each update, so that
all of them make the step of the whole batch. All ranks run the same loop; rank 0 decides and writes.

`Alone` is a single process, `spawn` connects the GPUs of one machine, and `mpi` connects several machines.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import caffe


@dataclass
class Traffic:
    """Time and bytes spent on averaging gradients.

    Attributes:
        iterations: number of updates.
        bytes: bytes of gradients that this rank has averaged.
        seconds: from the start of an update's first transfer to the end of its last, summed over updates.
        waited: part of `seconds` during which the computation stood still; the backward pass hides the rest.
    """

    iterations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def hidden(self) -> float:
        """Share of the transfer time that the computation hides, 0 to 1."""
        return 1 - self.waited / self.seconds if self.seconds else 0.0


class Ranks(abc.ABC):
    """One of `count` processes that train together. All of them call the same methods in the same order.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
        names: a name for each rank, such as "GPU 2" or "rank 2 on node7".
        traffic: of the gradients since `join`; None if it is not measured.
    """

    traffic: Traffic | None = None

    def __init__(self, rank: int, names: Sequence[str]):
        self.rank, self.names = rank, list(names)

    @property
    def count(self) -> int:
        return len(self.names)

    def prepare(self) -> None:
        """Set this rank's share of each batch, for the nets that this thread builds from now on."""
        caffe.set_solver_count(self.count)
        caffe.set_solver_rank(self.rank)
        caffe.set_multiprocess(self.count > 1)

    def device(self, gpus: Sequence[int]) -> int | None:
        """Return this rank's GPU out of `gpus`, or None for the CPU.

        Raises:
            GpuError: there are more ranks than GPUs.
        """
        return gpus[self.rank] if gpus else None

    @abc.abstractmethod
    def broadcast(self, value: Any = None) -> Any:
        """Return rank 0's value in every rank; the other ranks' values are ignored.

        Raises:
            RankLostError: a rank was lost.
        """

    @abc.abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, in rank 0, and an empty list in the others.

        Raises:
            RankLostError: a rank was lost.
        """

    @abc.abstractmethod
    def join(self, solver: Any) -> None:
        """Copy rank 0's weights to `solver`, and average its gradients over all ranks before each update from now on.

        The solvers' history and iteration must already be the same. `solver.step` raises RankLostError if a rank is
        lost.

        Raises:
            RankLostError: a rank was lost.
            caffe.CaffeError: the GPUs cannot be connected.
        """


class Alone(Ranks):
    """A single process."""

    def __init__(self, name: str = "the CPU"):
        super().__init__(0, [name])

    def prepare(self) -> None:
        """Do nothing: Caffe's defaults are those of a single solver."""

    def broadcast(self, value: Any = None) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def join(self, solver: Any) -> None:
        """Do nothing: there are no other gradients."""


def join_nccl(ranks: Ranks, solver: Any) -> None:
    """Connect the ranks' solvers, each on its own GPU, by NCCL; see `Ranks.join`.

    With the solver's `layer_wise_reduce` (Caffe's default) a layer's gradients are averaged during the backward pass of
    the layers below it. The ranks must release their solvers at the same time: NCCL's clean-up waits for all of them.
    """
    uid = ranks.broadcast(None if ranks.rank else caffe.NCCL.new_uid())
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
