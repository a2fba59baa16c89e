"""Reads what `convert` writes: the manifest and the records of an LMDB."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import lmdb
import numpy as np

from tiny_imagenet import files
from tiny_imagenet.data import datum, lmdb_pages
from tiny_imagenet.errors import DatasetError

MANIFEST = "manifest.json"
FORMAT = 1
T = TypeVar("T")


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a converted data set (`convert.convert` says what stands in it).

    Raises:
        DatasetError: `folder` has no manifest, one of another format version, or one that lacks what others rely on.
    """
    path = Path(folder) / MANIFEST
    advice = "make the folder with tools/convert.py DATASET OUT"
    try:
        with open(path, encoding="utf-8", opener=files.plain) as file:
            manifest = json.load(file, parse_constant=_no_number)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{path} is missing: {folder} is no converted data set; {advice}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        why = str(error) or "too large"
        raise DatasetError(f"{path} is not JSON ({why}): {advice} again") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DatasetError(f"{path} has format {version!r}, this version reads {FORMAT}: {advice} again")
    for key, (fits, what) in _NEEDED.items():
        if not fits(manifest.get(key)):
            raise DatasetError(f"{path}: {key!r} is missing or not {what}: {advice} again")
    return manifest


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number")


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(entry, dict) and isinstance(entry.get("wnid"), str) and isinstance(entry.get("words"), str)
            for entry in value
        )
    )


# key: (whether its value fits, what it must be)
_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classes": (_are_classes, "a list of at least one object with the strings wnid and words"),
    "mean": (lambda value: isinstance(value, str), "a string"),
    "lmdbs": (lambda value: isinstance(value, dict), "an object"),
}


def count(path: str | os.PathLike[str]) -> int:
    """How many records the LMDB folder `path` has; DatasetError where it is none."""
    file = _open(path)
    with _lmdb_errors(path):
        return file.environment.stat()["entries"]


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield key, label (-1: unknown) and image, uint8 (channels, height, width) in BGR, in the order of the keys.

        for key, label, image in lmdb_reader.records("data/val.lmdb"):
            plt.imshow(image.transpose(1, 2, 0)[:, :, ::-1])  # height, width, RGB

    `Records` gives one by its number.

    Raises:
        DatasetError: `path` is no LMDB folder, or a record is no Datum; the message names the record.
    """
    for name, (image, label) in _each(path, datum.decode):
        yield name, label, image


class Records(Sequence[tuple[str, int, np.ndarray]]):
    """The records of an LMDB folder by number, as `records` yields them.

        val = lmdb_reader.Records("data/val.lmdb")
        len(val)  # 10000
        key, label, image = val[-1]
        val[:3]  # a list of the first three

    The file is open for as long as the object is there; nothing is read before it is asked for.

    Raises:
        DatasetError: `path` is no LMDB folder; later, a record is no Datum or not where its number says.
        IndexError: there is no record of that number.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path
        self._file = _open(path)
        with _lmdb_errors(path):
            self._count = self._file.environment.stat()["entries"]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):  # a number, or a slice
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = index + self._count if index < 0 else index
        if not 0 <= number < self._count:
            raise IndexError(f"record {index} of {self.path}, which has {self._count}")
        with _lmdb_errors(self.path), self._file.environment.begin() as transaction, transaction.cursor() as cursor:
            prefix = b"%08d_" % number
            if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                raise DatasetError(f"{self.path} has no record {number:08d}_NAME: convert the data set again")
            name, value = os.fsdecode(cursor.key()), cursor.value()
        image, label = _named(self.path, name, datum.decode, value)
        return name, label, image


def raw_records(path: str | os.PathLike[str]) -> Iterator[tuple[str, bytes]]:
    """Yield key and value as they stand. Raises DatasetError where `path` is no LMDB folder or is damaged."""
    return _each(path, bytes)


def check(path: str | os.PathLike[str], shape: tuple[int, int, int], classes: int) -> int:
    """Go through all records once and return how many there are.

    Raises:
        DatasetError: `path` is no LMDB folder, or a record is no Datum, its image is not of `shape` (channels, height,
            width) or its label not from 0 to `classes` - 1; the message names the record.
    """
    found = 0
    for name, (own, label) in _each(path, datum.inspect):
        if own != shape:
            raise DatasetError(
                f"{path}, record {name}: the image's channels, height, width are {own}, not {shape}: "
                "convert the data set again"
            )
        if not 0 <= label < classes:
            raise DatasetError(
                f"{path}, record {name}: the label is {label}, allowed are 0 to {classes - 1}: "
                "convert the data set again"
            )
        found += 1
    return found


def _each(path: str | os.PathLike[str], read: Callable[[bytes], T]) -> Iterator[tuple[str, T]]:
    """Yield each record's key and what `read` makes of its value; DatasetError names the record it fails on."""
    file = _open(path)
    with _lmdb_errors(path), file.environment.begin() as transaction, transaction.cursor() as cursor:
        for key, value in cursor:
            name = os.fsdecode(key)
            yield name, _named(path, name, read, value)


@contextlib.contextmanager
def _lmdb_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what LMDB raises about a file that is open into a DatasetError."""
    try:
        yield
    except lmdb.Error as error:
        raise DatasetError(f"the LMDB {path} is damaged: {error}; convert the data set again") from error


def _named(path: str | os.PathLike[str], name: str, read: Callable[[bytes], T], value: bytes) -> T:
    try:
        return read(value)
    except DatasetError as error:
        raise DatasetError(f"{path}, record {printable(name)}: {error}") from error


def printable(name: str) -> str:
    """A key or name in a line of text, whatever bytes it has."""
    return name if name.isprintable() else ascii(name)[1:-1]


class _File:
    """An LMDB that is open for as long as somebody has this object."""

    def __init__(self, environment: lmdb.Environment):
        self.environment = environment

    def __del__(self) -> None:
        self.environment.close()


# LMDB refuses to open a file twice in a process: all who read it share what is open.
_files: weakref.WeakValueDictionary[tuple[int, int], _File] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _open(path: str | os.PathLike[str]) -> _File:
    try:
        status = os.stat(Path(path) / "data.mdb")
    except OSError as error:
        raise DatasetError(
            f"{path} is not an LMDB folder (no data.mdb): tools/convert.py DATASET OUT makes them"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise DatasetError(
            f"{path} is not an LMDB folder (data.mdb is not a plain file): tools/convert.py DATASET OUT makes them"
        )
    key = status.st_dev, status.st_ino
    with _lock:
        file = _files.get(key)
        if file is None:
            file = _files[key] = _File(_open_file(path))
    return file


def _open_file(path: str | os.PathLike[str]) -> lmdb.Environment:
    lmdb_pages.check(Path(path) / "data.mdb")
    try:
        # Without the lock file a read-only folder will do, and a reader of Caffe's in this process is not disturbed.
        return lmdb.open(os.fsencode(path), readonly=True, lock=False)
    except lmdb.Error as error:
        raise DatasetError(f"cannot open the LMDB {path}: {error}; convert the data set again") from error
