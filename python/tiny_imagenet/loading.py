"""Reads, decodes and screens images for `convert`, a batch at a time, in this process or in several.

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
from fractions import Fraction
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tiny_imagenet import dataset, datum, screening
from tiny_imagenet.catalogue import Entry
from tiny_imagenet.dataset import SIZE
from tiny_imagenet.errors import DatasetError

BATCH = 128
SHAPE = (3, SIZE, SIZE)

_TOTAL = 4 * 3 * SIZE * SIZE  # bytes of the sum of a batch's images, at the end of a slot
SLOT = BATCH * (3 * SIZE * SIZE + 64) + _TOTAL  # a Datum of a raw image has less than 64 bytes besides the pixels
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 9]


class Rule(NamedTuple):
    """What to do with images.

    Attributes:
        encoded: keep the files' bytes.
        resize: make images of another size 64x64.
        crop, min_visible: of screening.
    """

    encoded: bool = False
    resize: bool = False
    crop: int = screening.CROP
    min_visible: Fraction = screening.MIN_VISIBLE


class Mended(NamedTuple):
    """A box that is not as its line has it.

    Attributes:
        name, line: of the image; FILE:NUMBER within the data set.
        was, now: the box in the line, and what counts for screening, None for no box.
        why: what was wrong with it.
    """

    name: str
    line: str
    was: str
    now: list[int] | None
    why: str


class Loaded(NamedTuple):
    """What a batch of entries became.

    Attributes:
        sizes: of each entry's Datum, in bytes, one behind the other in the slot (or in `data`); -1: unreadable.
        data: the Datums, where they are more than a slot holds.
        errors: for each unreadable one its position in the batch and what to say.
        total: the sum of the images, float32 (64, 64, 3), exact.
        small, dropped, without_box: positions of the readable entries whose box is under 8x8 pixels, whose box
            screening drops, and that have none.
        mended: the boxes that are not as in their lines.
        resized, reencoded: positions of images that had another size, and whose file's bytes could not be kept.
    """

    sizes: list[int]
    data: bytes | None
    errors: list[tuple[int, str]]
    total: np.ndarray
    small: list[int]
    dropped: list[int]
    without_box: list[int]
    mended: list[Mended]
    resized: list[int]
    reencoded: list[int]


class Pool:
    """Loads batches in so many processes; 1 is this one, and needs no other.

    The processes begin at once, so there is something to gain in making the pool early. Batches go to them in turns
    and come back so: no queue and no thread stands between this process and its workers.
    """

    def __init__(self, workers: int, rule: Rule, folder: Path):
        """Start the processes; in `folder` there is a file with the slots for as long as the pool is open."""
        self._rule = rule
        self._workers: list[tuple[BaseProcess, Connection]] = []
        if workers == 1:
            self._memory = memoryview(bytearray(SLOT))
            return
        slots = 2 * workers + 1  # two batches a worker, and one in the hands of whoever has got it
        self._path = folder / "slots"
        with open(self._path, "w+b") as file:
            os.posix_fallocate(file.fileno(), 0, slots * SLOT)  # a full disk shows here, not as a dead process
            self._memory = memoryview(mmap.mmap(file.fileno(), slots * SLOT))
        # Fresh processes, not forks: a fork of a process with threads (OpenBLAS has some) can hang.
        context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # the first start would, and let Ctrl-C through again
        with _no_interrupt():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, str(self._path), rule), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._workers:
            connection.close()
            process.terminate()
        for process, _ in self._workers:
            process.join()
        if self._workers:
            self._workers.clear()
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
                slot, (_, connection) = number % (2 * len(self._workers) + 1), next(turns)
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
        return batch, loaded._replace(total=_total(slot)), slot if loaded.data is None else memoryview(loaded.data)


def load(entries: list[Entry], slot: memoryview, rule: Rule) -> Loaded:
    """Read, decode and screen the images of `entries` and put their Datums into `slot`, or into the result."""
    values: list[bytes] = []
    sizes: list[int] = []
    errors: list[tuple[int, str]] = []
    total = _total(slot)  # exact: 255 * BATCH is far below 2**24
    total[:] = 0
    boxes: list[tuple[int, screening.Box]] = []
    found = Loaded(sizes, None, errors, total, [], [], [], [], [], [])
    at = 0
    for position, entry in enumerate(entries):
        try:
            content = dataset.read_bytes(entry.path)
            decoded = dataset.decode_image(content, entry.path)
            image = dataset.fit(decoded, entry.path, rule.resize)
        except DatasetError as error:
            sizes.append(-1)
            errors.append((position, str(error)))
            continue
        cv2.accumulate(image, total)
        if image is not decoded:
            found.resized.append(position)
        if rule.encoded:
            if image is not decoded or not _decodes_to(content, image):
                content = cv2.imencode(".png", image, _PNG)[1].tobytes()
                found.reencoded.append(position)
            values.append(datum.encode_file(content, SHAPE, entry.label))
            sizes.append(len(values[-1]))
        else:
            start, end = datum.frame(SHAPE, image.size, entry.label, False)
            pixels = at + len(start)
            behind = pixels + image.size
            slot[at:pixels] = start
            cv2.split(image, list(np.frombuffer(slot[pixels:behind], np.uint8).reshape(SHAPE)))
            slot[behind : behind + len(end)] = end
            sizes.append(behind + len(end) - at)
            at = behind + len(end)
        box = _box(entry, decoded.shape, found.mended)
        if box:
            boxes.append((position, box))
        else:
            found.without_box.append(position)
    if boxes:
        corners = np.array([box for _, box in boxes])
        kept = screening.keep(corners, SIZE, rule.crop, rule.min_visible)
        found.dropped.extend(boxes[index][0] for index in np.flatnonzero(~kept))
        found.small.extend(boxes[index][0] for index in np.flatnonzero(screening.is_small(corners)))
    if values:
        joined = b"".join(values)
        if len(joined) > len(slot) - _TOTAL:
            return found._replace(data=joined)
        slot[: len(joined)] = joined
    return found


def _box(entry: Entry, shape: tuple[int, ...], mended: list[Mended]) -> screening.Box | None:
    """The entry's box in the 64x64 image, of a picture that had `shape` (height, width, channels)."""
    if entry.malformed:
        mended.append(Mended(entry.name, entry.line, entry.malformed, None, "not four whole numbers"))
    if entry.box is None:
        return None
    height, width = shape[:2]
    box, wrong = screening.mend(entry.box, width, height)
    if box and (width, height) != (SIZE, SIZE):
        box = screening.scale(box, width, height, SIZE)
    if wrong:
        was = " ".join(map(str, entry.box))
        mended.append(Mended(entry.name, entry.line, was, list(box) if box else None, wrong))
    return box


def _decodes_to(content: bytes, image: np.ndarray) -> bool:
    """Whether Caffe, which decodes a file to what is in it, sees the same 8-bit image in three channels or in one."""
    if content[:2] == b"\xff\xd8" and b"Exif\0" not in content[: 1 << 16]:
        return True  # a JPEG is that, if nothing in it says to turn it
    kept = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if kept is None or kept.dtype != np.uint8 or kept.shape not in (image.shape, image.shape[:2]):
        return False
    return np.array_equal(kept if kept.ndim == 3 else cv2.cvtColor(kept, cv2.COLOR_GRAY2BGR), image)


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


def _slot(memory: memoryview, number: int) -> memoryview:
    return memory[number * SLOT : (number + 1) * SLOT]


def _total(slot: memoryview) -> np.ndarray:
    return np.frombuffer(slot[-_TOTAL:], np.float32).reshape(SIZE, SIZE, 3)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
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
