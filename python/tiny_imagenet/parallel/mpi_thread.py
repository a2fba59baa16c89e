"""The one thread of a process that talks MPI: what others ask it for, and whether the other ranks are still there.

MPI's own calls wait for ever where a machine is cut off. Here nothing waits in MPI once that has begun: an operation is
begun and then asked whether it is done, and between two such questions the ranks exchange signs of life. One that gives
none for a while is lost, and what waits for it ends with an error.
"""

from __future__ import annotations

import faulthandler
import math
import os
import pickle
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError, RankLostError
from tiny_imagenet.parallel.launch import Launch, load_mpi
from tiny_imagenet.parallel.mpi_operation import Operation, Steps
from tiny_imagenet.parallel.mpi_watch import Watch

POLL = 50e-6  # seconds from one look at what is under way to the next
IDLE = 0.05  # the same where nothing is under way
GRACE = 5.0  # seconds that a process has to end by itself, once a rank is lost
FINALIZE = 30.0  # seconds that the end of MPI may take
_TEXT = 2000  # characters of an error that travel: a message must be small enough to be sent at once

_HOST, _BEAT, _WISH, _FAILED, _END = range(5)


class Ended(BaseException):
    """Rank 0 has ended all ranks; it is no Exception so that nothing on the way takes it for one."""


class MpiThread:
    """The thread, and what may be asked of it.

    Args:
        launch: how this process was started.
        limit: seconds without a sign of life after which a rank is lost.
        last_words: called with what has happened where this process does not end by itself when a rank is lost.

    Attributes:
        MPI: the module.
        rank, size: of this process.
        hosts: the machines of all ranks.
        names: the ranks, as people call them.
        unreachable: whether a rank gives no sign of life any more.
        wish: the name of the signal that some rank has got, in rank 0; "" while there is none.
    """

    def __init__(self, launch: Launch, limit: float, last_words: Callable[[str], None]):
        self.MPI = load_mpi(launch)
        self.rank, self.size = launch.rank, launch.size
        self.names = [f"rank {rank}" for rank in range(launch.size)]  # with its machine, once that is known
        self.names[self.rank] += f" ({platform.node()})"
        self.hosts: list[str] = []
        self.unreachable = False
        self.wish = ""
        self._launch, self._limit, self._last_words = launch, limit, last_words
        self._lock = threading.Condition()
        self._new: list[Operation] = []
        self._active: list[Operation] = []
        self._begun = 0  # operations, in all
        self._failure: BaseException | None = None
        self._leaving: threading.Timer | None = None
        self._ending = self._left = False  # whether this process ends MPI; whether it does so without the others
        self._until = float("inf")  # when it no longer waits for its last messages to leave
        self._told = 0.0  # when rank 0 said that all is at its end
        self._mail: list[tuple[int, bytes]] = []  # what is to be sent: to which rank, and what
        self._sending: dict[int, Any] = {}  # a rank: its last message's request and text, under way
        self._peers = list(range(1, self.size)) if self.rank == 0 else [0]
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="MPI", daemon=True)

    def start(self) -> None:
        """Begin MPI; returns when all ranks have, whether they reach each other or not.

        Raises:
            ClusterError: it does not begin, or sees another number of processes.
        """
        up = Operation(iter(()))
        self._up = up
        self._thread.start()
        up.wait()

    def come_together(self) -> None:
        """See that all ranks reach each other; all call it first.

        Raises:
            RankLostError: they do not.
        """
        self.hosts = self.begin(self._all_hosts()).wait()
        self.names[:] = [f"rank {rank} ({host})" for rank, host in enumerate(self.hosts)]

    def begin(self, steps: Steps) -> Operation:
        """Let the thread do something; all ranks ask for the same in the same order."""
        operation = Operation(steps)
        with self._lock:
            if self._failure is not None:
                operation.finish(error=self._failure)
            else:
                self._new.append(operation)
                self._lock.notify_all()
        return operation

    def tell_wish(self, name: str) -> None:
        """Tell rank 0 of a signal that asks for the end."""
        if self.rank == 0:
            self.wish = self.wish or name
        else:
            self._post(0, _WISH, name)

    def fail(self, text: str) -> None:
        """Tell rank 0 what has gone wrong here, and wait until it has ended all; not for rank 0.

        Raises:
            RankLostError: it does not.
        """
        self._post(0, _FAILED, text[:_TEXT])
        with self._lock:
            self._lock.wait_for(lambda: self._failure is not None, 2 * GRACE)
        if not isinstance(self._failure, Ended):
            raise RankLostError(text)

    def end(self) -> None:
        """End MPI in all ranks, where nothing has gone wrong; all call it."""
        if self.rank == 0:
            self._post_all(_END)
        with self._lock:
            if self.rank:
                self._lock.wait_for(lambda: self._failure is not None, GRACE)
            self._ending, self._until = True, time.monotonic() + GRACE
            self._lock.notify_all()
        self._thread.join()
        if self._leaving:
            self._leaving.cancel()

    def abandon(self) -> None:
        """End all ranks that can be told so, without an end of MPI; rank 0 calls it where something has gone wrong."""
        self._post_all(_END)
        with self._lock:
            self._ending, self._left, self._until = True, True, time.monotonic() + 1
            self._lock.notify_all()
        self._thread.join(2)
        if self._leaving:
            self._leaving.cancel()

    def was_suspended(self) -> bool:
        """Whether the process has only now been continued after it was stopped."""
        return time.monotonic() - self._looked > 10 * IDLE

    def waits(self) -> float:
        """Seconds since the oldest operation that is not done was begun."""
        with self._lock:
            return max((time.monotonic() - operation.begun for operation in self._active), default=0.0)

    # --- All from here on is the thread's own, but for _post and _leave. ---

    def _work(self) -> None:
        try:
            self._connect()
        except Exception as error:
            self._up.finish(error=error)
            return
        self._up.finish()
        now = time.monotonic()
        watch = Watch(self.names, self.rank, self._limit, now)
        beaten = now - watch.beat
        self._post_all(_HOST, platform.node())
        try:
            while not self._ending or ((self._mail or self._sending) and now < self._until):
                with self._lock:
                    if not self._new and not self._active and not self._mail:
                        self._lock.wait(IDLE)
                    self._active += self._new
                    self._begun += len(self._new)
                    self._new.clear()
                now = time.monotonic()
                if now - self._looked > 1:
                    watch.forgive(now - self._looked)
                self._looked = now
                self._active = [operation for operation in self._active if not operation.advance(self._all_done)]
                self._send()
                self._receive(watch, now)
                if now - beaten > watch.beat:
                    beaten = now
                    self._beat(watch, now)
                if self._told and (not self._active or now - self._told > watch.beat):
                    self._stop_all(Ended())
                if self._active or self._mail:
                    time.sleep(POLL)
            if not self._left:
                if self._leaving:
                    self._leaving.cancel()  # from here on there is another limit
                # It holds Python's lock, and waits for ever where a machine has gone by now.
                faulthandler.dump_traceback_later(FINALIZE, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
                self.MPI.Finalize()
                faulthandler.cancel_dump_traceback_later()
        except Exception as error:  # MPI's own: what it says is all there is to say
            what = " ".join(str(error).split()) or type(error).__name__
            self._lose(f"{self.names[self.rank]}: MPI fails: {what}")

    def _connect(self) -> None:
        MPI = self.MPI  # noqa: N806 (the module)
        if MPI.Is_initialized():
            raise ClusterError("one process trains once with MPI: start another for the next training")
        # Both ways to add up send each byte about twice, however many ranks there are; the second needs fewer steps and
        # a power of two. Open MPI's own choice between two and three ranks sends everything to one of them.
        power_of_two = self.size & (self.size - 1) == 0
        os.environ.setdefault("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3" if power_of_two else "1")
        MPI.Init_thread(MPI.THREAD_FUNNELED)
        world = MPI.COMM_WORLD
        if world.size != self.size:
            library = MPI.Get_library_version().split(",")[0].split("\n")[0]
            hint = "srun --mpi=pmix" if self._launch.launcher == "srun" else "the mpirun that belongs to it"
            raise ClusterError(
                f"{self._launch.launcher} has started {self.size} processes, and the MPI library that mpi4py finds "
                f"({library}) sees {world.size}: start them with {hint}"
            )
        world.Set_errhandler(MPI.ERRORS_RETURN)
        self._signs = world

    def _all_hosts(self) -> Steps:
        self.comm, request = self._signs.Idup()
        yield [request]
        self.comm.Set_errhandler(self.MPI.ERRORS_RETURN)
        size = 64
        own = platform.node().encode()[:size].ljust(size)
        every = bytearray(size * self.size)
        yield [self.comm.Iallgather(own, every)]
        return [
            bytes(every[start : start + size]).decode(errors="replace").strip() for start in range(0, len(every), size)
        ]

    def _all_done(self, requests: list[Any]) -> bool:
        return not requests or self.MPI.Request.Testall(requests)

    def _post(self, rank: int, kind: int, what: Any = None) -> None:
        with self._lock:
            if kind == _BEAT and (rank in self._sending or any(to == rank for to, _ in self._mail)):
                return  # the last one has not left yet
            self._mail.append((rank, pickle.dumps((kind, what))))
            self._lock.notify_all()

    def _beat(self, watch: Watch, now: float) -> None:
        """Give a sign of life, and look for those of the others."""
        begun, done = self._begun, self._begun - len(self._active)
        watch.sign(self.rank, begun, done, now)
        self._post_all(_BEAT, (begun, done))
        if self._failure is None:
            # Who is asked to end has no time to wait for one that is gone.
            lost = watch.silent(now, GRACE if self.wish else math.inf) or watch.stuck(now)
            if lost:
                self.unreachable = True
                self._lose(lost)
            elif behind := watch.behind(now):
                cli.note(behind)

    def _post_all(self, kind: int, what: Any = None) -> None:
        for rank in self._peers:
            self._post(rank, kind, what)

    def _send(self) -> None:
        for rank, (request, _) in list(self._sending.items()):
            if request.Test():
                del self._sending[rank]
        with self._lock:
            waiting, self._mail = self._mail, []
        for rank, message in waiting:
            if rank in self._sending:
                self._mail.append((rank, message))
            else:
                self._sending[rank] = self._signs.Isend(message, rank), message

    def _receive(self, watch: Watch, now: float) -> None:
        status = self.MPI.Status()
        while self._signs.Iprobe(self.MPI.ANY_SOURCE, self.MPI.ANY_TAG, status):
            message = bytearray(status.Get_count(self.MPI.BYTE))
            rank = status.Get_source()
            self._signs.Recv(message, rank, status.Get_tag())
            kind, what = pickle.loads(message)
            if kind == _HOST and not self.hosts:
                self.names[rank] = f"rank {rank} ({what})"
            elif kind == _BEAT:
                watch.sign(rank, *what, now)
            elif kind == _WISH:
                self.wish = self.wish or what
            elif kind == _FAILED:
                self._lose(f"{self.names[rank]}: {what}")
            elif kind == _END:
                self._told = self._told or now

    def _lose(self, text: str) -> None:
        self._left = True
        self._stop_all(RankLostError(text))

    def _stop_all(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
                self._leaving = threading.Timer(GRACE, self._leave, [error])
                self._leaving.daemon = True
                self._leaving.start()
            waiting = self._new + self._active
            self._new, self._active = [], []
            self._lock.notify_all()
        for operation in waiting:
            operation.finish(error=error)

    def _leave(self, error: BaseException) -> None:
        """The process is still here: in the midst of something that waits for a rank that is lost."""
        if isinstance(error, RankLostError):
            self._last_words(str(error))
            if self.rank == 0:
                self._post_all(_END)
                time.sleep(0.5)
        os._exit(1)
