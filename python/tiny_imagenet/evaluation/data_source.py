"""The data behind runs and predictions: its folder, split and classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run


def meta(given: Predictions) -> Mapping[str, Any]:
    """The `meta` of predictions; of an ensemble, that of its first member."""
    found: Mapping[str, Any] = given.meta
    while found.get("members"):
        found = found["members"][0].get("meta") or {}
    return found


def split(given: Predictions) -> str:
    """The split that was predicted; "val" if unknown."""
    found = meta(given).get("split")
    return found if found in SPLITS else "val"


def classes(given: Predictions) -> list[tuple[str, str]] | None:
    """The wnid and words of each class, from `meta` or the data of the run that contains the file; None if unknown."""
    about = meta(given)
    named = [about.get(key) or () for key in ("wnids", "class_names")]
    wnids, words = (names if len(names) == given.classes else None for names in named)
    if wnids or words:
        return list(zip(wnids or [""] * given.classes, words or [""] * given.classes))
    if not given.path:
        return None
    try:
        entries = lmdb_reader.read_manifest(data_folder(given.path))["classes"]
    except (RunError, DatasetError):
        return None
    return [(entry["wnid"], entry["words"]) for entry in entries] if len(entries) == given.classes else None


def class_names(given: Predictions) -> list[str] | None:
    """The words of each class, or its wnid; None if unknown."""
    known = classes(given)
    return known and [words or wnid for wnid, words in known]


def data_folder(source: str | os.PathLike[str]) -> str:
    """The data folder of the run folder `source`, or of the run that contains the predictions file `source`.

    Raises:
        RunError: the run is missing, or its data is unknown or missing.
    """
    run = Run(source if Path(source).is_dir() else Path(source).parent)
    if not run.started:
        raise RunError(f"{source}: the data it was made from is unknown: pass --data DIR")
    return trained_on(run)


def trained_on(run: Run) -> str:
    """The data folder that a run was trained on.

    Raises:
        RunError: it is not a run folder, or its data is unknown or missing.
    """
    data = run.info.get("data")
    if not data:
        raise RunError(f"{run.path}/run.json does not contain the data folder: pass --data DIR")
    if not (Path(data) / lmdb_reader.MANIFEST).exists():
        raise RunError(f"{run.path} was trained on {data}, which is missing: pass --data DIR")
    return data
