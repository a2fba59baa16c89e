"""Converts a data set of images to LMDBs, the mean image and a manifest."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tiny_imagenet import cli, files
from tiny_imagenet.data import datum, lmdb_reader, loading, pool, screening
from tiny_imagenet.data.dataset import Dataset, Record, read_classes, scan, shuffled
from tiny_imagenet.data.images import SIZE
from tiny_imagenet.data.lmdb_reader import FORMAT, MANIFEST
from tiny_imagenet.data.lmdb_writer import LmdbWriter
from tiny_imagenet.data.loading import BATCH, Loaded, Options
from tiny_imagenet.data.splits import FOLDERS, SPLITS
from tiny_imagenet.errors import DatasetError, TinyImageNetError

MEAN = "mean.binaryproto"

_AHEAD = 64  # batches in progress, of 1.6 MB each, with an executor of unknown size


def convert(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    replace: bool = False,
    executor: Executor | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write `out`/{train,train_screened,val,test}.lmdb, mean.binaryproto and manifest.json; return the manifest.

    README.md in this package's folder describes the files, the records and the fields of the manifest. `seed` and an
    image's name alone decide its place among the training images. Screening (section 5.2.1) keeps images without a
    box. The same data set and options give the same bytes with any number of workers, and `out` is replaced as a whole
    or not at all.

    Args:
        root: folder of the data set (for its layout, see `dataset`).
        out: folder to create; it must not exist or be empty.
        workers: number of processes (default: one per core).
        replace: whether a converted data set in `out` is replaced.
        executor: runs the decoding instead of processes of this machine. Its processes must see `root`.
        options: fields of `loading.Options`: seed, encoded, resize, skip_unreadable, crop, min_visible.

    Raises:
        DatasetError: the data set is incomplete or malformed, an image cannot be read, or an option is out of range.
        TinyImageNetError: `out` is not empty, in the data set, being written by another process or not writable.
    """
    wanted = Options(**options)
    workers = workers or os.cpu_count() or 1
    read_classes(root)  # find common mistakes before writing anything
    if executor is not None:
        root = os.path.abspath(root)  # for processes in other folders
    inner, outer = os.path.realpath(out), os.path.realpath(root)
    if os.path.commonpath((inner, outer)) == outer:
        raise TinyImageNetError(f"{out} is in the data set {root}: name a folder elsewhere")
    if not replace and (Path(out) / MANIFEST).is_file():
        raise TinyImageNetError(
            f"{out} contains a converted data set and is not empty: use --replace or name another folder"
        )
    with files.atomic_folder(out, check_replaceable if replace else None) as folder, contextlib.ExitStack() as stack:
        stack.enter_context(_write_errors(out, folder))
        own = executor is None
        if own and workers > 1:
            executor = stack.enter_context(pool.processes(workers))
        data = scan(root, lenient=wanted.skip_unreadable)
        data.splits["train"] = shuffled(data.splits["train"], wanted.seed)
        _check_space(data, folder, out, wanted.encoded)
        batches = [(split, batch) for split in FOLDERS for batch in _batches(data.splits[split])]
        loaded = _load(batches, wanted, executor, 2 * workers if own else _AHEAD)
        manifest = _write(data, folder, wanted, cli.track(loaded, len(batches), "converting (batches)"))
        files.write_json(folder / MANIFEST, manifest)
    return manifest


def check_replaceable(out: Path) -> None:
    """Raise TinyImageNetError unless the folder `out` contains a converted data set and nothing else."""
    only = "--replace replaces only what tools/convert.py wrote; name another folder or remove this one"
    try:
        manifest = lmdb_reader.read_manifest(out)
    except DatasetError as error:
        raise TinyImageNetError(f"{error}; {only}") from error
    known = {MANIFEST, manifest["mean"], *(f"{name}.lmdb" for name in manifest["lmdbs"])}
    known |= {f"{name}.lmdb/{file}" for name in manifest["lmdbs"] for file in ("data.mdb", "lock.mdb")}
    for path in sorted(out.rglob("*")):
        if path.relative_to(out).as_posix() not in known:
            raise TinyImageNetError(f"{path} is not part of a converted data set: {only}")


def _batches(records: list[Record]) -> Iterator[list[Record]]:
    for start in range(0, len(records), BATCH):
        yield records[start : start + BATCH]


def _load(
    batches: Iterable[tuple[str, list[Record]]], options: Options, executor: Executor | None, ahead: int
) -> Iterator[tuple[str, list[Record], Loaded]]:
    """Yield split, records and result of each batch, in order, with at most `ahead` batches in progress."""
    if executor is None:
        yield from ((split, batch, loading.load(batch, options)) for split, batch in batches)
        return
    waiting: deque[tuple[str, list[Record], Any]] = deque()

    def first() -> tuple[str, list[Record], Loaded]:
        split, batch, future = waiting.popleft()
        loaded = future.result()
        # A machine of a cluster may have lost its disk: an error counts if it occurs here too.
        return split, batch, loading.load(batch, options) if loaded.errors else loaded

    try:
        for split, batch in batches:
            waiting.append((split, batch, executor.submit(loading.load, batch, options)))
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()
    except BrokenExecutor as error:
        raise DatasetError(
            "a worker process died (out of memory, or started by a script without "
            'if __name__ == "__main__"): use fewer workers, or 1 to start no process'
        ) from error
    finally:
        for _, _, future in waiting:
            future.cancel()


def _write(
    data: Dataset, folder: Path, options: Options, batches: Iterable[tuple[str, list[Record], Loaded]]
) -> dict[str, Any]:
    """Write the LMDBs and the mean; return the manifest."""
    names: dict[str, list[str]] = {key: [] for key in ("dropped", "small", "without_box")}
    paths: dict[str, list[str]] = {key: [] for key in ("resized", "reencoded", "unreadable")}
    mended = [loading.Mended(name, line, "a second line", None, "the first counts") for name, line in data.repeated]
    total = np.zeros((SIZE, SIZE, 3), np.uint64)
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(contextlib.closing(LmdbWriter(folder / f"{name}.lmdb"))) for name in SPLITS
        }
        for split, batch, loaded in batches:
            if loaded.errors and not options.skip_unreadable:
                raise DatasetError(f"{loaded.errors[0][1]}; --skip-unreadable leaves such images out")
            records = [
                (os.fsencode(r.name), r.label, *value) if value else None for r, value in zip(batch, loaded.values)
            ]
            writers[split].add(filter(None, records))
            mended += loaded.mended
            for key in ("resized", "reencoded"):
                paths[key] += [batch[position].path for position in getattr(loaded, key)]
            paths["unreadable"] += [batch[position].path for position, _ in loaded.errors]
            if split == "train":
                total += loaded.total.astype(np.uint64)
                for key, found in names.items():
                    found += [batch[position].name for position in getattr(loaded, key)]
                dropped = {*loaded.dropped}
                writers["train_screened"].add(r for position, r in enumerate(records) if r and position not in dropped)
        for writer in writers.values():
            writer.finish()
    for split in FOLDERS:
        if not writers[split].count:
            raise DatasetError(f"no image of {data.root / split} can be read: unpack the archive again")
    mean = (total.astype(np.float64) / writers["train"].count).astype(np.float32)
    datum.write_mean(folder / MEAN, mean.transpose(2, 0, 1))
    return {
        "format": FORMAT,
        "source": str(data.root.resolve()),
        "seed": options.seed,
        "encoded": options.encoded,
        "image": {"channels": 3, "height": SIZE, "width": SIZE},
        "classes": [{"index": number, **entry._asdict()} for number, entry in enumerate(data.classes)],
        "lmdbs": {
            name: {"count": writer.count, "sha256": writer.sha256, "values_sha256": writer.values_sha256}
            for name, writer in writers.items()
        },
        "mean": MEAN,
        "screening": {
            "crop": options.crop,
            "min_visible": str(screening.share(options.min_visible)),
            "dropped": sorted(names["dropped"], key=os.fsencode),
            "without_box": len(names["without_box"]),
            "small": sorted(names["small"], key=os.fsencode),
        },
        "small_objects": len(names["small"]),
        "mended_boxes": sorted((box._asdict() for box in mended), key=lambda box: box["line"]),
        "empty_classes": data.empty,
        **{key: sorted(Path(path).relative_to(data.root).as_posix() for path in paths[key]) for key in paths},
        "unlabelled": data.unlabelled,
        "missing": sorted(data.missing),
    }


def _check_space(data: Dataset, folder: Path, out: str | os.PathLike[str], encoded: bool) -> None:
    """Raise TinyImageNetError if the disk lacks the space that the output takes, approximately."""
    size = 3 * SIZE * SIZE
    if encoded:
        some = [os.stat(r.path).st_size for r in data.splits["train"][:100] if os.path.exists(r.path)] or [0]
        size = sum(some) // len(some)
    if size > 2000:  # larger values take whole pages
        size = -(-(size + 50) // 4096) * 4096
    needed = (size + 100) * (sum(map(len, data.splits.values())) + len(data.splits["train"]))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TinyImageNetError(
            f"cannot write {out}: about {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free: free some "
            "space or name a folder on another disk"
        )


@contextlib.contextmanager
def _write_errors(out: str | os.PathLike[str], folder: Path) -> Iterator[None]:
    """Turn errors of the system and of LMDB into a TinyImageNetError."""
    try:
        yield
    except MemoryError as error:
        raise TinyImageNetError(f"cannot write {out}: out of memory: use fewer workers") from error
    except (lmdb.Error, OSError) as error:
        why, code = str(getattr(error, "strerror", None) or error), getattr(error, "errno", None)
        advice = "free some space or name a folder on another disk"
        if code in (errno.EMFILE, errno.EAGAIN, errno.ENOMEM):
            advice = "use fewer workers"
        elif shutil.disk_usage(folder).free < 1 << 20:
            why = f"the disk is full ({why})"
        raise TinyImageNetError(f"cannot write {out}: {why}: {advice}") from error
