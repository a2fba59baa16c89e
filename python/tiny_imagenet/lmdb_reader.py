"""Reads what `convert` writes: the manifest and the records of an LMDB."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import numpy as np

from tiny_imagenet import datum
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
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{path} is missing: {folder} is no converted data set; {advice}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}): {advice} again") from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if version != FORMAT:
        raise DatasetError(f"{path} has format {version!r}, this version reads {FORMAT}: {advice} again")
    for key, (fits, what) in _NEEDED.items():
        if not fits(manifest.get(key)):
            raise DatasetError(f"{path}: {key!r} is missing or not {what}: {advice} again")
    return manifest


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
    with _open(path) as environment:
        return environment.stat()["entries"]


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield key, label (-1: unknown) and image, uint8 (channels, height, width) in BGR, in the order of the keys.

    Raises:
        DatasetError: `path` is no LMDB folder, or a record is no Datum; the message names the record.
    """
    for name, (image, label) in _each(path, datum.decode):
        yield name, label, image


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
    with _open(path) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            name = os.fsdecode(key)
            try:
                result = read(value)
            except DatasetError as error:
                raise DatasetError(f"{path}, record {name}: {error}") from error
            yield name, result


def _open(path: str | os.PathLike[str]) -> lmdb.Environment:
    if not (Path(path) / "data.mdb").is_file():
        raise DatasetError(f"{path} is not an LMDB folder (no data.mdb): tools/convert.py DATASET OUT makes them")
    try:
        # Without the lock file a read-only folder will do, and a reader of Caffe's in this process is not disturbed.
        environment = lmdb.open(os.fspath(path), readonly=True, lock=False)
    except lmdb.Error as error:
        raise DatasetError(f"cannot open the LMDB {path}: {error}; convert the data set again") from error
    # The file is mapped into memory: touching a page beyond its end would kill the process. These two look only at
    # the first pages, which opening has read.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (Path(path) / "data.mdb").stat().st_size
    if size < needed:
        environment.close()
        raise DatasetError(
            f"the LMDB {path} is cut short: data.mdb has {size} of {needed} bytes; convert or copy the data set again"
        )
    return environment
