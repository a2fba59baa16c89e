"""Converts a data set of images to what the nets read: LMDBs, the mean image and a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import numpy as np

from tiny_imagenet import cli, dataset, datum, files, screening
from tiny_imagenet.dataset import SIZE, Dataset, Record
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.lmdb_reader import FORMAT, MANIFEST

CROP = 56
MEAN = "mean.binaryproto"
LMDBS = ("train", "train_screened", "val", "test")

_BATCH = 128
_COMMIT = 2048
_SHAPE = (3, SIZE, SIZE)


class _Batch(NamedTuple):
    split: str
    records: list[Record]


class _Loaded(NamedTuple):
    values: list[bytes | None]
    errors: list[str]
    total: np.ndarray


def convert(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None = None,
    seed: int = 0,
    encoded: bool = False,
    skip_unreadable: bool = False,
) -> dict[str, Any]:
    """Write `out`/{train,train_screened,val,test}.lmdb, mean.binaryproto and manifest.json; return the manifest.

    A record's key is its index in eight digits, "_" and the image's name; its value is a Datum of 3x64x64 uint8 in
    BGR, or with `encoded` the image file's bytes. The label is the class's index in wnids.txt, -1 in test. Training
    images are shuffled once with `seed`; train_screened keeps that order without the images that screening drops
    (section 5.2.1; an image without a box stays). Validation and test images are sorted by name. The mean is that of
    train.lmdb, from exact sums. The same data set and seed give the same bytes with any number of `workers`
    (processes; None: one a core), and `out` appears whole or not at all.

    The manifest has: format, source, seed, encoded, image (channels, height, width), classes (index, wnid, words),
    lmdbs (of each: count, and sha256 over the lines "key label" in order), mean (its file), screening (crop,
    min_visible, the names in dropped, how many images are without_box), small_objects (training boxes under 8x8
    pixels in area) and unreadable (paths within the data set).

    Raises:
        DatasetError: the data set is incomplete, or an image cannot be read and `skip_unreadable` is false.
        TinyImageNetError: `out` is not empty or cannot be written.
    """
    if workers is not None and workers < 1:
        raise DatasetError(f"workers is {workers}: at least 1 is needed")
    data = dataset.read(root)
    with files.atomic_folder(out) as folder:
        try:
            manifest = _write(data, folder, workers or os.cpu_count() or 1, seed, encoded, skip_unreadable)
        except lmdb.Error as error:
            raise DatasetError(f"cannot write the LMDBs of {out}: {error}") from error
        files.write_json(folder / MANIFEST, manifest)
    return manifest


def _write(
    data: Dataset, folder: Path, workers: int, seed: int, encoded: bool, skip_unreadable: bool
) -> dict[str, Any]:
    train = data.splits["train"]
    boxed = [record for record in train if record.box]
    boxes = np.array([record.box for record in boxed], np.int64).reshape(-1, 4)
    stays = screening.keep(boxes, image=SIZE, crop=CROP)
    dropped = {record.path for record, stay in zip(boxed, stays) if not stay}
    small = {record.path for record, is_small in zip(boxed, screening.is_small(boxes)) if is_small}

    order = dict(data.splits, train=random.Random(seed).sample(train, len(train)))
    batches = [
        _Batch(split, order[split][start : start + _BATCH])
        for split in dataset.SPLITS
        for start in range(0, len(order[split]), _BATCH)
    ]
    unreadable: list[str] = []
    total = np.zeros(_SHAPE, np.uint64)
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(contextlib.closing(_Writer(folder / f"{name}.lmdb"))) for name in LMDBS}
        loaded = stack.enter_context(contextlib.closing(_load_all(batches, workers, encoded)))
        for batch, result in cli.track(loaded, len(batches), "converting (batches)"):
            if result.errors and not skip_unreadable:
                raise DatasetError(f"{result.errors[0]} (or leave such images out with --skip-unreadable)")
            for record, value in zip(batch.records, result.values):
                if value is None:
                    unreadable.append(record.path)
                    continue
                writers[batch.split].add(record, value)
                if batch.split == "train" and record.path not in dropped:
                    writers["train_screened"].add(record, value)
            if batch.split == "train":
                total += result.total
        for writer in writers.values():
            writer.finish()
    for split in dataset.SPLITS:
        if not writers[split].count:
            raise DatasetError(f"no image of {data.root / split} can be read: unpack the archive again")
    datum.write_mean(folder / MEAN, (total.astype(np.float64) / writers["train"].count).astype(np.float32))

    lost = set(unreadable)
    return {
        "format": FORMAT,
        "source": str(data.root.resolve()),
        "seed": seed,
        "encoded": encoded,
        "image": {"channels": 3, "height": SIZE, "width": SIZE},
        "classes": [{"index": index, **entry._asdict()} for index, entry in enumerate(data.classes)],
        "lmdbs": {name: {"count": writer.count, "sha256": writer.sha256} for name, writer in writers.items()},
        "mean": MEAN,
        "screening": {
            "crop": CROP,
            "min_visible": str(screening.MIN_VISIBLE),
            "dropped": [record.name for record in train if record.path in dropped - lost],
            "without_box": sum(not record.box and record.path not in lost for record in train),
        },
        "small_objects": len(small - lost),
        "unreadable": sorted(Path(path).relative_to(data.root).as_posix() for path in unreadable),
    }


class _Writer:
    """An LMDB in the making. Records are committed in fixed groups, so that equal records give equal files."""

    def __init__(self, path: Path):
        path.mkdir()
        # One writer in a private folder needs no lock file, and one that travels with the data could only be stale.
        self._environment = lmdb.open(str(path), map_size=64 << 20, lock=False, sync=False, metasync=False)
        self._pending: list[tuple[bytes, bytes]] = []
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, record: Record, value: bytes) -> None:
        key = os.fsencode(f"{self.count:08d}_{record.name}")
        self._hash.update(b"%s %d\n" % (key, record.label))
        self._pending.append((key, value))
        self.count += 1
        if len(self._pending) == _COMMIT:
            self._commit()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def finish(self) -> None:
        self._commit()
        self._environment.sync(True)

    def close(self) -> None:
        self._environment.close()

    def _commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value, append=True)
                self._pending.clear()
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])


def _load_all(batches: list[_Batch], workers: int, encoded: bool) -> Iterator[tuple[_Batch, _Loaded]]:
    """Yield each batch with what `_load` makes of it, in order; few batches are under way at a time."""
    workers = min(workers, len(batches))
    if workers == 1:
        for batch in batches:
            yield batch, _load(batch.records, encoded)
        return
    # Fresh processes, not forks: a fork of a process with threads (OpenBLAS has some) can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    waiting: deque[tuple[_Batch, Future[_Loaded]]] = deque()
    try:
        for batch in batches:
            with _no_interrupt():
                waiting.append((batch, pool.submit(_load, batch.records, encoded)))
            if len(waiting) > 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise DatasetError(
            "a worker process ended early (out of memory, or started by a script without "
            'an `if __name__ == "__main__":` line): try fewer workers, or 1, which needs no other process'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _load(records: list[Record], encoded: bool) -> _Loaded:
    """The Datums of `records` (None where unreadable), the errors and the sum of the images, uint64 (3, 64, 64)."""
    values: list[bytes | None] = []
    errors = []
    images = []
    for record in records:
        try:
            content = dataset.read_bytes(record.path)
            image = dataset.decode_image(content, record.path).transpose(2, 0, 1)
        except DatasetError as error:
            values.append(None)
            errors.append(str(error))
            continue
        images.append(image)
        values.append(
            datum.encode_file(content, _SHAPE, record.label) if encoded else datum.encode(image, record.label)
        )
    total = np.sum(images, axis=0, dtype=np.uint64) if images else np.zeros(_SHAPE, np.uint64)
    return _Loaded(values, errors, total)


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Put off Ctrl-C. Processes started meanwhile never see it: the parent does, and ends them."""
    seen = []
    in_main = threading.current_thread() is threading.main_thread()
    # Blocking is what a child inherits; the handler is for this process, whose other threads may take the signal.
    handler = signal.signal(signal.SIGINT, lambda *_: seen.append(True)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if seen:
        raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
