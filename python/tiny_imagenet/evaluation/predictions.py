"""Predictions of one net, or of an ensemble, for a set of images: in memory and as an .npz file without pickles."""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class Predictions:
    """The softmax outputs of `n` images, matched with others by key.

    Attributes:
        keys: (n,) str, the images' LMDB keys, each once.
        labels: (n,) int64, the true classes; -1 where unknown.
        probabilities: (n, classes) float32, rows sum to 1.
        meta: what made them; anything JSON can hold.
        path: the file they were loaded from, "" when there is none; it is not stored.
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
        """What to call these predictions in a table: the meta's name or model, else the file's or its folder's name."""
        for key in ("name", "model"):
            if isinstance(self.meta.get(key), str) and self.meta[key]:
                return self.meta[key]
        path = Path(self.path)
        return (path.parent.name if path.stem == "predictions" else path.stem) or "predictions"


def check(predictions: Predictions, name: str) -> None:
    """Raise PredictionsError, naming `name`, unless `predictions` is what its class says."""
    problem = _problem(predictions)
    if problem:
        raise PredictionsError(f"{name}: {problem}")


def save(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write `predictions` to `path`, whole or not at all; the same predictions give the same bytes.

    Raises:
        PredictionsError: `path` does not end in .npz, the predictions are not valid, or meta is not JSON.
        TinyImageNetError: the file cannot be written.
    """
    if Path(path).suffix != ".npz":
        raise PredictionsError(f"{path}: predictions are written to a file whose name ends in .npz")
    check(predictions, str(path))
    try:
        meta = json.dumps(predictions.meta, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise PredictionsError(f"{path}: meta cannot be written as JSON: {error}") from error
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream,
            keys=predictions.keys,
            labels=predictions.labels,
            probabilities=predictions.probabilities,
            meta=np.array(meta),
        )


def load(path: str | os.PathLike[str]) -> Predictions:
    """Read and check the predictions in `path`.

    Raises:
        PredictionsError: there is no such file, it is not a predictions file, or its contents are not valid.
    """
    advice = "write it with tools/evaluate.py RUN"
    if not Path(path).exists():
        raise PredictionsError(f"{path}: no such file: {advice}")
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise PredictionsError(f"{path}: not an .npz archive: {advice}")
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                raise PredictionsError(f"{path}: lacks the array {', '.join(missing)}: {advice}")
            arrays = {name: archive[name] for name in ARRAYS}
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read ({error.strerror or error}): {advice}") from error
    except (ValueError, EOFError, AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise PredictionsError(f"{path}: not a whole .npz archive without pickles: {advice}") from error
    meta = arrays["meta"]
    try:
        if meta.shape != () or meta.dtype.kind != "U":
            raise ValueError("not one string")
        value = json.loads(str(meta[()]))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise PredictionsError(f"{path}: meta is not a JSON object in one string: {advice}") from error
    predictions = Predictions(arrays["keys"], arrays["labels"], arrays["probabilities"], value, str(path))
    check(predictions, str(path))
    return predictions


def _problem(predictions: Predictions) -> str:
    keys, labels, probabilities = predictions.keys, predictions.labels, predictions.probabilities
    for name, array in (("keys", keys), ("labels", labels), ("probabilities", probabilities)):
        if not isinstance(array, np.ndarray):
            return f"{name} is a {type(array).__name__}, not a numpy array"
    if keys.ndim != 1 or keys.dtype.kind != "U":
        return f"keys is {keys.dtype} of shape {keys.shape}, not str of shape (n,)"
    if not len(keys):
        return "holds no images"
    if labels.shape != keys.shape or labels.dtype != np.int64:
        return f"labels is {labels.dtype} of shape {labels.shape}, not int64 of shape {keys.shape}"
    if probabilities.ndim != 2 or len(probabilities) != len(keys) or probabilities.dtype != np.float32:
        return f"probabilities is {probabilities.dtype} of shape {probabilities.shape}, not float32 of (n, classes)"
    if not probabilities.shape[1]:
        return "probabilities has no classes"
    unique, counts = np.unique(keys, return_counts=True)
    if len(unique) < len(keys):
        return f"the key {str(unique[counts > 1][0])!r} is there {counts.max()} times; each image may be there once"
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        return f"the probabilities of {_first(keys, ~finite)} are not finite"
    outside = (probabilities < 0).any(axis=1)
    if outside.any():
        return f"a probability of {_first(keys, outside)} is negative"
    sums = probabilities.sum(axis=1, dtype=np.float64)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if wrong.any():
        return f"the probabilities of {_first(keys, wrong)} sum to {sums[wrong][0]:.4g}, not 1"
    beyond = (labels < -1) | (labels >= probabilities.shape[1])
    if beyond.any():
        label = labels[beyond][0]
        return f"the label of {_first(keys, beyond)} is {label}; labels run from -1 to {probabilities.shape[1] - 1}"
    return ""


def _first(keys: np.ndarray, where: np.ndarray) -> str:
    more = int(where.sum()) - 1
    return repr(str(keys[where][0])) + (f" (and {more} more)" if more else "")
