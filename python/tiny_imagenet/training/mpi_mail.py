"""Short messages between rank 0 and each of the others, which are sent and looked for without ever waiting in MPI."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

HOST, BEAT, WISH, FAILED, ABANDONED, DONE = range(6)  # the kinds of messages


class Mail:
    """One rank's messages: rank 0's go to all others and come from them, theirs go to rank 0 and come from it.

    Any thread may post; `deliver` and `received` are for the one that talks MPI.

    Args:
        MPI: the module.
        rank, size: of this process.
    """

    def __init__(self, MPI: Any, rank: int, size: int):  # noqa: N803 (the module)
        self._MPI = MPI
        self._partners = range(1, size) if rank == 0 else [0]
        self._lock = threading.RLock()  # a handler of signals may post in the midst of a post
        self._waiting: list[tuple[int, bytes]] = []  # what has not been sent: to which rank, and what
        self._leaving: dict[int, Any] = {}  # a rank: the request and the text of what is being sent to it

    @property
    def waiting(self) -> bool:
        """Whether there is something that `deliver` has not begun to send."""
        return bool(self._waiting)

    @property
    def gone(self) -> bool:
        """Whether all has left."""
        return not self._waiting and not self._leaving

    def post(self, kind: int, what: Any = None) -> None:
        """Have something sent to all partners; a sign of life not to one whom an earlier message has not left for."""
        message = pickle.dumps((kind, what))
        with self._lock:
            busy = {*self._leaving, *(rank for rank, _ in self._waiting)} if kind == BEAT else ()
            self._waiting += [(rank, message) for rank in self._partners if rank not in busy]

    def deliver(self) -> None:
        """Send what can be sent now: to each rank one message at a time."""
        for rank in [rank for rank, (request, _) in self._leaving.items() if request.Test()]:
            del self._leaving[rank]
        with self._lock:
            later = []
            for rank, message in self._waiting:
                if rank in self._leaving:
                    later.append((rank, message))
                else:
                    self._leaving[rank] = self._MPI.COMM_WORLD.Isend(message, rank), message
            self._waiting = later

    def received(self) -> Iterator[tuple[int, int, Any]]:
        """What has come: from which rank, its kind, and what."""
        world, status = self._MPI.COMM_WORLD, self._MPI.Status()
        while world.Iprobe(self._MPI.ANY_SOURCE, self._MPI.ANY_TAG, status):
            message = bytearray(status.Get_count(self._MPI.BYTE))
            rank = status.Get_source()
            world.Recv(message, rank, status.Get_tag())
            yield rank, *pickle.loads(message)
