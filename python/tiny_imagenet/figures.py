"""Figures of runs and predictions, drawn without a display.

Each function returns a matplotlib Figure of its own (pyplot's global state is not touched); `save` and `svg` turn
it into a file or text, the same bytes for the same figure. Colours are Okabe and Ito's, safe for colour-blind eyes.
"""

from __future__ import annotations

import io
import math
import os
import re
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
NAMED_CLASSES = 30  # with more classes neither names nor counts can be read

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


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], panels: Sequence[str] = tuple(PANELS)) -> Figure:
    """Draw training loss and validation top-1 against the iteration, one line a run.

    Args:
        runs: name -> the records of its metrics.jsonl; what is missing, null or not finite is left out.
        panels: which of "loss" and "top1" to draw, side by side.

    Raises:
        TinyImageNetError: there is no run, or no record that could be drawn.
    """
    series = {
        panel: {name: _series(records, {"loss": "train_loss", "top1": "top1"}[panel]) for name, records in runs.items()}
        for panel in panels
    }
    drawn = {name for lines in series.values() for name, (iterations, _) in lines.items() if len(iterations)}
    if not drawn:
        names = ", ".join(runs) or "no run was given"
        raise TinyImageNetError(f"no {' or '.join(panels)} record to draw ({names}): train first with tools/train.py")
    with rc_context(STYLE):
        figure = Figure(figsize=(4.3 if len(panels) == 1 else 3.5 * len(panels), 3.0), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(1, len(panels))), panels):
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
            axes.set_ylim(bottom=0)
            axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
            axes.tick_params(length=3, width=0.8)
        if len(runs) > 1:
            legend_below(figure, figure.axes[-1].lines)
    return figure


def confusion(predictions: Predictions, class_names: Sequence[str] | None = None, similar: bool = False) -> Figure:
    """Draw how often each class (row) was predicted as each (column), as shares of the row.

    Args:
        predictions: with at least one known label.
        class_names: one a class; without them, and with more than 30 classes, the axes show class numbers.
        similar: whether classes that are taken for each other stand side by side, and not in the order of their
            numbers; more than 30 then have no numbers either.

    Raises:
        PredictionsError: no label is known.
        TinyImageNetError: the number of names is not the number of classes.
    """
    counts = metrics.confusion(predictions)
    classes = len(counts)
    if class_names is not None and len(class_names) != classes:
        raise TinyImageNetError(f"{len(class_names)} class names for {classes} classes: give one name a class")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    order = similar_order(shares) if similar else np.arange(classes)
    counts, shares = counts[np.ix_(order, order)], shares[np.ix_(order, order)]
    few = classes <= NAMED_CLASSES
    with rc_context(STYLE):
        side = min(7.0, 2.0 + 0.3 * classes) if few else 5.6
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.subplots()
        norm = PowerNorm(1 if few else 0.4, 0, 1)  # a single mistake in fifty images can still be seen
        image = axes.imshow(shares, cmap=_BLUES, norm=norm, interpolation="none")
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.4)
        if few:
            names = [plain(short(class_names[index] if class_names else index)) for index in order.tolist()]
            turned = any(len(name) > 3 for name in names)
            axes.set_xticks(range(classes), names, rotation=90 if turned else 0)
            axes.set_yticks(range(classes), names)
            axes.tick_params(length=0)
            _write_counts(axes, counts, shares)
        else:
            if similar:
                axes.set(xlabel="Predicted class, similar ones side by side", xticks=[], yticks=[])
            bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=30, label="Share of the true class")
            bar.outline.set_visible(False)
    return figure


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


def _write_counts(axes: Any, counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(counts)):
        colour = "white" if shares[row, column] > 0.5 else INK
        size = 8 if len(counts) <= 12 else 7
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
