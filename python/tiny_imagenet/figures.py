"""Figures of runs and predictions, drawn without a display.

Each function returns a matplotlib Figure of its own (pyplot's global state is not touched); `save` and `svg` turn
it into a file or text, the same bytes for the same figure. Colours are Okabe and Ito's, safe for colour-blind eyes.
"""

from __future__ import annotations

import io
import math
import os
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from tiny_imagenet import metrics
from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.files import atomic_file
from tiny_imagenet.predictions import Predictions

INK = "#1c1d1f"  # text and axes; the report swaps it for the page's own colour
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # tells curves apart once the colours have all been used,
DOTS = ("o", "s", "^")  # and their points
PANELS = {"loss": "Training loss", "top1": "Validation top-1 (%)"}
ENDINGS = (".png", ".svg")
POINTS = 400  # a longer training curve is drawn as this many means
WIDTH = 7.0  # inches: a page's; a column of two has about 3.3
NARROWEST = 3.0
NAMED_CLASSES = 30  # with more classes neither names nor counts can be read
CELL = 0.165  # inches: a smaller one has no room for a count
DARK = 0.87  # the share from which on white is easier to read on its blue than ink

STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.family": ["sans-serif"],
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tiny_imagenet",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# From transparent to blue, so that a zero has the page's own colour, light or dark.
_BLUES = LinearSegmentedColormap.from_list("blues", [(0, 0.447, 0.698, 0), (0, 0.447, 0.698, 1)])


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], panels: Sequence[str] = tuple(PANELS), width: float = WIDTH
) -> Figure:
    """Draw training loss and validation top-1 against the iteration, one line a run.

    Args:
        runs: name -> the records of its metrics.jsonl; what is missing, null or not finite is left out.
        panels: which of "loss" and "top1" to draw, side by side, or where `width` is small below each other.
        width: of the figure, in inches; one panel alone takes at most 4.3.

    Raises:
        TinyImageNetError: there is no run, or no record that could be drawn.
    """
    series = {
        panel: {name: _series(records, {"loss": "train_loss", "top1": "top1"}[panel]) for name, records in runs.items()}
        for panel in PANELS
    }
    drawn = {name for panel in panels for name, (iterations, _) in series[panel].items() if len(iterations)}
    if not drawn:
        names = ", ".join(runs) or "no run was given"
        raise TinyImageNetError(f"no {' or '.join(panels)} record to draw ({names}): train first with tools/train.py")
    last = max(iterations[-1] for lines in series.values() for iterations, _ in lines.values() if len(iterations))
    rows = len(panels) if width < 2 * NARROWEST else 1
    width = min(width, 4.3) if len(panels) == 1 else width
    with rc_context(STYLE):
        figure = Figure(figsize=(width, 3.0 if rows == 1 else 2.3 * rows), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(rows, len(panels) // rows)), panels):
            for index, (name, (iterations, values)) in enumerate(series[panel].items()):
                turn = index // len(PALETTE)
                if panel == "top1":
                    values = 100 * values
                else:
                    iterations, values = _thin(iterations, values)
                axes.plot(
                    iterations,
                    values,
                    label=plain(name if name in drawn else f"{name} (no record yet)"),
                    color=PALETTE[index % len(PALETTE)],
                    linestyle=DASHES[turn % len(DASHES)],
                    linewidth=1.4,
                    marker=DOTS[turn % len(DOTS)] if panel == "top1" and len(values) <= 60 else "",
                    markersize=3,
                )
            axes.set(xlabel="Iteration")
            axes.set_title(PANELS[panel], loc="left")
            axes.set_xlim(0, 1.02 * max(last, 1))  # the same in all panels
            axes.set_ylim(0, 1.02 * axes.get_ylim()[1])
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            axes.tick_params(length=3, width=0.8)
        if len(runs) > 1:
            legend_below(figure, figure.axes[-1].lines)
    return figure


def confusion(
    predictions: Predictions,
    class_names: Sequence[str] | None = None,
    similar: bool = False,
    title: str = "",
    width: float = WIDTH,
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
    names = [short(name) for name in class_names or range(classes)]
    few = has_names(names, width)
    with rc_context(STYLE):
        side = min(width, 2.0 + 0.3 * classes) if few else min(width, 5.6)
        lines = textwrap.wrap(title, int(14 * side))
        beside = side > 4.5  # where the colours are explained: there is no room for it beside a small matrix
        height = side if few else (0.83 if beside else 1.15) * side
        figure = Figure(figsize=(side, height + 0.18 * len(lines)), layout="constrained")
        if lines:
            figure.suptitle(plain("\n".join(lines)), x=0.01, ha="left", fontsize=9)
        axes = figure.subplots()
        norm = PowerNorm(1 if few else 0.4, 0, 1)  # a single mistake in fifty images can still be seen
        image = axes.imshow(shares, cmap=_BLUES, norm=norm, interpolation="none")
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        if few:
            turned = any(len(name) > 3 for name in names)
            names = [plain(names[index]) for index in order.tolist()]
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


def has_names(names: Sequence[str], width: float = WIDTH) -> bool:
    """Whether a confusion matrix `width` inches wide has room for the short names of its classes, and for counts."""
    return len(names) <= NAMED_CLASSES and _cell(names, width) >= CELL


def _cell(names: Sequence[str], width: float) -> float:
    """About the side of a class's cell, in inches, beside the longest of the names."""
    return (width - 0.5 - 0.075 * max(map(len, names))) / len(names)


def class_order(predictions: Predictions, similar: bool) -> np.ndarray:
    """The classes, (n,) int, as `confusion` has them from left to right: by their numbers, or by `similar_order`."""
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


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` to a .png (200 dots an inch, white ground) or .svg file, whole or not at all.

    Raises:
        TinyImageNetError: the name ends otherwise, or the file cannot be written.
    """
    check_ending(path)
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        _write(figure, stream, Path(path).suffix.lower()[1:], facecolor="white")


def check_ending(path: str | os.PathLike[str]) -> None:
    """Raise TinyImageNetError unless `path` ends in .png or .svg."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise TinyImageNetError(f"{path}: figures are written to a file whose name ends in {' or '.join(ENDINGS)}")


def svg(figure: Figure) -> str:
    """Return `figure` as an <svg> element on a transparent ground, its text kept as text."""
    stream = io.BytesIO()
    _write(figure, stream, "svg", transparent=True)
    text = stream.getvalue().decode()
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _write(figure: Figure, stream: io.BufferedIOBase, ending: str, **options: Any) -> None:
    FigureCanvasAgg(figure)
    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    with rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
        figure.savefig(
            stream, format=ending, dpi=200, bbox_inches="tight", pad_inches=0.05, metadata=metadata, **options
        )


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return iterations and values of the records that have both, in order; a later record replaces an earlier one."""
    points = {}
    for record in records:
        pair = (record.get("iteration"), record.get(key))
        if all(isinstance(value, (int, float)) and math.isfinite(value) for value in pair):
            points[pair[0]] = pair[1]
    iterations = sorted(points)
    return np.array(iterations, float), np.array([points[iteration] for iteration in iterations], float)


def _thin(iterations: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(values) <= POINTS:
        return iterations, values
    edges = np.linspace(0, len(values), POINTS + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, len(values)))
    return np.add.reduceat(iterations, edges) / sizes, np.add.reduceat(values, edges) / sizes


def _write_counts(axes: Any, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    size = min(8.0, 72 * cell / (0.64 * len(str(counts.max())) + 0.5))  # a digit is 0.64 of the font's size wide
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > DARK else INK
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Put a legend of `handles` under all else in the figure, in as many columns as its width and their names allow."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = int(figure.get_figwidth() / (0.65 + 0.07 * longest))
    columns = min(max(1, columns), len(handles))
    # It lies outside of the figure, which `_write` makes larger: no layout has to know of it.
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncol": columns}
    figure.legend(handles=handles, fontsize=8, borderpad=0.2, handlelength=3, **place)


def short(name: object) -> str:
    """The first of a class's words, cut where it is long."""
    text = str(name).split(",")[0]
    return text if len(text) <= 18 else text[:17] + "…"


def plain(name: object) -> str:
    """Keep matplotlib from reading a name as mathematics or, by a leading underscore, as one to hide."""
    text = str(name).replace("$", r"\$")
    return " " + text if text.startswith("_") else text
