"""Reads converted data sets: the manifest and the records of LMDBs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import numpy as np

from tiny_imagenet import files
from tiny_imagenet.data import datum
from tiny_imagenet.errors import DatasetError

MANIFEST = "manifest.json"
FORMAT = 1
T = TypeVar("T")

_CONVERT = "tools/convert.py DATASET OUT"


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of a converted data set (its fields: README.md in this folder).

    Raises:
        DatasetError: the manifest is missing, has another format version, or lacks a required field.
    """
    path = Path(folder) / MANIFEST
    try:
        with open(path, encoding="utf-8", opener=files.plain) as file:
            manifest = json.load(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(
            f"{path} is missing: {folder} is not a converted data set; create one with {_CONVERT}"
        ) from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}): run {_CONVERT} again") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DatasetError(f"{path}: expected format {FORMAT}, got {version!r}: run {_CONVERT} again")
    for key in ("classes", "mean", "lmdbs"):
        if not manifest.get(key):
            raise DatasetError(f"{path} has no {key!r}: run {_CONVERT} again")
    return manifest


def count(path: str | os.PathLike[str]) -> int:
    """Return the number of records in the LMDB folder `path`.

    Raises:
        DatasetError: `path` is not an LMDB folder, or is cut short.
    """
    return len(Records(path))


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield key, label (-1: unknown) and image, uint8 (channels, height, width) in BGR, in the order of the keys.

        for key, label, image in lmdb_reader.records("data/val.lmdb"):
            plt.imshow(image.transpose(1, 2, 0)[:, :, ::-1])  # height, width, RGB

    `Records` gives random access.

    Raises:
        DatasetError: `path` is not an LMDB folder, or a record is not a Datum; the message names the record.
    """
    for key, value in raw_records(path):
        image, label = _named(path, key, datum.decode, value)
        yield key, label, image


def raw_records(path: str | os.PathLike[str]) -> Iterator[tuple[str, bytes]]:
    """Yield key and serialized Datum of each record.

    Raises:
        DatasetError: `path` is not an LMDB folder or is damaged.
    """
    file = _open(path)
    with _lmdb_errors(path), file.environment.begin() as transaction, transaction.cursor() as cursor:
        for key, value in cursor:
            yield os.fsdecode(key), value


class Records(Sequence[tuple[str, int, np.ndarray]]):
    """The records of an LMDB folder by number, each as in `records`.

        val = lmdb_reader.Records("data/val.lmdb")
        len(val)  # 10000
        key, label, image = val[-1]
        val[:3]  # a list

    The file stays open as long as the object exists.

    Raises:
        DatasetError: `path` is not an LMDB folder; on access, a record is missing or not a Datum.
        IndexError: the number is out of range.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = path
        self._file = _open(path)
        with _lmdb_errors(path):
            self._count = self._file.environment.stat()["entries"]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        number = index + self._count if index < 0 else index
        if not 0 <= number < self._count:
            raise IndexError(f"record {index} of {self.path}, which has {self._count} records")
        with _lmdb_errors(self.path), self._file.environment.begin() as transaction, transaction.cursor() as cursor:
            prefix = b"%08d_" % number
            if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
                raise DatasetError(f"{self.path} has no record {number:08d}_NAME: convert the data set again")
            key, value = os.fsdecode(cursor.key()), cursor.value()
        image, label = _named(self.path, key, datum.decode, value)
        return key, label, image


def check(path: str | os.PathLike[str], shape: tuple[int, int, int], classes: int) -> int:
    """Read every record of an LMDB and return their number; see `check_all`."""
    return check_all([(path, classes)], shape)[0]


def check_all(lmdbs: Sequence[tuple[str | os.PathLike[str], int]], shape: tuple[int, int, int]) -> list[int]:
    """Read every record of several LMDBs and return their numbers of records.

    This runs in a child process, because LMDB maps files into memory: damaged pages end the process that reads them.

    Args:
        lmdbs: path and number of classes of each LMDB. Labels must be from 0 to classes - 1, or -1 for 0 classes.
        shape: required channels, height and width of each image.

    Raises:
        DatasetError: a path is not an LMDB folder, is damaged or cut short, or has a record with another shape or
            label; the message names the record.
    """
    program = "import sys; from tiny_imagenet.data import lmdb_reader; lmdb_reader._print_checks(sys.argv[1:])"
    program = f"import sys; sys.path[:] = {sys.path!r}; {program}"
    flat = [text for path, classes in lmdbs for text in (os.fspath(path), str(classes))]
    command = [sys.executable, "-c", program, *map(str, shape), *flat]
    # In a new session the child does not receive Ctrl-C; `run` ends it.
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    if results and isinstance(results[-1], str):
        raise DatasetError(results[-1])
    if done.returncode < 0:
        raise _damaged(lmdbs[len(results)][0])
    if done.returncode:
        raise DatasetError(f"cannot check {lmdbs[len(results)][0]}: {' '.join(done.stderr.split()[-30:])}")
    return results


def _print_checks(arguments: Sequence[str]) -> None:
    """Print the results of `check_all`, each as a line of JSON: the number of records or, as a string, an error."""
    shape = tuple(map(int, arguments[:3]))
    try:
        for path, classes in zip(arguments[3::2], arguments[4::2]):
            print(_check(path, shape, range(int(classes)) or range(-1, 0)), flush=True)
    except DatasetError as error:
        print(json.dumps(str(error)))


def _check(path: str, shape: tuple[int, ...], labels: range) -> int:
    found = 0
    for key, value in raw_records(path):
        image, label = _named(path, key, datum.decode, value)
        problem = ""
        if image.shape != shape:
            problem = f"expected channels, height and width {shape}, got {image.shape}"
        elif label not in labels:
            problem = f"expected a label from {labels[0]} to {labels[-1]}, got {label}"
        if problem:
            raise DatasetError(f"{path}, record {printable(key)}: {problem}: convert the data set again")
        found += 1
    return found


def printable(name: str) -> str:
    """Return a key or file name as printable text."""
    return name if name.isprintable() else ascii(name)[1:-1]


@contextlib.contextmanager
def _lmdb_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except lmdb.Error as error:
        raise _damaged(path, f" ({error})") from error


def _damaged(path: str | os.PathLike[str], why: str = "") -> DatasetError:
    return DatasetError(f"the LMDB {path} is damaged or cut short{why}: convert or copy the data set again")


def _named(path: str | os.PathLike[str], key: str, read: Callable[[bytes], T], value: bytes) -> T:
    try:
        return read(value)
    except DatasetError as error:
        raise DatasetError(f"{path}, record {printable(key)}: {error}") from error


class _File:
    """An open LMDB, closed with the last reference."""

    def __init__(self, path: Path):
        # Without a lock file a read-only folder will do, and Caffe may read the same file in this process.
        self.environment = lmdb.open(os.fsencode(path), readonly=True, lock=False)

    def __del__(self) -> None:
        if hasattr(self, "environment"):
            self.environment.close()


# LMDB refuses to open a file twice in a process, so readers share it.
_files: weakref.WeakValueDictionary[tuple[int, int], _File] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _open(path: str | os.PathLike[str]) -> _File:
    try:
        status = os.stat(Path(path) / "data.mdb")
    except OSError as error:
        raise DatasetError(f"{path} is not an LMDB folder (no data.mdb): create it with {_CONVERT}") from error
    key = status.st_dev, status.st_ino
    with _lock, _lmdb_errors(path):
        file = _files.get(key)
        if file is None:
            file = _files[key] = _File(Path(path))
    pages = file.environment.info()["last_pgno"] + 1
    if status.st_size < pages * file.environment.stat()["psize"]:
        raise _damaged(path, f" ({status.st_size} bytes of {pages * file.environment.stat()['psize']})")
    return file
