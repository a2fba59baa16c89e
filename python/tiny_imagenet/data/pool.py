"""Loads batches in several processes.

What a batch becomes lies in a slot, a piece of a file that all processes map into memory: images need no pipe.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2

from tiny_imagenet.data import dataset
from tiny_imagenet.data.catalogue import Entry
from tiny_imagenet.data.loading import SLOT, Loaded, Rule, load, total
from tiny_imagenet.errors import DatasetError

MOST = 256  # processes

_ALONE = (
    "this process may start no others (it is a worker of a pool itself, or of a script without an "
    '`if __name__ == "__main__":` line): try workers=1, which needs none'
)


def check(workers: int) -> None:
    """Raise DatasetError where there are to be several processes and this one may not start any."""
    process = multiprocessing.current_process()
    # The second: a new process is still reading the script that started it.
    if workers > 1 and (process.daemon or getattr(process, "_inheriting", False)):
        raise DatasetError(_ALONE)


class Pool:
    """Loads batches in so many processes; 1 is this one, and needs no other.

    The first processes begin at once, so there is something to gain in making the pool early; `begin` makes it
    complete. Batches go to them in turns and come back so: no queue and no thread stands between this process and its
    workers.
    """

    def __init__(self, workers: int, rule: Rule, folder: Path):
        """Start processes, no more than there are cores; in `folder` there is a file with the slots until `close`.

        Raises:
            DatasetError: this process may not start others.
            OSError: a limit of the system is in the way.
        """
        check(workers)
        self._rule = rule
        self._most = min(workers, MOST)
        self._workers: list[tuple[BaseProcess, Connection]] = []
        if self._most == 1:
            self._memory = memoryview(bytearray(SLOT))
            return
        self._path = folder / "slots"
        try:
            with open(self._path, "w+b") as file:
                file.truncate(_slots(self._most) * SLOT)  # no space on the disk is taken yet
                self._memory = memoryview(mmap.mmap(file.fileno(), 0))
            resource_tracker.ensure_running()  # the first start would, and let Ctrl-C through again
            self._start(min(self._most, os.cpu_count() or 1))
        except BaseException:
            self.close()
            raise

    def size(self, batches: int) -> int:
        """How many bytes on the disk `begin` takes for so many batches."""
        return _slots(self._used(batches)) * SLOT if self._workers else 0

    def begin(self, batches: int) -> None:
        """Start the processes that are missing, no more than there are batches, and take the slots' disk space.

        Raises OSError where the system does not allow it.
        """
        if self._workers:
            self._start(self._used(batches) - len(self._workers))
            with open(self._path, "r+b") as file:  # a full disk shows here, not as a dead process
                os.posix_fallocate(file.fileno(), 0, self.size(batches))

    def _used(self, batches: int) -> int:
        return max(len(self._workers), min(self._most, batches))

    def _start(self, count: int) -> None:
        # Fresh processes, not forks: a fork of a process with threads (OpenBLAS has some) can hang.
        context = multiprocessing.get_context("spawn")
        with no_interrupt():
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, str(self._path), self._rule), daemon=True)
                try:
                    process.start()
                except (AssertionError, RuntimeError) as error:
                    raise DatasetError(_ALONE) from error
                finally:
                    theirs.close()
                self._workers.append((process, ours))

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._workers:
            connection.close()
            process.terminate()
        for process, _ in self._workers:
            process.join()
        self._workers.clear()
        if self._most > 1:
            self._path.unlink(missing_ok=True)

    def load(self, batches: Iterable[list[Entry]]) -> Iterator[tuple[list[Entry], Loaded, memoryview]]:
        """Yield each batch, of at most BATCH entries, with what it became and the memory its Datums are in, in order.

        The memory is valid until the next batch is asked for. Few batches are under way at a time.

        Raises:
            DatasetError: a process ended early.
        """
        if not self._workers:
            for batch in batches:
                with dataset.quiet():
                    loaded = load(batch, self._memory, self._rule)
                yield batch, loaded, self._memory if loaded.data is None else memoryview(loaded.data)
            return
        turns = itertools.cycle(self._workers)
        waiting: deque[tuple[list[Entry], memoryview, Connection]] = deque()
        try:
            for number, batch in enumerate(batches):
                slot, (_, connection) = number % _slots(len(self._workers)), next(turns)
                connection.send((slot, [tuple(entry) for entry in batch]))
                waiting.append((batch, _slot(self._memory, slot), connection))
                if len(waiting) == 2 * len(self._workers):
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)
        except (EOFError, ConnectionError) as error:
            raise DatasetError(
                "a worker process ended early (out of memory, or started by a script without "
                'an `if __name__ == "__main__":` line): try fewer workers, or 1, which needs no other process'
            ) from error

    def _first(
        self, waiting: deque[tuple[list[Entry], memoryview, Connection]]
    ) -> tuple[list[Entry], Loaded, memoryview]:
        batch, slot, connection = waiting.popleft()
        loaded = connection.recv()
        if isinstance(loaded, Exception):
            raise loaded
        return batch, loaded._replace(total=total(slot)), slot if loaded.data is None else memoryview(loaded.data)


def _serve(connection: Connection, path: str, rule: Rule) -> None:
    """What a worker process does until the connection is closed, which it also is when the parent ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # image libraries complain there, on and on; errors go to the parent
    cv2.setNumThreads(1)  # the processes are the threads
    tasks: queue.SimpleQueue[tuple[int, list[tuple]]] = queue.SimpleQueue()

    def receive() -> None:  # in a thread: the parent never waits to send while this process waits to send to it
        while True:
            try:
                tasks.put(connection.recv())
            except (EOFError, OSError):
                os._exit(1)

    with open(path, "r+b") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0))
    threading.Thread(target=receive, daemon=True).start()
    while True:
        slot, entries = tasks.get()
        try:
            loaded: Loaded | Exception = load([Entry(*entry) for entry in entries], _slot(memory, slot), rule)
            loaded = loaded._replace(total=None)  # it is in the slot
        except Exception as error:
            loaded = error
        connection.send(loaded)


def _slots(workers: int) -> int:
    return 2 * workers + 1  # two batches a worker, and one in the hands of whoever has got it


def _slot(memory: memoryview, number: int) -> memoryview:
    return memory[number * SLOT : (number + 1) * SLOT]


@contextlib.contextmanager
def no_interrupt() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM. Processes started meanwhile never see Ctrl-C: the parent does, and ends them."""
    seen: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, lambda number, _: seen.append(number))
    # Blocking is what a child inherits; the handlers are for this process, whose other threads may take the signal.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for number in seen:
        signal.raise_signal(number)
