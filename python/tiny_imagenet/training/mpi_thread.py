"""The one thread of a process that talks MPI: what others ask it for, and whether the other ranks are still there.

MPI's own calls wait for ever where a machine is cut off. Here nothing waits in MPI once that has begun: an operation is
begun and then asked whether it is done, and between two such questions the ranks exchange signs of life. One that gives
none for a while is lost, and what waits for it ends with an error.
"""

from __future__ import annotations

import faulthandler
import math
import os
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

from tiny_imagenet import cli
from tiny_imagenet.errors import RankLostError
from tiny_imagenet.training import mpi_mail
from tiny_imagenet.training.launch import Launch, begin_mpi, load_mpi
from tiny_imagenet.training.mpi_mail import Mail
from tiny_imagenet.training.mpi_operation import Operation, Steps
from tiny_imagenet.training.mpi_watch import Watch

POLL = 50e-6  # seconds from one look at what is under way to the next
IDLE = 0.05  # the same where nothing is under way
AT_ONCE = 4  # operations under way at once; the others wait for their turn
GRACE = 5.0  # seconds that a process has to end by itself, once a rank is lost
FINALIZE = 30.0  # seconds that the end of MPI may take, from where rank 0 has done all that it has to do
_TEXT = 2000  # characters of an error that travel: a message must be small enough to be sent at once


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
        self._begun = self._steps = 0  # operations that were asked for; steps of them that are done
        self._failure: BaseException | None = None
        self._leaving: threading.Timer | None = None
        self._ending = self._left = False  # whether this process ends MPI; whether it does so without the others
        self._until = float("inf")  # when it no longer waits for its last messages to leave
        self._told = 0.0  # when rank 0 said that all end because something has gone wrong
        self._done = False  # whether rank 0 has said that it has done all, and that nothing has
        self._mail = Mail(self.MPI, self.rank, self.size)
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
            self._post(mpi_mail.WISH, name)

    def fail(self, text: str) -> None:
        """Tell rank 0 what has gone wrong here, and wait until it has ended all; not for rank 0.

        Raises:
            RankLostError: it does not.
        """
        self._post(mpi_mail.FAILED, text[:_TEXT])
        with self._lock:
            self._lock.wait_for(lambda: self._failure is not None, 2 * GRACE)
        if not isinstance(self._failure, Ended):
            raise RankLostError(text)

    def end(self) -> None:
        """End MPI in all ranks, where nothing has gone wrong; all call it."""
        if self.rank == 0:
            self._post(mpi_mail.DONE)
        with self._lock:
            if self.rank:
                self._lock.wait_for(lambda: self._done or self._failure is not None, GRACE)
            self._ending, self._until = True, time.monotonic() + GRACE
            self._lock.notify_all()
        self._thread.join()
        if self._leaving:
            self._leaving.cancel()

    def abandon(self) -> None:
        """End all ranks that can be told so, without an end of MPI; rank 0 calls it where something has gone wrong."""
        self._post(mpi_mail.ABANDONED)
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
            begin_mpi(self.MPI, self._launch)
        except Exception as error:
            self._up.finish(error=error)
            return
        self._up.finish()
        now = time.monotonic()
        watch = Watch(self.names, self.rank, self._limit, now)
        beaten = now - watch.beat
        self._post(mpi_mail.HOST, platform.node())
        try:
            while not self._ending or (not self._mail.gone and now < self._until):
                with self._lock:
                    if not self._new and not self._active and not self._mail.waiting:
                        self._lock.wait(IDLE)
                    self._active += self._new
                    self._begun += len(self._new)
                    self._new.clear()
                now = time.monotonic()
                if now - self._looked > 1:
                    watch.forgive(now - self._looked)
                self._looked = now
                self._advance()
                self._mail.deliver()
                self._receive(watch, now)
                if now - beaten > watch.beat:
                    beaten = now
                    self._beat(watch, now)
                if self._told and (not self._active or now - self._told > watch.beat):
                    self._stop_all(Ended())
                if self._active or self._mail.waiting:
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

    def _all_hosts(self) -> Steps:
        self.comm, request = self.MPI.COMM_WORLD.Idup()
        yield [request]
        self.comm.Set_errhandler(self.MPI.ERRORS_RETURN)
        size = 64
        own = platform.node().encode()[:size].ljust(size)
        every = bytearray(size * self.size)
        yield [self.comm.Iallgather(own, every)]
        return [
            bytes(every[start : start + size]).decode(errors="replace").strip() for start in range(0, len(every), size)
        ]

    def _advance(self) -> None:
        """Go on with what is under way, which takes its turns in the same order on all ranks.

        Where many operations at once share a slow network, none of them comes to its end for long.
        """
        turn, later = self._active[:AT_ONCE], self._active[AT_ONCE:]
        self._active = [operation for operation in turn if not operation.advance(self._all_done)] + later

    def _all_done(self, requests: list[Any]) -> bool:
        if not requests:
            return True
        done = self.MPI.Request.Testall(requests)
        self._steps += done
        return done

    def _post(self, kind: int, what: Any = None) -> None:
        self._mail.post(kind, what)
        with self._lock:
            self._lock.notify_all()

    def _beat(self, watch: Watch, now: float) -> None:
        """Give a sign of life, and look for those of the others."""
        begun, done = self._begun, self._begun - len(self._active)
        watch.sign(self.rank, begun, done, self._steps, now)
        self._post(mpi_mail.BEAT, (begun, done, self._steps))
        if self._failure is None and not self._done:
            # Who is asked to end has no time to wait for one that is gone.
            lost = watch.silent(now, GRACE if self.wish else math.inf) or watch.stuck(now)
            if lost:
                self.unreachable = True
                self._lose(lost)
            elif behind := watch.behind(now):
                cli.note(behind)

    def _receive(self, watch: Watch, now: float) -> None:
        for rank, kind, what in self._mail.received():
            if kind == mpi_mail.HOST and not self.hosts:
                self.names[rank] = f"rank {rank} ({what})"
            elif kind == mpi_mail.BEAT:
                watch.sign(rank, *what, now)
            elif kind == mpi_mail.WISH:
                self.wish = self.wish or what
            elif kind == mpi_mail.FAILED:
                self._lose(f"{self.names[rank]}: {what}")
            elif kind == mpi_mail.ABANDONED:
                self._told = self._told or now
            elif kind == mpi_mail.DONE:
                self._come_to_the_end()

    def _come_to_the_end(self) -> None:
        """Rank 0 has sent all, for which this one may not have asked yet, and gives no sign of life from here on."""
        with self._lock:
            self._done = True
            self._end_in(
                FINALIZE, RankLostError(f"{self.names[0]} is done, {self.names[self.rank]} does not come to it")
            )
            self._lock.notify_all()

    def _end_in(self, seconds: float, error: BaseException) -> None:
        """Let the process end for that reason where it has not ended by itself by then."""
        if self._leaving:
            self._leaving.cancel()
        self._leaving = threading.Timer(seconds, self._leave, [error])
        self._leaving.daemon = True
        self._leaving.start()

    def _lose(self, text: str) -> None:
        self._left = True
        self._stop_all(RankLostError(text))

    def _stop_all(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None:
                self._failure = error
                self._end_in(GRACE, error)
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
                self._post(mpi_mail.ABANDONED)
                time.sleep(0.5)
        os._exit(1)
