"""The challenge's test file: one line an image, its name and the wnid of its most probable class."""

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
    """Raise TinyImageNetError where the file cannot be written, or would take the place of something else than one."""
    destination.check(path)
    try:
        with open(path, "rb") as file:
            start = file.readline(4096).decode()
    except FileNotFoundError:
        return
    except UnicodeDecodeError:
        start = "\0"
    if start and (len(start.split()) != 2 or not start.rstrip("\n").isprintable()):
        raise TinyImageNetError(f"{path} is there and is something else: name another file, or remove it first")


def image_keys(data: str | os.PathLike[str]) -> list[str]:
    """The keys of a converted data folder's test split, in order.

    Raises:
        DatasetError: there is no test split, it is empty, or it has another number of images than the manifest says.
    """
    advice = "convert a data set that has test/images with tools/convert.py"
    entry = lmdb_reader.read_manifest(data)["lmdbs"].get(SPLIT)
    lmdb = Path(data) / f"{SPLIT}.lmdb"
    if not isinstance(entry, dict) or not lmdb.is_dir():
        raise DatasetError(f"{data} has no test split (no {lmdb.name}): {advice}")
    keys = [key for key, _ in lmdb_reader.raw_records(lmdb)]
    if not keys or len(keys) != entry.get("count"):
        raise DatasetError(f"{lmdb} has {len(keys)} records, the manifest says {entry.get('count')}: {advice}")
    return keys


def lines(given: Predictions, data: str | os.PathLike[str]) -> list[str]:
    """The file's lines, "NAME WNID", sorted by name. Of classes with equal probability the first is taken.

    Args:
        given: of every image of the test split, in any order.
        data: the converted data folder.

    Raises:
        DatasetError: as `image_keys`, or a name cannot stand in the file or is there twice.
        PredictionsError: the predictions are not valid, of other classes, or not of these images.
    """
    who = given.path or given.name
    predictions_files.check(given, who)
    wnids = [entry["wnid"] for entry in lmdb_reader.read_manifest(data)["classes"]]
    if given.classes != len(wnids):
        raise PredictionsError(f"{who} tells {given.classes} classes apart, {data} has {len(wnids)}: name its own data")
    own = given.meta.get("wnids")
    if isinstance(own, list) and own != wnids:
        raise PredictionsError(f"{who} has other classes, or in another order, than {data}: name its own data")
    keys = image_keys(data)
    if sorted(keys) != sorted(given.keys.tolist()):
        missing, foreign = set(keys) - set(given.keys.tolist()), set(given.keys.tolist()) - set(keys)
        what = f"lacks {len(missing)} of its {len(keys)} test images" if missing else "has all of its test images"
        if missing:
            what += f" (such as {min(missing)!r})"
        if foreign:
            what += f" and has {len(foreign)} others (such as {min(foreign)!r})"
        raise PredictionsError(f"{who} does not fit {data}: it {what}: predict with --split test")
    rows = {}
    for key, best in zip(given.keys.tolist(), given.probabilities.argmax(axis=1).tolist()):
        name = key.split("_", 1)[-1]
        if name in rows or not name or name.split() != [name]:
            state = "there twice" if name in rows else "empty or has a space"
            raise DatasetError(f"{data}: the image name {name!r} of record {key} is {state}: no line can be made of it")
        rows[name] = wnids[best]
    return [f"{name} {rows[name]}" for name in sorted(rows)]


def write(path: str | os.PathLike[str], given: Predictions, data: str | os.PathLike[str]) -> int:
    """Write the file, whole or not at all; return how many images it has.

    Raises:
        DatasetError, PredictionsError: as `lines`.
        TinyImageNetError: the file cannot be written.
    """
    content = lines(given, data)
    files.write_text(path, "".join(f"{line}\n" for line in content))
    return len(content)
