"""How good predictions are: top-k accuracy, error, intervals, loss, scores of each class and the confusion matrix.

Accuracies and errors are fractions from 0 to 1. Images whose label is unknown (-1) are left out; where no label
is known, or a labelled image's probabilities are not finite, every function raises PredictionsError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation.predictions import Predictions

Z_95 = 1.959963984540054
SCORES = (
    *("top1", "top1_interval", "top5", "top5_interval", "error", "error_interval", "top5_error", "top5_error_interval"),
    "loss",
)


def labelled(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (m, classes) and labels (m,) of the images whose label is known.

    Raises:
        PredictionsError: no label is known, or one of these probabilities is NaN or infinite.
    """
    known = predictions.labels >= 0
    name = predictions.path or predictions.name
    if not known.any():
        raise PredictionsError(f"{name}: no image has a known label, so there is nothing to score: use the val split")
    probabilities = predictions.probabilities[known]
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        key = str(predictions.keys[known][~finite][0])
        raise PredictionsError(
            f"{name}: the probabilities of {key!r} are not finite ({int((~finite).sum())} such images), so there is "
            "nothing to score: the net has diverged; train it again with a lower --base-lr"
        )
    return probabilities, predictions.labels[known]


def ranks(predictions: Predictions) -> np.ndarray:
    """Return the true class's place, 0 for the first, in each labelled image's order: (m,) int64.

    Of classes with equal probability the one with the lower index comes first.
    """
    probabilities, labels = labelled(predictions)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = probabilities > own
    before |= (probabilities == own) & (np.arange(probabilities.shape[1]) < labels[:, None])
    return before.sum(axis=1)


def top_k(predictions: Predictions, k: int) -> float:
    """Return the share of labelled images whose true class is among the `k` most probable."""
    return float((ranks(predictions) < k).mean())


def wilson(successes: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a share: 95 % with the usual `z`; (0, 1) for a count of 0."""
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    centre = share + z * z / (2 * count)
    half = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion(predictions: Predictions) -> np.ndarray:
    """Return how often each class (row) was predicted as each (column): (classes, classes) int64."""
    probabilities, labels = labelled(predictions)
    classes = predictions.classes
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class(predictions: Predictions) -> np.ndarray:
    """Return each class's top-1 accuracy: (classes,) float64, NaN for a class without images."""
    matrix = confusion(predictions)
    totals = matrix.sum(axis=1)
    return np.divide(matrix.diagonal(), totals, out=np.full(len(matrix), np.nan), where=totals > 0)


def confused(predictions: Predictions, most: int = 10) -> list[dict[str, int]]:
    """Return the pairs of classes that are taken for each other most often, at most `most` of them.

    Each is {"true", "predicted" (class indexes), "count", "of" (the true class's images)}; the more frequent come
    first, of equals the one with the lower indexes. Pairs that never occur are left out.
    """
    matrix = confusion(predictions)
    totals, mistakes = matrix.sum(axis=1), matrix - np.diag(matrix.diagonal())
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    return [
        {"true": true, "predicted": other, "count": int(mistakes[true, other]), "of": int(totals[true])}
        for true, other in pairs
        if mistakes[true, other]
    ]


def class_scores(predictions: Predictions) -> list[dict[str, Any]]:
    """Return one dict a class that JSON can hold, in the order of the classes.

    Each is {"count" (labelled images), "right", "top1", "top1_interval" (95 %, Wilson's), "top5", "predicted" (how
    many images, right or wrong, were put into this class)}. A class without images has None for the shares, and so has
    "top5" with fewer than five classes.
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
    """Return the scores as a dict that JSON can hold.

    Its keys: `count` (labelled images), `unlabelled`, `classes`, `top1`, `top5`, `error` (1 - top1) and `top5_error`,
    the 95 % Wilson interval [low, high] of each of these four (`top1_interval` and so on), and `loss` (mean -log p of
    the true class, p held above float32's smallest normal number as Caffe's loss layer does).
    With fewer than five classes every top-5 value is None.
    """
    places = ranks(predictions)
    probabilities, labels = labelled(predictions)
    count = len(places)
    first, five = int((places < 1).sum()), int((places < 5).sum())
    low, high = wilson(first, count)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1).astype(np.float64)
    has_five = predictions.classes >= 5
    return {
        "count": count,
        "unlabelled": len(predictions.labels) - count,
        "classes": predictions.classes,
        "top1": first / count,
        "top1_interval": [low, high],
        "top5": five / count if has_five else None,
        "top5_interval": list(wilson(five, count)) if has_five else None,
        "error": (count - first) / count,
        "error_interval": [1 - high, 1 - low],
        "top5_error": (count - five) / count if has_five else None,
        "top5_error_interval": [1 - end for end in wilson(five, count)[::-1]] if has_five else None,
        "loss": float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean()),
    }
