"""Scores of predictions: top-k accuracy, error, intervals, loss, scores per class and the confusion matrix.

Accuracies and errors are fractions from 0 to 1. Images without a known label (-1) are ignored. Every function raises
PredictionsError if no label is known or if the probabilities of a labelled image are not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation.predictions import Predictions

Z_95 = 1.959963984540054
NONE = "-"  # shown for a missing value


class Score(NamedTuple):
    """A column in tables of scores: a key of `summary` and how to show it.

    Attributes:
        key: of the value, a fraction; its interval is under `{key}_interval`.
        title: the column's title.
    """

    key: str
    title: str

    def text(self, scores: Mapping[str, Any], digits: int = 2) -> str:
        """The value in per cent, or "-"."""
        return percent(scores.get(self.key), digits)

    def interval(self, scores: Mapping[str, Any]) -> str:
        """The 95 % interval in per cent, or "-"."""
        ends = scores.get(f"{self.key}_interval")
        return " to ".join(map(percent, ends)) if ends else NONE


# The columns of every table of scores: evaluate.py, ensemble.py and the report.
SCORES = (Score("top1", "Top-1 %"), Score("top5", "Top-5 %"), Score("error", "Error %"))
TOP1 = SCORES[0]


def percent(share: float | None, digits: int = 2) -> str:
    """A fraction in per cent, or "-" for None."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def labelled(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (m, classes) and labels (m,) of the images with a known label.

    Raises:
        PredictionsError: no label is known, or one of these probabilities is NaN or infinite.
    """
    known = predictions.labels >= 0
    name = predictions.path or predictions.name
    if not known.any():
        raise PredictionsError(f"{name}: no image has a label, so there is nothing to score: use the val split")
    probabilities = predictions.probabilities[known]
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        key = str(predictions.keys[known][~finite][0])
        raise PredictionsError(
            f"{name}: the probabilities of {int((~finite).sum())} images, such as {key!r}, are not finite: "
            "training diverged; try a lower --base-lr and a new --run"
        )
    return probabilities, predictions.labels[known]


def ranks(predictions: Predictions) -> np.ndarray:
    """Return the position of the true class among the predicted ones, 0 for the most probable: (m,) int64.

    Among classes of equal probability the lower index comes first.
    """
    probabilities, labels = labelled(predictions)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = probabilities > own
    before |= (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return before.sum(axis=1)


def top_k(predictions: Predictions, k: int) -> float:
    """Return the fraction of labelled images whose true class is among the `k` most probable."""
    return float((ranks(predictions) < k).mean())


def wilson(successes: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion, 95 % by default; (0, 1) if `count` is 0."""
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion(predictions: Predictions) -> np.ndarray:
    """Return how often each class (row) was predicted as each class (column): (classes, classes) int64."""
    probabilities, labels = labelled(predictions)
    classes = predictions.classes
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confused(predictions: Predictions, most: int = 10) -> list[dict[str, int]]:
    """Return the pairs of classes that are confused most often, at most `most`, the most frequent first.

    Each is {"true", "predicted" (class indices), "count", "of" (images of the true class)}.
    """
    matrix = confusion(predictions)
    totals, mistakes = matrix.sum(axis=1), matrix - np.diag(matrix.diagonal())
    pairs = [divmod(int(place), len(matrix)) for place in np.argsort(-mistakes, axis=None, kind="stable")[:most]]
    return [
        {"true": true, "predicted": other, "count": int(mistakes[true, other]), "of": int(totals[true])}
        for true, other in pairs
        if mistakes[true, other]
    ]


def class_scores(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the scores of each class as dicts that JSON can store, in the order of the classes.

    Each is {"count" (labelled images), "right", "top1", "top1_interval" (95 %, Wilson), "top5", "predicted" (images
    assigned to this class)}. Accuracies are None for a class without images, "top5" also with fewer than five classes.
    """
    places = ranks(predictions)
    _, labels = labelled(predictions)
    matrix = confusion(predictions)
    five = np.bincount(labels[places < 5], minlength=len(matrix))
    rows = []
    for index, row in enumerate(matrix):
        count, right = int(row.sum()), int(row[index])
        rows.append(
            {
                "count": count,
                "right": right,
                "top1": right / count if count else None,
                "top1_interval": list(wilson(right, count)) if count else None,
                "top5": int(five[index]) / count if count and len(matrix) >= 5 else None,
                "predicted": int(matrix[:, index].sum()),
            }
        )
    return rows


def summary(predictions: Predictions) -> dict[str, Any]:
    """Return the scores as a dict that JSON can store.

    Its keys are `count` (labelled images), `unlabelled`, `classes`, `top1`, `top5`, `error` (1 - top1), `top5_error`,
    the 95 % Wilson interval [low, high] of these four (`top1_interval` etc.), and `loss` (mean -log p of the true
    class; p is clipped at float32's smallest normal number, as in Caffe's loss layer). With fewer than five classes
    all top-5 values are None.
    """
    places = ranks(predictions)
    probabilities, labels = labelled(predictions)
    count = len(places)
    first, five = int((places < 1).sum()), int((places < 5).sum())
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    scores = {"count": count, "unlabelled": len(predictions.labels) - count, "classes": predictions.classes}
    for key, hits in {"top1": first, "top5": five, "error": count - first, "top5_error": count - five}.items():
        known = predictions.classes >= 5 or not key.startswith("top5")
        scores[key] = hits / count if known else None
        scores[f"{key}_interval"] = list(wilson(hits, count)) if known else None
    return {**scores, "loss": float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())}


def summary_if_labelled(predictions: Predictions) -> dict[str, Any]:
    """Return `summary`, or the same keys with a `count` of 0 and no scores if no label is known."""
    if (predictions.labels >= 0).any():
        return summary(predictions)
    shares = [f"{key}{end}" for key in ("top1", "top5", "error", "top5_error") for end in ("", "_interval")]
    counts = {"count": 0, "unlabelled": len(predictions.labels), "classes": predictions.classes}
    return {**counts, **dict.fromkeys([*shares, "loss"])}
