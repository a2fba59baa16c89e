"""Processes that train one net together, each on its share of every batch: upstream's data-parallel scheme.

Each has the whole net and the same weights. Before an update the gradients are averaged over all of them, so that they
all make the same step, which is that of the whole batch. Rank 0 decides and writes; the others do as it says.

`Ranks` is what training needs to know of them. How they reach each other is the business of those that implement it:
`Alone` here, `gpu_ranks` for several GPUs of one machine, `mpi_ranks` for several machines.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import caffe


@dataclass
class Traffic:
    """What averaging gradients has taken.

    Attributes:
        iterations: how many updates.
        bytes: of the gradients that one rank has averaged with the others'.
        seconds: from the first gradient of an update that travelled to the last that had come, of all updates.
        waited: how much of that the computation has stood still; the backward pass has hidden the rest.
    """

    iterations: int = 0
    bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, begun: float, computed: float, come: float) -> None:
        """Count an update: when its first gradient set out, when all were computed, when the last had come."""
        self.iterations += 1
        self.seconds += come - begun
        self.waited += max(0.0, come - computed)

    @property
    def hidden(self) -> float:
        """The share of the seconds in which the computation has gone on."""
        return 1 - self.waited / self.seconds if self.seconds else 0.0


class Ranks(abc.ABC):
    """One of `count` processes that train together.

    All of them call each method below, in the same order.

    Attributes:
        rank: which one, from 0.
        count: how many there are.
        names: what people call each, as "GPU 2".
        traffic: of the gradients since `join`, where that is counted; else None.
    """

    traffic: Traffic | None = None

    def __init__(self, rank: int, names: list[str]):
        self.rank, self.names = rank, names

    @property
    def count(self) -> int:
        return len(self.names)

    def prepare(self) -> None:
        """Tell Caffe, in this thread, which share of a batch is this rank's: what is built from here on knows it."""
        caffe.set_solver_count(self.count)
        caffe.set_solver_rank(self.rank)
        caffe.set_multiprocess(self.count > 1)

    def device(self, gpus: Sequence[int]) -> int | None:
        """The GPU of this rank, of those that people have named; None for the CPU.

        Raises:
            GpuError: there is none for this rank.
        """
        return gpus[self.rank] if gpus else None

    @abc.abstractmethod
    def broadcast(self, value: Any = None) -> Any:
        """What rank 0 gives, in every rank; what the others give is not looked at.

        Raises:
            RankLostError: one of them has gone.
        """

    @abc.abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """What every rank gives, in their order, in rank 0; in the others an empty list.

        Raises:
            RankLostError: one of them has gone.
        """

    @abc.abstractmethod
    def join(self, solver: Any) -> None:
        """Give `solver` rank 0's weights, and from here on average its gradients over all ranks before each update.

        The solver's history and iteration are to be the same in all ranks already.

        Raises:
            RankLostError: one of them has gone.
            caffe.CaffeError: they cannot come together.
        """


class Alone(Ranks):
    """A process that trains by itself."""

    def __init__(self, name: str = "the CPU"):
        super().__init__(0, [name])

    def prepare(self) -> None:
        """Nothing: a solver by itself is what Caffe takes for granted."""

    def broadcast(self, value: Any = None) -> Any:
        return value

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def join(self, solver: Any) -> None:
        """Nothing: there is nobody to average with."""
