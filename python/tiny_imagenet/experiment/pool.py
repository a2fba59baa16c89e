"""Loads batches on the workers of a cluster, as `data.pool` does in processes of this machine."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import distributed

from tiny_imagenet.data.catalogue import Entry
from tiny_imagenet.data.loading import Loaded, Rule
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import connection, worker
from tiny_imagenet.experiment.worker import Demands

MOST = 256  # batches under way, of 1.6 MB each
LOOK = 1.0  # seconds from one look at the workers to the next


class ClusterPool:
    """Has the methods of `pool.Pool`.

    Batches are sent to the workers a few ahead of the one that is asked for, and come back in order. What a lost worker
    had is loaded again by another.
    """

    def __init__(self, scheduler: str, workers: int | None, root: Path, rule: Rule):
        """Connect, and see that the workers are fit; `root` is the data set, the rest as of `connection.connect`.

        Raises:
            ClusterError: the cluster cannot be reached, has no workers, or one that is not fit.
        """
        self._rule = rule
        self._waiting: deque[tuple[list[Entry], distributed.Future]] = deque()
        classes = os.path.abspath(root / "wnids.txt")
        contents = ((classes, worker.sha256(Path(classes)) or ""),)
        self._demands = Demands(worker.versions(), contents)
        self._stack = contextlib.ExitStack()
        try:
            self._cluster = self._stack.enter_context(connection.connect(scheduler, workers, None))
            self._cluster.admit(self._demands, None)
            self._look()
        except BaseException:
            self._stack.close()
            raise

    def size(self, batches: int) -> int:
        """How many bytes on the disk here it takes."""
        return 0

    def begin(self, batches: int) -> None:
        """Nothing is left to be made ready."""

    def close(self) -> None:
        """Drop what is under way, and leave the cluster."""
        with contextlib.suppress(Exception):  # of a cluster that has gone
            self._cluster.client.cancel([future for _, future in self._waiting], force=True)
        self._waiting.clear()
        self._stack.close()

    def load(self, batches: Iterable[list[Entry]]) -> Iterator[tuple[list[Entry], Loaded, memoryview]]:
        """As `pool.Pool.load`.

        Raises:
            ClusterError: there is no worker any more, or worker after worker was lost with a batch.
        """
        for batch in batches:
            future = self._cluster.client.submit(
                worker.load_batch,
                [entry._replace(path=os.path.abspath(entry.path)) for entry in batch],
                self._rule,
                self._demands,
                pure=False,
            )
            self._waiting.append((batch, future))
            while len(self._waiting) > self._ahead:
                yield self._first()
        while self._waiting:
            yield self._first()

    def _look(self) -> None:
        """See who is there."""
        self._cluster.watch(self._demands, None)
        threads = sum(info["nthreads"] for info in self._cluster.workers().values())
        self._ahead = min(2 * threads + 2, MOST)
        self._looked = time.monotonic()

    def _first(self) -> tuple[list[Entry], Loaded, memoryview]:
        batch, future = self._waiting.popleft()
        while not future.done():
            if time.monotonic() - self._looked > LOOK:
                self._look()
            time.sleep(0.001)
        try:
            loaded, data = future.result()
        except distributed.KilledWorker as error:
            raise ClusterError(
                f"worker after worker was lost with the same images, the last one {error.last_worker.address}: see the "
                "log of it"
            ) from error
        except (distributed.CancelledError, OSError) as error:
            raise ClusterError(f"the scheduler {self._cluster.address} is gone: convert again") from error
        if loaded.errors:  # a worker whose disk has gone sees no image at all: what cannot be read is said here
            loaded, data = worker.loaded_here(batch, self._rule)
        return batch, loaded, memoryview(data)
