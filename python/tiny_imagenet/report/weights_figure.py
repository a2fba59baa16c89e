"""Weights of a net as pictures: filters of the first convolution and slopes of PReLU layers."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping

import caffe
import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tiny_imagenet.errors import NetError
from tiny_imagenet.evaluation.predict import load
from tiny_imagenet.models import nets
from tiny_imagenet.report import figures
from tiny_imagenet.runs import Run

INITIAL = 0.25  # Caffe's initial slope of a PReLU without a filler
COLUMNS = 16  # of filters
MOST_RUNS = 6  # next to each other

_MARGIN, _GAP, _TITLE, _CAPTION = 0.3, 0.05, 0.28, 0.22  # inches
_START = {"color": figures.INK, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 4}
_MOST_LEVEL = 9  # layer names that fit horizontally on a page's width


def first_filters(net: caffe.Net, name: str = "the net") -> tuple[str, np.ndarray]:
    """The name of the first convolution and its weights for R, G and B: (filters, height, width, 3) float32.

    Raises:
        NetError: the net has no convolution, or the first one does not have three input channels.
    """
    for layer, kind in zip(net._layer_names, (layer.type for layer in net.layers)):
        if kind == "Convolution":
            weights = net.params[layer][0].data
            if weights.ndim != 4 or weights.shape[1] != 3:
                shape = weights.shape[1:]
                raise NetError(f"{name}: layer {layer}: expected filters of shape (3, height, width), got {shape}")
            return layer, weights[:, ::-1].transpose(0, 2, 3, 1).copy()
    raise NetError(f"{name} has no Convolution layer")


def filters(deploy: str | os.PathLike[str], weights: str | os.PathLike[str], name: str | None = None) -> Figure:
    """Draw the filters of a net's first convolution as tiles in the colours that they respond to.

    All tiles have one scale: a weight of 0 is grey, and the largest absolute weight is a full or missing colour.

    Args:
        deploy: the deploy prototxt.
        weights: the .caffemodel.
        name: of the net in the title; None for the path of the prototxt.

    Raises:
        NetError: the files do not match, the first convolution does not have three input channels, or a weight is
            not finite.
    """
    name = name or os.fspath(deploy)
    layer, values = first_filters(load(deploy, weights), name)
    _check_finite(values, f"{name}: layer {layer}: the weights")
    return plot_filters(values, f"{name}, {layer}")


def plot_filters(values: np.ndarray, title: str) -> Figure:
    """Draw filters (n, height, width, 3), RGB."""
    count, rows, columns = values.shape[:3]
    largest = float(np.abs(values).max())
    colours = 0.5 + values / (2 * largest or 1)
    across = min(COLUMNS, count)
    cell = (figures.WIDTH - _MARGIN) / COLUMNS
    tall = (cell - _GAP) * rows / columns + _GAP
    height = _TITLE + math.ceil(count / across) * tall + _CAPTION
    title = f"{title}: {count} filters of {rows}x{columns} pixels"
    caption = (
        f"One scale for all: grey is 0; red, green or blue is full at +{largest:.3g}, the largest weight, and "
        f"missing at \N{MINUS SIGN}{largest:.3g}. Left: number of a row's first filter."
    )
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, height))
        figure.text(0, 1 - 0.16 / height, figures.plain(title), fontsize=9)
        for index, tile in enumerate(colours):
            row, column = divmod(index, across)
            bottom = height - _TITLE - (row + 1) * tall + _GAP
            axes = figures.add_axes(figure, _MARGIN + column * cell, bottom, cell - _GAP, tall - _GAP)
            axes.imshow(tile, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if not column:
                axes.text(-0.12, 0.5, str(index), fontsize=7, ha="right", va="center", transform=axes.transAxes)
        figure.text(0, 0.06 / height, caption, fontsize=7)
    return figure


def slopes(runs: Mapping[str, Run], checkpoint: str = "best", width: float = figures.WIDTH) -> Figure:
    """Draw the trained slopes of the PReLU layers of runs.

    Args:
        runs: name -> run, at most six.
        checkpoint: best, last or an iteration.
        width: in inches.

    Raises:
        RunError: a run has no such checkpoint.
        NetError: there are too many runs, a net has no PReLU layer, or a slope is not finite.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise NetError(f"expected from 1 to {MOST_RUNS} runs, got {len(runs)}")
    found, starts = {}, {}
    for name, run in runs.items():
        found[name] = trained_slopes(load(run.deploy, run.weights(checkpoint)), os.fspath(run.path))
        starts.update(initial_slopes(run.deploy))
    return plot_slopes(found, starts, width)


def trained_slopes(net: caffe.Net, name: str = "the net") -> dict[str, np.ndarray]:
    """The slopes of each PReLU layer, in the order of the net: (channels,) float32, or (1,) if shared.

    Raises:
        NetError: the net has no PReLU layer, or a slope is not finite.
    """
    kinds = [layer.type for layer in net.layers]
    prelu = [layer for layer, kind in zip(net._layer_names, kinds) if kind == "PReLU"]
    found = {layer: net.params[layer][0].data.ravel().copy() for layer in prelu}
    if not found:
        others = " and ".join(sorted({kind for kind in kinds if "ReLU" in kind})) or "no ReLU at all"
        raise NetError(f"{name} has no PReLU layer, only {others}: train a model with PReLU, such as model5")
    for layer, values in found.items():
        _check_finite(values, f"{name}: layer {layer}: the slopes")
    return found


def initial_slopes(deploy: str | os.PathLike[str]) -> dict[str, float | None]:
    """The initial slope of each PReLU layer of a prototxt; None if its filler is random."""
    found: dict[str, float | None] = {}
    for layer in nets.read(deploy).layer:
        if layer.type == "PReLU":
            filler = layer.prelu_param.filler
            constant = filler.value if filler.type == "constant" else None
            found[layer.name] = constant if layer.prelu_param.HasField("filler") else INITIAL
    return found


def plot_slopes(
    runs: Mapping[str, Mapping[str, np.ndarray]], starts: Mapping[str, float | None], width: float = figures.WIDTH
) -> Figure:
    """Draw the slopes of each layer as points, with a box from quartile to quartile.

    Args:
        runs: name -> layer -> slopes (channels,); at most six.
        starts: layer -> initial slope, None if unknown.
        width: in inches.
    """
    layers = list(dict.fromkeys(layer for found in runs.values() for layer in found))
    marks = {place: starts[layer] for place, layer in enumerate(layers) if starts.get(layer) is not None}
    room = 0.86 / len(runs)
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(width, 3.4), layout="constrained")
        axes = figure.subplots()
        for place, start in marks.items():
            axes.plot([place - 0.47, place + 0.47], [start, start], **_START)
        for number, found in enumerate(runs.values()):
            for layer, values in found.items():
                left = layers.index(layer) - 0.43 + room * number
                _strip(axes, values, left, room, figures.PALETTE[number])
        low, high = axes.get_ylim()
        if low <= 0 <= high:
            axes.axhline(0, color=figures.INK, linewidth=0.8, alpha=0.6)
        axes.set_xlim(-0.6, len(layers) - 0.4)
        names = [figures.plain(layer) for layer in layers]
        turned = len(layers) > _MOST_LEVEL * width / figures.WIDTH
        axes.set_xticks(range(len(layers)), names, rotation=90 if turned else 0)
        axes.tick_params(axis="x", length=0, labelsize=8)
        axes.set_ylabel("Slope for negative inputs")
        axes.grid(axis="y", color=figures.INK, alpha=0.12, linewidth=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        handles = [
            Line2D([], [], color=colour, marker="o", markersize=4, linestyle="", label=figures.plain(name))
            for name, colour in zip(runs, figures.PALETTE)
        ]
        if marks:
            values = ", ".join(f"{value:g}" for value in sorted(set(marks.values())))
            handles.append(Line2D([], [], label=f"before training ({values})", **_START))
        figures.legend_below(figure, handles)
        note = "One point per channel, in order. Boxes: quartiles and median; whiskers: minimum and maximum."
        axes.set_xlabel(textwrap.fill(note, int(15 * width)), fontsize=7.5)
    return figure


def _strip(axes: Axes, values: np.ndarray, left: float, room: float, colour: str) -> None:
    """Draw a layer's slopes from `left` on: a box, and next to it the points."""
    line = {"color": colour, "linewidth": 0.9}
    parts = {"medianprops": {**line, "linewidth": 2}, "boxprops": line, "whiskerprops": line, "capprops": line}
    place = {"positions": [left + 0.2 * room], "widths": 0.28 * room, "manage_ticks": False}
    axes.boxplot(values, showfliers=False, whis=(0, 100), **place, **parts)
    spread = left + room * (0.4 + 0.5 * (np.arange(len(values)) + 0.5) / len(values))
    axes.plot(spread, values, "o", color=colour, markersize=2, alpha=0.6, markeredgewidth=0)


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise NetError(f"{what} are not finite: training diverged; try a lower --base-lr and a new --run")
