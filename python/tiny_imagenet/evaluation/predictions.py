"""Predictions of a net or an ensemble for a set of images, in memory and as an .npz file without pickles."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.files import atomic_file

ARRAYS = ("keys", "labels", "probabilities", "meta")
SUM_TOLERANCE = 1e-3
_ADVICE = "write it with tools/evaluate.py RUN"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The softmax outputs of `n` images; predictions of different nets are matched by key.

    Attributes:
        keys: (n,) str, the LMDB keys of the images, without duplicates.
        labels: (n,) int64, the true classes; -1 if unknown.
        probabilities: (n, classes) float32, rows sum to 1.
        meta: how they were made; any JSON object.
        path: the file they were loaded from, or ""; not stored.
    """

    keys: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)
    path: str = ""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.probabilities.shape[1])

    @property
    def name(self) -> str:
        """A name for tables: the name or model in `meta`, or the name of the file or its folder."""
        path = Path(self.path)
        stem = path.parent.name if path.stem == "predictions" else path.stem
        return self.meta.get("name") or self.meta.get("model") or stem or "predictions"

    @property
    def records(self) -> str:
        """The sha256 of the keys and labels, as in the manifest of the data set."""
        order = np.argsort(self.keys)
        lines = (f"{key} {label}\n" for key, label in zip(self.keys[order].tolist(), self.labels[order].tolist()))
        return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def check(predictions: Predictions, name: str) -> None:
    """Raise PredictionsError, naming `name`, if the arrays are not as `Predictions` describes them."""
    problem = _problem(predictions)
    if problem:
        raise PredictionsError(f"{name}: {problem}")


def save(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write `predictions` to `path` atomically; the same predictions give the same bytes.

    Raises:
        PredictionsError: `path` does not end in .npz, or the predictions are not valid.
        TinyImageNetError: the file cannot be written.
    """
    if Path(path).suffix != ".npz":
        raise PredictionsError(f"{path}: expected a file name ending in .npz")
    check(predictions, str(path))
    arrays = {name: getattr(predictions, name) for name in ARRAYS[:3]}
    meta = np.array(json.dumps(predictions.meta, sort_keys=True))
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays, meta=meta)


def load(path: str | os.PathLike[str]) -> Predictions:
    """Read and check a predictions file.

    Raises:
        PredictionsError: the file is missing, is not a predictions file, or its contents are not valid.
    """
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            arrays = {name: archive[name] for name in ARRAYS}
        meta = json.loads(str(arrays["meta"][()]))
        if not isinstance(meta, dict):
            raise ValueError("meta is not a JSON object")
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file: {_ADVICE}") from error
    except (OSError, ValueError, LookupError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise PredictionsError(f"{path}: not a predictions file ({error}): {_ADVICE}") from error
    predictions = Predictions(arrays["keys"], arrays["labels"], arrays["probabilities"], meta, str(path))
    check(predictions, str(path))
    return predictions


def _problem(predictions: Predictions) -> str:
    keys, labels, probabilities = predictions.keys, predictions.labels, predictions.probabilities
    if keys.ndim != 1 or keys.dtype.kind != "U" or not len(keys):
        return f"keys: expected at least one str in one dimension, got {keys.dtype} of shape {keys.shape}"
    if labels.shape != keys.shape or labels.dtype != np.int64:
        return f"labels: expected int64 of shape {keys.shape}, got {labels.dtype} of shape {labels.shape}"
    shape = probabilities.shape
    if probabilities.dtype != np.float32 or len(shape) != 2 or len(keys) != shape[0] or not shape[1]:
        expected = f"float32 of shape ({len(keys)}, classes)"
        return f"probabilities: expected {expected}, got {probabilities.dtype} of shape {shape}"
    unique, counts = np.unique(keys, return_counts=True)
    if len(unique) < len(keys):
        return f"duplicate key {str(unique[counts > 1][0])!r}"
    sums = probabilities.sum(axis=1, dtype=np.float64)
    for wrong, problem in (
        (~np.isfinite(probabilities).all(axis=1), "probabilities are not finite"),
        ((probabilities < 0).any(axis=1), "a probability is negative"),
        (~(np.abs(sums - 1) <= SUM_TOLERANCE), "probabilities do not sum to 1"),
        ((labels < -1) | (labels >= shape[1]), f"the label is not from -1 to {shape[1] - 1}"),
    ):
        if wrong.any():
            return f"{str(keys[wrong][0])!r}: {problem} ({int(wrong.sum())} images)"
    return ""
