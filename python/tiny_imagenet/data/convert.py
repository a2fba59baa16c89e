"""Converts a data set of images to what the nets read: LMDBs, the mean image and a manifest."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tiny_imagenet import cli, files
from tiny_imagenet.data import annotations, datum, lmdb_reader, loading, pool, screening
from tiny_imagenet.data.catalogue import Catalogue, Entry
from tiny_imagenet.data.dataset import SIZE
from tiny_imagenet.data.lmdb_reader import FORMAT, MANIFEST
from tiny_imagenet.data.lmdb_writer import LmdbWriter
from tiny_imagenet.data.loading import Rule
from tiny_imagenet.errors import DatasetError, TinyImageNetError

MEAN = "mean.binaryproto"
LMDBS = ("train", "train_screened", "val", "test")

_INDEX = "index.sqlite"
_LIMITS = {  # what a limit of the system is mended with
    errno.EMFILE: "raise the limit on open files (ulimit -n) or use fewer workers",
    errno.ENFILE: "close other programs or use fewer workers",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f) or use fewer workers",
    errno.ENOMEM: "use fewer workers; 1 needs the least memory",
    errno.EAGAIN: "raise the limit on processes (ulimit -u) or use fewer workers",
}


def convert(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    workers: int | None = None,
    seed: int = 0,
    encoded: bool = False,
    skip_unreadable: bool = False,
    resize: bool = False,
    crop: int = screening.CROP,
    min_visible: Fraction | float = screening.MIN_VISIBLE,
    replace: bool = False,
    pool_of: Callable[[Rule], Any] | None = None,
) -> dict[str, Any]:
    """Write `out`/{train,train_screened,val,test}.lmdb, mean.binaryproto and manifest.json; return the manifest.

    A record's key is its index in eight digits, "_" and the image's name; its value is a Datum of 3x64x64 uint8 in
    BGR, or with `encoded` the image file's bytes. The label is the class's index in wnids.txt, -1 in test. Training
    images are shuffled once: `seed` and an image's name alone decide where it goes among others. train_screened keeps
    that order without the images that screening drops (section 5.2.1; an image without a box stays). Validation and
    test images are sorted by name. The mean is that of train.lmdb, from exact sums. The same data set and arguments
    give the same bytes with any number of `workers`, and `out` appears whole or not at all. Memory does not grow with
    the number of images, but for the names that the manifest lists.

    Args:
        root: the data set (`annotations` says what its layout is).
        out: the folder to make; it must not exist or be empty.
        workers: processes; None: one a core. There are never more than batches of 128 images, or than 256.
        seed: of the shuffle.
        encoded: keep the files' bytes. A file that Caffe would not decode to the same 8-bit image in three channels
            or in one (16 bits a channel, transparency, turned by its Exif data, resized) is kept as a PNG.
        skip_unreadable: leave out and list images that cannot be read, validation images without a class and
            annotations without an image, if they are not most lines of a file.
        resize: make images of another size 64x64 and list them, instead of refusing them.
        crop: of screening: the side of a crop, 1 to 64 pixels.
        min_visible: the share of an object that each crop must show, 0 to 1.
        replace: an earlier output in `out` is swapped for the new one, as a whole.
        pool_of: makes what decodes by a rule in place of `workers` processes; it has the methods of `pool.Pool`, as
            `cluster.pool.ClusterPool` has.

    The manifest has: format, source, seed, encoded, image (channels, height, width), classes (index, wnid, words),
    lmdbs (of each: count, sha256 over the lines "key label" in order, values_sha256 over the sha256 of each value in
    order, as bytes), mean (its file), screening (crop,
    min_visible, the names in dropped and in small: training boxes under 8x8 pixels in area; how many images are
    without_box), small_objects (how many are small), mended_boxes (boxes that are not as in their lines: `Mended`),
    empty_classes (wnids without training images), and as paths within the data set resized, reencoded, unreadable,
    unlabelled, and missing (images that an annotation names and that are not there).

    Raises:
        DatasetError: the data set is incomplete, or an image cannot be read and `skip_unreadable` is false.
        TinyImageNetError: `out` is in the way, within the data set, is being written by another process, or cannot be
            written.
        ClusterError: a cluster that is asked for is not there or not fit.
    """
    if workers is not None and workers < 1:
        raise DatasetError(f"workers is {workers}: at least 1 is needed")
    if not 1 <= crop <= SIZE:
        raise DatasetError(f"crop is {crop}: 1 to {SIZE} pixels are allowed")
    if not 0 <= min_visible <= 1:
        raise DatasetError(f"min_visible is {min_visible}: a share from 0 to 1 is needed")
    if pool_of is None:
        pool.check(workers or os.cpu_count() or 1)
    rule = Rule(encoded, resize, crop, screening.share(min_visible))
    annotations.read_classes(root)  # most mistakes show here, before anything is written
    inner, outer = os.path.realpath(out), os.path.realpath(root)
    if os.path.commonpath((inner, outer)) == outer:
        raise TinyImageNetError(f"{out} is within the data set {root}: name a folder elsewhere")
    if not replace and (Path(out) / MANIFEST).is_file():
        advice = "--replace swaps it for the new one, or name another folder"
        raise TinyImageNetError(f"{out} is not empty: it has a converted data set; {advice}")
    room = 0
    with files.atomic_folder(out, may_replace if replace else None) as folder:
        try:
            with contextlib.ExitStack() as stack:
                # The processes first: they begin while this one reads the annotations.
                if pool_of is None:
                    processes = pool.Pool(workers or os.cpu_count() or 1, rule, folder)
                else:
                    processes = pool_of(rule)
                stack.callback(processes.close)
                index = stack.enter_context(Catalogue(root, str(folder / _INDEX), seed, lenient=skip_unreadable))
                batches = sum(_batch_counts(index).values())
                room = _room(index, encoded) + processes.size(batches)
                free = shutil.disk_usage(folder).free
                if free < room:
                    raise TinyImageNetError(
                        f"cannot write {out}: about {_bytes(room)} are needed there and {_bytes(free)} are free: make "
                        "room or name a folder on another disk"
                    )
                processes.begin(batches)
                manifest = _write(index, folder, processes, seed, rule, skip_unreadable)
            (folder / _INDEX).unlink()
            files.write_json(folder / MANIFEST, manifest)
        except (lmdb.Error, sqlite3.Error, OSError) as error:
            raise TinyImageNetError(f"cannot write {out}: {_why(error, folder, room)}") from error
        except MemoryError as error:
            raise TinyImageNetError(f"cannot write {out}: the memory is full: {_LIMITS[errno.ENOMEM]}") from error
    return manifest


def may_replace(out: Path) -> None:
    """Raise TinyImageNetError unless the folder `out` is a converted data set and nothing besides."""
    only = "--replace replaces what tools/convert.py made and nothing else; name another folder or remove it first"
    try:
        manifest = lmdb_reader.read_manifest(out)
    except DatasetError as error:
        raise TinyImageNetError(f"{out} stays as it is, {only} ({error})") from error
    ours = {MANIFEST, manifest["mean"], *(f"{name}.lmdb" for name in manifest["lmdbs"])}
    inside = {"data.mdb", "lock.mdb"}
    for entry in out.iterdir():
        more = [] if entry.name not in ours else [path for path in entry.glob("*") if path.name not in inside]
        if entry.name not in ours or more:
            raise TinyImageNetError(f"{more[0] if more else entry} is not of a converted data set: {only}")


class _Names:
    """What the manifest lists of the images, in the order in which they come."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.small: list[str] = []
        self.without_box = 0
        self.mended: list[dict[str, Any]] = []
        self.resized: list[str] = []
        self.reencoded: list[str] = []
        self.unreadable: list[str] = []

    def add(self, split: str, batch: list[Entry], loaded: loading.Loaded) -> None:
        self.mended += [entry._asdict() for entry in loaded.mended]
        self.resized += [batch[position].path for position in loaded.resized]
        self.reencoded += [batch[position].path for position in loaded.reencoded]
        self.unreadable += [batch[position].path for position, _ in loaded.errors]
        if split == "train":
            self.dropped += [batch[position].name for position in loaded.dropped]
            self.small += [batch[position].name for position in loaded.small]
            self.without_box += len(loaded.without_box)


def _write(
    index: Catalogue, folder: Path, processes: pool.Pool, seed: int, rule: Rule, skip_unreadable: bool
) -> dict[str, Any]:
    batches = _batch_counts(index)
    count = sum(batches.values())
    entries = (batch for split in annotations.SPLITS for batch in _batches(index.entries(split)))
    names = _Names()
    total = np.zeros((SIZE, SIZE, 3), np.uint64)
    with contextlib.ExitStack() as stack:
        writers = {name: stack.enter_context(contextlib.closing(LmdbWriter(folder / f"{name}.lmdb"))) for name in LMDBS}
        tracked = cli.track(processes.load(entries), count, "converting (batches)")
        for split in annotations.SPLITS:
            for batch, result, memory in itertools.islice(tracked, batches[split]):
                if result.errors and not skip_unreadable:
                    raise DatasetError(f"{result.errors[0][1]} (or leave such images out with --skip-unreadable)")
                names.add(split, batch, result)
                records = _records(batch, result, memory)
                _put(writers[split], records, result)
                if split == "train":
                    total += result.total.astype(np.uint64)
                    for position in result.dropped:
                        records[position] = None
                    _put(writers["train_screened"], records, result)
        for writer in writers.values():
            writer.finish()
    for split in annotations.SPLITS:
        if not writers[split].count:
            raise DatasetError(f"no image of {index.root / split} can be read: unpack the archive again")
    mean = (total.astype(np.float64) / writers["train"].count).astype(np.float32)
    datum.write_mean(folder / MEAN, mean.transpose(2, 0, 1))

    def within(paths: list[str]) -> list[str]:
        return sorted(Path(path).relative_to(index.root).as_posix() for path in paths)

    repeated = [
        loading.Mended(name, line, "a second line", None, "the first counts")._asdict() for name, line in index.repeated
    ]
    return {
        "format": FORMAT,
        "source": str(index.root.resolve()),
        "seed": seed,
        "encoded": rule.encoded,
        "image": {"channels": 3, "height": SIZE, "width": SIZE},
        "classes": [{"index": number, **entry._asdict()} for number, entry in enumerate(index.classes)],
        "lmdbs": {name: _summary(writer) for name, writer in writers.items()},
        "mean": MEAN,
        "screening": {
            "crop": rule.crop,
            "min_visible": str(rule.min_visible),
            "dropped": sorted(names.dropped, key=os.fsencode),
            "without_box": names.without_box,
            "small": sorted(names.small, key=os.fsencode),
        },
        "small_objects": len(names.small),
        "mended_boxes": sorted(names.mended + repeated, key=lambda entry: entry["line"]),
        "empty_classes": index.empty,
        "resized": within(names.resized),
        "reencoded": within(names.reencoded),
        "unreadable": within(names.unreadable),
        "unlabelled": index.unlabelled,
        "missing": sorted(index.missing),
    }


def _summary(writer: LmdbWriter) -> dict[str, Any]:
    return {"count": writer.count, "sha256": writer.sha256, "values_sha256": writer.values_sha256}


def _batch_counts(index: Catalogue) -> dict[str, int]:
    return {split: -(-index.counts[split] // loading.BATCH) for split in annotations.SPLITS}


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while batch := list(itertools.islice(entries, loading.BATCH)):
        yield batch


def _records(
    batch: list[Entry], loaded: loading.Loaded, memory: memoryview
) -> list[tuple[bytes, int, memoryview] | None]:
    """Name, label and Datum of each entry of a batch, whose Datums are in `memory`; None where it is unreadable."""
    records: list[tuple[bytes, int, memoryview] | None] = []
    at = 0
    for entry, size in zip(batch, loaded.sizes):
        if size < 0:
            records.append(None)
            continue
        records.append((os.fsencode(entry.name), entry.label, memory[at : at + size]))
        at += size
    return records


def _put(writer: LmdbWriter, records: list[tuple[bytes, int, memoryview] | None], loaded: loading.Loaded) -> None:
    """Write the records that are there."""
    digests = (digest for record, digest in zip(records, loaded.digests) if record)
    writer.add(filter(None, records), digests)


def _room(index: Catalogue, encoded: bool) -> int:
    """About how many bytes the output takes: all images once, those for training twice."""
    size = 3 * SIZE * SIZE
    if encoded:
        some = list(itertools.islice(index.entries("train"), 100))
        sizes = [os.stat(entry.path).st_size for entry in some if os.path.exists(entry.path)] or [0]
        size = sum(sizes) // len(sizes)
    if size > 2000:  # LMDB gives what is larger whole pages
        size = -(-(size + 50) // 4096) * 4096
    return (sum(index.counts.values()) + index.counts["train"]) * (size + 100)


def _why(error: Exception, folder: Path, room: int) -> str:
    """What an error of writing says, and what to do; LMDB and SQLite do not tell a limit from a broken disk."""
    why, code = str(getattr(error, "strerror", None) or error), getattr(error, "errno", None)
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if code is None and 0 <= most < room:
        code = errno.EFBIG
    if code in _LIMITS:
        return f"{why}: {_LIMITS[code]}"
    if shutil.disk_usage(folder).free < 1 << 20:
        why = f"the disk is full ({why})"
    if room:
        why += f"; about {_bytes(room)} are needed there"
    return f"{why}: make room or name a folder on another disk"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
