"""What ranks on one machine tell each other, through a pipe from rank 0 to each of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tiny_imagenet.errors import RankLostError
from tiny_imagenet.training.ranks import Ranks


class LinkedRanks(Ranks):
    """Ranks that tell each other Python values through pipes; how gradients are averaged is left open.

    Args:
        rank, names: as `Ranks`.
        links: of rank 0 those to the others, in their order; of another the one to rank 0.
    """

    def __init__(self, rank: int, names: list[str], links: Sequence[Connection]):
        super().__init__(rank, names)
        self._links = list(links)

    def broadcast(self, value: Any = None) -> Any:
        if self.rank:
            with self._lost(0):
                return self._links[0].recv()
        for rank, link in enumerate(self._links, 1):
            with self._lost(rank):
                link.send(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        if self.rank:
            with self._lost(0):
                self._links[0].send(value)
            return []
        values = [value]
        for rank, link in enumerate(self._links, 1):
            with self._lost(rank):
                values.append(link.recv())
        return values

    @contextlib.contextmanager
    def _lost(self, rank: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise RankLostError(f"{self.names[rank]} (rank {rank} of {self.count}) has gone") from error
