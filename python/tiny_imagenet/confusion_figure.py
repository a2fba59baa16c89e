"""The confusion matrix of predictions as a figure that says what it shows, and the list of its classes."""

from __future__ import annotations

import csv
import io

from matplotlib.figure import Figure

from tiny_imagenet import figures, metrics, origin, pedigree
from tiny_imagenet.predictions import Predictions


def draw(given: Predictions, similar: bool = False, width: float = figures.WIDTH) -> Figure:
    """Draw how often each class was predicted as each, under what was predicted and its top-1.

    Args:
        given: with at least one known label.
        similar: whether the classes are in the order of `figures.similar_order`.
        width: of the figure at most, in inches.

    Raises:
        PredictionsError: no label is known.
    """
    images = int((given.labels >= 0).sum())
    about = pedigree.of(given)
    score = f"top-1 {100 * metrics.top_k(given, 1):.2f}\N{NO-BREAK SPACE}% of {images:,} images"
    title = f"{given.name}, {pedigree.say(about.split, about.crops)}: {score}"
    return figures.confusion(given, _names(given), similar, title, width)


def listing(given: Predictions, similar: bool = False, width: float = figures.WIDTH) -> str:
    """CSV: a row a class in the order of `draw`: its place, which the axes show, its number, wnid and words.

    "" where the axes show names.
    """
    if figures.has_names([figures.short(name) for name in _names(given) or range(given.classes)], width):
        return ""
    known = origin.classes(given) or [("", "")] * given.classes
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["place", "number", "wnid", "words"])
    for place, number in enumerate(figures.class_order(given, similar).tolist()):
        writer.writerow([place, number, *known[number]])
    return stream.getvalue()


def _names(given: Predictions) -> list[str] | None:
    return [words or wnid for wnid, words in origin.classes(given) or []] or None
