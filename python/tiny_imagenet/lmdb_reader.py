"""Reads what `convert` writes: the manifest and the records of an LMDB."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from tiny_imagenet import datum
from tiny_imagenet.errors import DatasetError

MANIFEST = "manifest.json"
FORMAT = 1


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a converted data set (`convert.convert` says what stands in it).

    Raises:
        DatasetError: `folder` has no manifest, or one of another format version.
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
    return manifest


def count(path: str | os.PathLike[str]) -> int:
    """How many records the LMDB folder `path` has; DatasetError where it is none."""
    with _open(path) as environment:
        return environment.stat()["entries"]


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield key, label (-1: unknown) and image, uint8 (channels, height, width) in BGR, in the order of the keys.

    Raises:
        DatasetError: `path` is no LMDB folder, or a record is no Datum; the message names the record.
    """
    with _open(path) as environment, environment.begin() as transaction:
        for key, value in transaction.cursor():
            name = os.fsdecode(key)
            try:
                image, label = datum.decode(value)
            except DatasetError as error:
                raise DatasetError(f"{path}, record {name}: {error}") from error
            yield name, label, image


def _open(path: str | os.PathLike[str]) -> lmdb.Environment:
    if not (Path(path) / "data.mdb").is_file():
        raise DatasetError(f"{path} is not an LMDB folder (no data.mdb): tools/convert.py DATASET OUT makes them")
    try:
        # Without the lock file a read-only folder will do, and a reader of Caffe's in this process is not disturbed.
        return lmdb.open(os.fspath(path), readonly=True, lock=False)
    except lmdb.Error as error:
        raise DatasetError(f"cannot open the LMDB {path}: {error}; convert the data set again") from error
