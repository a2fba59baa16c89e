"""Confusion matrix of predictions, and the list of its classes."""

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

from tiny_imagenet.evaluation import data_source, metrics, provenance
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import figures

NAMED_CLASSES = 30  # with more classes, neither names nor counts would be readable
CELL = 0.165  # inches: smaller cells have no room for a count
DARK = 0.87  # from this fraction on, white text is easier to read on blue than ink

# From transparent to blue: a zero has the page's background, light or dark.
_BLUES = LinearSegmentedColormap.from_list("blues", [(0, 0.447, 0.698, 0), (0, 0.447, 0.698, 1)])


def draw(given: Predictions, similar: bool = False, width: float = figures.WIDTH, title: str | None = None) -> Figure:
    """Draw how often each class (row) was predicted as each class (column), as fractions of the row.

    Args:
        given: predictions with at least one known label.
        similar: order the classes by `similar_order`, not by number.
        width: maximum width in inches. If names do not fit (`has_names`), the axes show places in the order.
        title: above the figure; None for the predictions' name, images and top-1.

    Raises:
        PredictionsError: no label is known.
    """
    order = class_order(given, similar)
    counts = metrics.confusion(given)[np.ix_(order, order)]
    shares, classes = _shares(counts), len(counts)
    names = _short_names(given)
    named = has_names(names, width)
    with rc_context(figures.STYLE):
        side = min(width, 2.0 + 0.3 * classes) if named else min(width, 5.6)
        lines = textwrap.wrap(_title(given) if title is None else title, int(14 * side))
        bar_right = side > 4.5
        height = side if named else (0.83 if bar_right else 1.15) * side
        figure = Figure(figsize=(side, height + 0.18 * len(lines)), layout="constrained")
        if lines:
            figure.suptitle(figures.plain("\n".join(lines)), x=0.01, ha="left", fontsize=9)
        axes = figure.subplots()
        norm = PowerNorm(1 if named else 0.4, 0, 1)  # makes a single mistake in fifty images visible
        image = axes.imshow(shares, cmap=_BLUES, norm=norm, interpolation="none")
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        if named:
            turned = any(len(name) > 3 for name in names)
            ticks = [figures.plain(names[index]) for index in order.tolist()]
            axes.set_xticks(range(classes), ticks, rotation=90 if turned else 0)
            axes.set_yticks(range(classes), ticks)
            axes.tick_params(length=0)
            _write_counts(axes, counts, shares, _cell(names, side))
        else:
            what = "place by similarity" if similar else "number"
            axes.set(xlabel=f"Predicted class ({what})", ylabel=f"True class ({what})")
            place = {"location": "right" if bar_right else "bottom", "shrink": 0.75 if bar_right else 1, "aspect": 30}
            place["ticks"] = (0, 0.05, 0.2, 0.5, 1)
            bar = figure.colorbar(image, ax=axes, label="Share of the true class", **place)
            bar.outline.set_visible(False)
    return figure


def listing(given: Predictions, similar: bool = False, width: float = figures.WIDTH) -> str:
    """The classes in the order of `draw` as CSV (place, number, wnid, words); "" if the axes show names."""
    if has_names(_short_names(given), width):
        return ""
    known = data_source.classes(given) or [("", "")] * given.classes
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["place", "number", "wnid", "words"])
    writer.writerows([place, number, *known[number]] for place, number in enumerate(class_order(given, similar)))
    return stream.getvalue()


def has_names(names: Sequence[str], width: float = figures.WIDTH) -> bool:
    """Whether a confusion matrix `width` inches wide has room for class names and counts."""
    return len(names) <= NAMED_CLASSES and _cell(names, width) >= CELL


def class_order(given: Predictions, similar: bool) -> np.ndarray:
    """The class numbers (n,) from left to right: ascending, or in `similar_order`."""
    counts = metrics.confusion(given)
    return similar_order(_shares(counts)) if similar else np.arange(len(counts))


def similar_order(shares: np.ndarray) -> np.ndarray:
    """An order of the classes, (n,) int, in which classes that are confused are neighbours.

    Args:
        shares: fraction of each class (row) that is predicted as each class (column), (n, n).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage  # slow to import, and only needed here

    if len(shares) < 3:
        return np.arange(len(shares))
    distances = 1 - (shares + shares.T) / 2
    pairs = distances[np.triu_indices(len(distances), 1)]
    return leaves_list(linkage(pairs, "average", optimal_ordering=True)).astype(np.int64)


def _title(given: Predictions) -> str:
    images = int((given.labels >= 0).sum())
    score = f"top-1 {100 * metrics.top_k(given, 1):.2f}\N{NO-BREAK SPACE}% of {images:,} images"
    return f"{provenance.title(given)}, {provenance.of(given).images}: {score}"


def _short_names(given: Predictions) -> list[str]:
    return [figures.short(name) for name in data_source.class_names(given) or range(given.classes)]


def _cell(names: Sequence[str], width: float) -> float:
    """The approximate side of a cell in inches, next to the longest name."""
    return (width - 0.5 - 0.075 * max(map(len, names))) / len(names)


def _shares(counts: np.ndarray) -> np.ndarray:
    totals = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    size = min(8.0, 72 * cell / (0.64 * len(str(counts.max())) + 0.5))  # a digit is 0.64 of the font size wide
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > DARK else figures.INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)
