"""The data that a run was trained on or predictions are of: its folder, the split and the classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run


def meta(given: Predictions) -> Mapping[str, Any]:
    """The predictions' meta or, where they are an average, its first member's."""
    found: Mapping[str, Any] = given.meta
    while isinstance(found.get("members"), list) and found["members"]:
        first = found["members"][0]
        found = first["meta"] if isinstance(first, dict) and isinstance(first.get("meta"), dict) else {}
    return found


def split(given: Predictions) -> str:
    """The split that the predictions are of, as far as their meta says it; else val."""
    found = pedigree.of(given).split
    return found if found in SPLITS else "val"


def classes(given: Predictions) -> list[tuple[str, str]] | None:
    """The wnid and words of each class; None where nothing says them.

    They are those of `meta`, a missing one "", else those of the data that the run beside the file was trained on.
    """
    about = meta(given)
    wnids, words = (_texts(about.get(key), given.classes) for key in ("wnids", "class_names"))
    if wnids or words:
        return list(zip(wnids or [""] * given.classes, words or [""] * given.classes))
    if not given.path:
        return None
    try:
        entries = lmdb_reader.read_manifest(data_folder(given.path))["classes"]
    except (RunError, DatasetError):  # numbers will do
        return None
    return [(entry["wnid"], entry["words"]) for entry in entries] if len(entries) == given.classes else None


def _texts(value: Any, count: int) -> list[str]:
    fits = isinstance(value, list) and len(value) == count and all(isinstance(text, str) for text in value)
    return value if fits else []


def data_folder(source: str | os.PathLike[str]) -> str:
    """The data folder of the run folder `source`, or of the run beside the predictions file `source`.

    Raises:
        RunError: there is no such run, it does not say, or the data is not there any more.
    """
    run = Run(source if Path(source).is_dir() else Path(source).parent)
    if not run.started:
        raise RunError(f"{source} does not say which data it was made of: name it with --data")
    return trained_on(run)


def trained_on(run: Run) -> str:
    """The data folder that a run was trained on.

    Raises:
        RunError: it is no run, run.json does not say, or the data is not there any more.
    """
    data = run.info.get("data")
    if not isinstance(data, str):
        raise RunError(f"{run.path}/run.json does not say which data it was trained on: name it with --data")
    if not (Path(data) / lmdb_reader.MANIFEST).exists():
        raise RunError(
            f"{run.path} was trained on {data}, which is not there any more: name the data folder with --data"
        )
    return data
