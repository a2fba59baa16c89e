"""The confusion matrix of predictions as a figure that says what it shows, and the list of its classes."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.evaluation import metrics, origin, pedigree
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import figures

NAMED_CLASSES = 30  # with more classes neither names nor counts can be read
CELL = 0.165  # inches: a smaller one has no room for a count
DARK = 0.87  # the share from which on white is easier to read on its blue than ink

# From transparent to blue, so that a zero has the page's own colour, light or dark.
_BLUES = LinearSegmentedColormap.from_list("blues", [(0, 0.447, 0.698, 0), (0, 0.447, 0.698, 1)])


def draw(given: Predictions, similar: bool = False, width: float = figures.WIDTH) -> Figure:
    """Draw how often each class was predicted as each, under what was predicted and its top-1.

    Args:
        given: with at least one known label.
        similar: whether the classes are in the order of `similar_order`.
        width: of the figure at most, in inches.

    Raises:
        PredictionsError: no label is known.
    """
    images = int((given.labels >= 0).sum())
    about = pedigree.of(given)
    score = f"top-1 {100 * metrics.top_k(given, 1):.2f}\N{NO-BREAK SPACE}% of {images:,} images"
    title = f"{pedigree.called(given)}, {pedigree.say(about.split, about.crops)}: {score}"
    return matrix(given, _names(given), similar, title, width)


def listing(given: Predictions, similar: bool = False, width: float = figures.WIDTH) -> str:
    """CSV: a row a class in the order of `draw`: its place, which the axes show, its number, wnid and words.

    "" where the axes show names.
    """
    if has_names([figures.short(name) for name in _names(given) or range(given.classes)], width):
        return ""
    known = origin.classes(given) or [("", "")] * given.classes
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["place", "number", "wnid", "words"])
    for place, number in enumerate(class_order(given, similar).tolist()):
        writer.writerow([place, number, *known[number]])
    return stream.getvalue()


def _names(given: Predictions) -> list[str] | None:
    return [words or wnid for wnid, words in origin.classes(given) or []] or None


def matrix(
    predictions: Predictions,
    class_names: Sequence[str] | None = None,
    similar: bool = False,
    title: str = "",
    width: float = figures.WIDTH,
) -> Figure:
    """Draw how often each class (row) was predicted as each (column), as shares of the row.

    Args:
        predictions: with at least one known label.
        class_names: one a class; without them the axes show class numbers.
        similar: whether the classes are in their `class_order`, and not in the order of their numbers.
        title: what stands above; "" for nothing.
        width: of the figure at most, in inches. Where it has no room for names (`has_names`), the axes show the
            classes' places in the order.

    Raises:
        PredictionsError: no label is known.
        TinyImageNetError: the number of names is not the number of classes.
    """
    counts = metrics.confusion(predictions)
    classes = len(counts)
    if class_names is not None and len(class_names) != classes:
        raise TinyImageNetError(f"{len(class_names)} class names for {classes} classes: give one name a class")
    order = class_order(predictions, similar)
    counts = counts[np.ix_(order, order)]
    shares = _shares(counts)
    names = [figures.short(name) for name in class_names or range(classes)]
    few = has_names(names, width)
    with rc_context(figures.STYLE):
        side = min(width, 2.0 + 0.3 * classes) if few else min(width, 5.6)
        lines = textwrap.wrap(title, int(14 * side))
        beside = side > 4.5  # where the colours are explained: there is no room for it beside a small matrix
        height = side if few else (0.83 if beside else 1.15) * side
        figure = Figure(figsize=(side, height + 0.18 * len(lines)), layout="constrained")
        if lines:
            figure.suptitle(figures.plain("\n".join(lines)), x=0.01, ha="left", fontsize=9)
        axes = figure.subplots()
        norm = PowerNorm(1 if few else 0.4, 0, 1)  # a single mistake in fifty images can still be seen
        image = axes.imshow(shares, cmap=_BLUES, norm=norm, interpolation="none")
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        if few:
            turned = any(len(name) > 3 for name in names)
            names = [figures.plain(names[index]) for index in order.tolist()]
            axes.set_xticks(range(classes), names, rotation=90 if turned else 0)
            axes.set_yticks(range(classes), names)
            axes.tick_params(length=0)
            _write_counts(axes, counts, shares, _cell(names, side))
        else:
            what = "place by similarity" if similar else "number"
            axes.set(xlabel=f"Predicted class ({what})", ylabel=f"True class ({what})")
            place = {"location": "right" if beside else "bottom", "shrink": 0.75 if beside else 1, "aspect": 30}
            place["ticks"] = (0, 0.05, 0.2, 0.5, 1)
            bar = figure.colorbar(image, ax=axes, label="Share of the true class", **place)
            bar.outline.set_visible(False)
    return figure


def has_names(names: Sequence[str], width: float = figures.WIDTH) -> bool:
    """Whether a confusion matrix `width` inches wide has room for the short names of its classes, and for counts."""
    return len(names) <= NAMED_CLASSES and _cell(names, width) >= CELL


def _cell(names: Sequence[str], width: float) -> float:
    """About the side of a class's cell, in inches, beside the longest of the names."""
    return (width - 0.5 - 0.075 * max(map(len, names))) / len(names)


def class_order(predictions: Predictions, similar: bool) -> np.ndarray:
    """The classes, (n,) int, as `matrix` has them from left to right: by their numbers, or by `similar_order`."""
    counts = metrics.confusion(predictions)
    return similar_order(_shares(counts)) if similar else np.arange(len(counts))


def similar_order(shares: np.ndarray) -> np.ndarray:
    """An order of the classes, (n,) int, in which those that are taken for each other stand side by side.

    Args:
        shares: how often each class (row) is predicted as each (column), (n, n), as shares of the row.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage  # here: no other figure needs it, and it takes a moment

    if len(shares) < 3:
        return np.arange(len(shares))
    away = 1 - (shares + shares.T) / 2
    pairs = away[np.triu_indices(len(away), 1)]
    return leaves_list(linkage(pairs, "average", optimal_ordering=True)).astype(np.int64)


def _shares(counts: np.ndarray) -> np.ndarray:
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    size = min(8.0, 72 * cell / (0.64 * len(str(counts.max())) + 0.5))  # a digit is 0.64 of the font's size wide
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > DARK else figures.INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)
