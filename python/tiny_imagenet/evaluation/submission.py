"""The challenge's test file: one line per image with its name and the wnid of the most probable class."""

from __future__ import annotations

import os
from pathlib import Path

from tiny_imagenet import destination, files
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError, TinyImageNetError
from tiny_imagenet.evaluation import predictions as predictions_files
from tiny_imagenet.evaluation.predictions import Predictions

SPLIT = "test"


def check(path: str | os.PathLike[str]) -> None:
    """Raise TinyImageNetError if the file cannot be written, or would replace something that is not a test file."""
    destination.check(path)
    try:
        with open(path, "rb") as file:
            start = file.readline(4096).decode(errors="replace")
    except FileNotFoundError:
        return
    if start and (len(start.split()) != 2 or not start.rstrip("\n").isprintable()):
        raise TinyImageNetError(f"{path} exists and is not a submission: name another file or remove it first")


def image_keys(data: str | os.PathLike[str]) -> list[str]:
    """The keys of a converted data folder's test split, in order.

    Raises:
        DatasetError: the test split is missing, or its number of images differs from the manifest's.
    """
    advice = "convert a data set with test/images with tools/convert.py"
    entry = lmdb_reader.read_manifest(data)["lmdbs"].get(SPLIT)
    lmdb = Path(data) / f"{SPLIT}.lmdb"
    if not entry or not lmdb.is_dir():
        raise DatasetError(f"{data} has no test split ({lmdb.name} is missing): {advice}")
    keys = [key for key, _ in lmdb_reader.raw_records(lmdb)]
    if not keys or len(keys) != entry.get("count"):
        raise DatasetError(f"{lmdb} has {len(keys)} records, the manifest has {entry.get('count')}: {advice}")
    return keys


def lines(given: Predictions, data: str | os.PathLike[str]) -> list[str]:
    """The file's lines, "NAME WNID", sorted by name. Among classes of equal probability the first is taken.

    Args:
        given: predictions of every image of the test split, in any order.
        data: the converted data folder.

    Raises:
        DatasetError: as `image_keys`, or a name contains a space or is not unique.
        PredictionsError: the predictions are not valid, or of other classes or images.
    """
    who = given.path or given.name
    predictions_files.check(given, who)
    wnids = [entry["wnid"] for entry in lmdb_reader.read_manifest(data)["classes"]]
    if given.classes != len(wnids) or given.meta.get("wnids", wnids) != wnids:
        raise PredictionsError(f"{who} and {data} have different classes or orders of classes: pass its own --data")
    keys = set(image_keys(data))
    missing, foreign = keys - set(given.keys.tolist()), set(given.keys.tolist()) - keys
    if missing or foreign:
        some = f"{len(missing)} of {len(keys)} test images are missing and {len(foreign)} others are present"
        example = min(missing or foreign)
        raise PredictionsError(f"{who} is not of {data}'s test split: {some}, such as {example!r}: use --split test")
    rows = {}
    for key, best in zip(given.keys.tolist(), given.probabilities.argmax(axis=1).tolist()):
        name = key.split("_", 1)[-1]
        if name in rows or name.split() != [name]:
            raise DatasetError(f"{data}: the image name {name!r} (record {key}) contains a space or is not unique")
        rows[name] = wnids[best]
    return [f"{name} {rows[name]}" for name in sorted(rows)]


def write(path: str | os.PathLike[str], given: Predictions, data: str | os.PathLike[str]) -> int:
    """Write the file atomically and return its number of images.

    Raises:
        DatasetError, PredictionsError: as `lines`.
        TinyImageNetError: the file cannot be written.
    """
    content = lines(given, data)
    files.write_text(path, "".join(f"{line}\n" for line in content))
    return len(content)
