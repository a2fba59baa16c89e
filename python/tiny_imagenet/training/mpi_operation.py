"""Something that the thread of MPI does step by step, and that another thread waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Steps = Iterator[Any]  # yields requests (lists of them) that are to be done before it goes on, and returns a value
PIECE = 1 << 20  # bytes that a step sends to a rank, at most, where it can be cut


def pieces(data: Any) -> Iterator[memoryview]:
    """What is to travel in parts, one a step.

    Every step that is done shows that a transfer goes on, however slow the network is. It also leaves room for signs of
    life, which would have to wait behind whatever has set out before them.

    Args:
        data: of an array or a buffer, of one dimension.
    """
    view = memoryview(data)
    length = PIECE // view.itemsize
    for begin in range(0, len(view), length):
        yield view[begin : begin + length]


class Operation:
    """An operation.

    Args:
        steps: what it does.

    Attributes:
        begun: when it was asked for.
        ended: when it was done.
    """

    def __init__(self, steps: Steps):
        self.begun = self.ended = time.monotonic()
        self.value: Any = None
        self.error: BaseException | None = None
        self._steps, self._requests = steps, []
        self._done = threading.Event()

    def wait(self) -> Any:
        """What it gives, once it is done.

        Raises:
            RankLostError: another rank has gone.
            mpi_thread.Ended: rank 0 has ended all.
        """
        while not self._done.wait(1):
            pass
        if self.error is not None:
            raise self.error
        return self.value

    def advance(self, all_done: Callable[[list[Any]], bool]) -> bool:
        """Go on as far as it goes now; whether it is done. What MPI raises, this does."""
        try:
            while all_done(self._requests):
                self._requests = next(self._steps)
            return False
        except StopIteration as stop:
            self.finish(stop.value)
            return True

    def finish(self, value: Any = None, error: BaseException | None = None) -> None:
        """Let those go on who wait for it."""
        self.value, self.error, self.ended = value, error, time.monotonic()
        self._done.set()
