"""Checks a converted data set, record by record, against its manifest."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.errors import DatasetError

_AGAIN = "convert or copy the data set again"
_PART = 1024  # images summed as uint32


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Check every record of the converted data set in `folder`; return a report in lines.

    Of each LMDB: the keys are zero-padded index and name; the records are Datums with the manifest's shape, encoded or
    not as it specifies, with labels of its classes (-1 in test); count, sha256 and values_sha256 (absent in manifests
    of earlier versions) match. train_screened is train without the dropped names, in the same order with the same
    bytes. The mean image is that of train, up to float rounding.

    Raises:
        DatasetError: a check fails; the message names the LMDB and the record.
    """
    folder = Path(folder)
    manifest = lmdb_reader.read_manifest(folder)
    path = folder / lmdb_reader.MANIFEST
    try:
        shape = tuple(int(manifest["image"][side]) for side in ("channels", "height", "width"))
        wanted = {name: manifest["lmdbs"][name] for name in SPLITS}
        _ = [(entry["count"], entry["sha256"]) for entry in wanted.values()]
        dropped = Counter(manifest["screening"]["dropped"])
        encoded = bool(manifest["encoded"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: a field is missing or invalid ({error!r}): {_AGAIN}") from error
    lines, changed = [], []
    classes = len(manifest["classes"])
    checks = [(folder / f"{name}.lmdb", 0 if name == "test" else classes) for name in SPLITS]
    counts = lmdb_reader.check_all(checks, shape)
    for (name, entry), (lmdb, _), found in zip(wanted.items(), checks, counts):
        if found != entry["count"]:
            raise DatasetError(f"{lmdb}: expected {entry['count']} records, got {found}: {_AGAIN}")
        sha256, values_sha256, total = _digests(lmdb, found, shape, encoded)
        if sha256 != entry["sha256"]:
            raise DatasetError(f"{lmdb}: names or labels differ from the manifest (sha256): {_AGAIN}")
        checked = "keys, labels, images and sha256 match"
        if "values_sha256" not in entry:
            checked = "keys, labels and sha256 match; pixels were not checked (no values_sha256 in the manifest)"
        elif values_sha256 != entry["values_sha256"]:
            changed.append(lmdb)
        lines.append(f"{lmdb.name:<20}{found:>8,} records: {checked}")
        if name == "train":
            _check_mean(folder / manifest["mean"], total, found)
    _check_screened(folder, dropped)
    if changed:  # last, because the checks above name the record
        raise DatasetError(f"{changed[0]}: images differ from the manifest (values_sha256): {_AGAIN}")
    lines.append(f"{'dropped':<20}{sum(dropped.values()):>8,} by screening: train_screened is train without them")
    lines.append(f"{'mean':<20}{'':>8} {manifest['mean']} is the mean of train.lmdb")
    return lines


def _digests(path: Path, count: int, shape: tuple[int, ...], encoded: bool) -> tuple[str, str, np.ndarray]:
    """Check keys and encoding; return sha256, values_sha256 and the sum of the images, uint64 of `shape`."""
    lines, values = hashlib.sha256(), hashlib.sha256()
    total, part = np.zeros(shape, np.uint64), np.zeros(shape, np.uint32)
    for index, (key, value) in enumerate(cli.track(lmdb_reader.raw_records(path), count, f"checking {path.name}")):
        where = f"{path}, record {lmdb_reader.printable(key)}"
        if not key.startswith(f"{index:08d}_") or len(key) < 10:
            raise DatasetError(f"{where}: expected the key {index:08d}_ and a name: {_AGAIN}")
        if datum.parse(value).encoded != encoded:
            raise DatasetError(f"{where}: expected encoded {encoded}, as in the manifest: {_AGAIN}")
        image, label = datum.decode(value)
        values.update(hashlib.sha256(value).digest())
        lines.update(os.fsencode(f"{key} {label}\n"))
        part += image
        if index % _PART == _PART - 1:
            total += part
            part[:] = 0
    return lines.hexdigest(), values.hexdigest(), total + part


def _check_mean(path: Path, total: np.ndarray, count: int) -> None:
    mean = datum.read_mean(path)
    expected = (total.astype(np.float64) / count).astype(np.float32)
    if mean.shape != expected.shape:
        raise DatasetError(f"{path}: expected shape {expected.shape}, got {mean.shape}: {_AGAIN}")
    wrong = ~(np.abs(mean - expected) <= 2 * np.spacing(expected))
    if wrong.any():
        where = tuple(map(int, np.argwhere(wrong)[0]))
        raise DatasetError(
            f"{path} is not the mean of train.lmdb: expected {expected[where]} at channel, row, column {where}, got "
            f"{mean[where]}: {_AGAIN}"
        )


def _check_screened(folder: Path, dropped: Counter[str]) -> None:
    path = folder / "train_screened.lmdb"
    screened = lmdb_reader.raw_records(path)
    remaining = dropped.copy()
    key, value = next(screened, ("", b""))
    for own, content in lmdb_reader.raw_records(folder / "train.lmdb"):
        name = own.partition("_")[2]
        if key.partition("_")[2] == name and value == content:
            key, value = next(screened, ("", b""))
        elif remaining[name]:
            remaining[name] -= 1
        else:
            raise DatasetError(f"{path}: train's record {own} is missing, but was not dropped by screening: {_AGAIN}")
    if key:
        raise DatasetError(f"{path}, record {key}: train has no such record in this place: {_AGAIN}")
    if rest := list(remaining.elements()):
        raise DatasetError(f"{path} contains {rest[0]}, which the manifest lists as dropped: {_AGAIN}")
