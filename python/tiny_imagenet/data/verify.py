"""Checks a converted data set, record by record, against its manifest."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError

_AGAIN = "convert the data set again, or copy it again"
_PART = 1024  # images
_LARGEST = 4096  # pixels a side


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Go through all records of the converted data set in `folder`; return what was checked, in lines to print.

    Of each LMDB: keys are the zero-padded index and a name, each record is a Datum of the manifest's shape that holds
    what "encoded" says (an encoded image decodes), labels are of the classes (-1 in test), and count, sha256 and
    values_sha256 (which manifests of an earlier version lack) are as in the manifest. train_screened is train without
    the dropped names, bytes and order alike. The mean image is that of train, to the rounding of a float.

    Raises:
        DatasetError: something is wrong; the message names the LMDB and the record.
    """
    folder = Path(folder)
    manifest = lmdb_reader.read_manifest(folder)
    path = folder / lmdb_reader.MANIFEST
    try:
        shape = tuple(int(manifest["image"][side]) for side in ("channels", "height", "width"))
        expected = {
            name: (int(entry["count"]), str(entry["sha256"]), entry.get("values_sha256"))
            for name, entry in manifest["lmdbs"].items()
        }
        dropped = Counter(manifest["screening"]["dropped"])
        encoded = bool(manifest["encoded"])
        if not all(1 <= side <= _LARGEST for side in shape):
            raise ValueError(f"an image of {shape}")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise DatasetError(f"{path} lacks a part or has it in another form ({error!r}): {_AGAIN}") from error
    if missing := {"train", "train_screened", "val", "test"} - set(expected):
        raise DatasetError(f"{path} has no entry {min(missing)!r} in lmdbs: {_AGAIN}")
    lines, others = [], []
    for name, (count, sha256, values_sha256) in expected.items():
        labels = range(-1, 0) if name == "test" else range(len(manifest["classes"]))
        total, values = _check_records(folder / f"{name}.lmdb", count, sha256, shape, labels, encoded)
        state = "keys, labels, images and sha256 are right"
        if values_sha256 is None:
            state = "keys, labels and sha256 are right; the pixels were not checked (no values_sha256 in the manifest)"
        elif values != values_sha256:
            others.append(folder / f"{name}.lmdb")
        lines.append(f"{name + '.lmdb':<20}{count:>8,} records: {state}")
        if name == "train":
            _check_mean(folder / manifest["mean"], total, count)
    _check_screened(folder, dropped)
    if others:  # last: what is above names the record, where it can
        raise DatasetError(f"{others[0]}: the images are not those of the manifest (another values_sha256): {_AGAIN}")
    lines.append(f"{'dropped':<20}{sum(dropped.values()):>8,} by screening: train_screened is train without them")
    lines.append(f"{'mean':<20}{'':>8} {manifest['mean']} is the mean of train.lmdb")
    return lines


def _check_records(
    path: Path, count: int, sha256: str, shape: tuple[int, ...], labels: range, encoded: bool
) -> tuple[np.ndarray, str]:
    """Check the LMDB `path`; return the sum of its images, uint64 of `shape`, and what values_sha256 should be."""
    found = lmdb_reader.count(path)
    if found != count:
        raise DatasetError(f"{path} has {found} records, the manifest says {count}: {_AGAIN}")
    digest, values = hashlib.sha256(), hashlib.sha256()
    total = np.zeros(shape, np.uint64)
    part = np.zeros(shape, np.uint32)  # 255 * _PART is far below 2**32
    for index, (key, value) in enumerate(cli.track(lmdb_reader.raw_records(path), count, f"checking {path.name}")):
        try:
            if not key.startswith(f"{index:08d}_") or len(key) < 10:
                raise DatasetError(f"the key should be {index:08d}_ and a name")
            if datum.is_encoded(value) != encoded:
                raise DatasetError(f"the image is {'not ' if encoded else ''}encoded, the manifest says otherwise")
            image, label = datum.decode(value)
            if image.shape != shape:
                raise DatasetError(f"the image's channels, height, width are {image.shape}, not {shape}")
            if label not in labels:
                raise DatasetError(f"the label is {label}, allowed are {labels[0]} to {labels[-1]}")
        except DatasetError as error:
            again = "" if "again" in str(error) else f": {_AGAIN}"
            raise DatasetError(f"{path}, record {lmdb_reader.printable(key)}: {error}{again}") from error
        values.update(hashlib.sha256(value).digest())
        digest.update(os.fsencode(f"{key} {label}\n"))
        part += image
        if index % _PART == _PART - 1:
            total += part
            part[:] = 0
    if digest.hexdigest() != sha256:
        raise DatasetError(f"{path}: the names or labels are not those of the manifest (another sha256): {_AGAIN}")
    return total + part, values.hexdigest()


def _check_mean(path: Path, total: np.ndarray, count: int) -> None:
    mean = datum.read_mean(path)
    expected = (total.astype(np.float64) / count).astype(np.float32)
    if mean.shape != expected.shape:
        raise DatasetError(f"{path} has shape {mean.shape}, the images {expected.shape}: {_AGAIN}")
    wrong = ~(np.abs(mean - expected) <= 2 * np.spacing(expected))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise DatasetError(
            f"{path} is not the mean of train.lmdb: at channel, row, column {where} it is {mean[where]}, not "
            f"{expected[where]}: {_AGAIN}"
        )


def _check_screened(folder: Path, dropped: Counter[str]) -> None:
    path = folder / "train_screened.lmdb"
    screened = lmdb_reader.raw_records(path)
    left = dropped.copy()
    key, value = next(screened, ("", b""))
    for own, content in lmdb_reader.raw_records(folder / "train.lmdb"):
        name = _name(own)
        if _name(key) == name and value == content:
            key, value = next(screened, ("", b""))
        elif left[name]:
            left[name] -= 1
        else:
            state = f"its record {key} is next" if key else "it has no more records"
            raise DatasetError(f"{path} lacks train's record {own}, which screening did not drop ({state}): {_AGAIN}")
    if key:
        raise DatasetError(f"{path}, record {key}: train has no such record, or has it elsewhere: {_AGAIN}")
    if rest := list(left.elements()):
        raise DatasetError(f"{path} has {rest[0]}, which the manifest says was dropped: {_AGAIN}")


def _name(key: str) -> str:
    return key.split("_", 1)[-1]
