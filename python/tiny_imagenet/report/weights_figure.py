"""What a net has learnt, as pictures of its weights: the filters of its first layer and the slopes of its PReLUs."""

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

INITIAL = 0.25  # a PReLU's slope before training, where its filler says nothing else
COLUMNS = 16  # of filters
MOST_RUNS = 6  # side by side

_WIDTH = figures.WIDTH  # inches, as all below
_MARGIN, _GAP, _TITLE, _CAPTION = 0.3, 0.05, 0.28, 0.22
_START = {"color": figures.INK, "linewidth": 1.0, "linestyle": (0, (4, 2)), "zorder": 4}
_MOST_LEVEL = 9  # layers whose names have room beside each other on a page's width


def first_filters(net: caffe.Net, name: str = "the net") -> tuple[str, np.ndarray]:
    """The first convolution's name and its weights on R, G and B: (filters, height, width, 3) float32.

    Raises:
        NetError: the net, called `name`, has no convolution, or its first one does not see three channels.
    """
    for layer, kind in zip(net._layer_names, (layer.type for layer in net.layers)):
        if kind == "Convolution":
            weights = net.params[layer][0].data
            if weights.ndim != 4 or weights.shape[1] != 3:
                raise NetError(
                    f"{name}: layer {layer} has filters of shape {weights.shape[1:]}, not (3, height, width): "
                    "only filters on an image's three channels have colours"
                )
            return layer, weights[:, ::-1].transpose(0, 2, 3, 1).copy()
    raise NetError(f"{name} has no Convolution layer: there are no filters to show")


def filters(deploy: str | os.PathLike[str], weights: str | os.PathLike[str], name: str | None = None) -> Figure:
    """Draw the filters of the net's first convolution as tiles in the colours that they answer to.

    Grey is a weight of 0, and the largest of all weights, up or down, takes a colour to its end: all tiles have the
    one scale, so that a weak filter looks weak.

    Args:
        deploy: the deploy prototxt.
        weights: its .caffemodel.
        name: what the title calls the net; None is the prototxt's path.

    Raises:
        NetError: the files do not fit each other, or there is no first convolution on three channels, or a weight
            is not finite.
    """
    name = name or os.fspath(deploy)
    layer, values = first_filters(load(deploy, weights), name)
    _check_finite(values, f"{name}: layer {layer} has weights")
    return plot_filters(values, f"{name}, {layer}")


def plot_filters(values: np.ndarray, title: str) -> Figure:
    """Draw filters (n, height, width, 3), RGB, in the order of their channels."""
    count, rows, columns = values.shape[:3]
    largest = float(np.abs(values).max())
    colours = 0.5 + values / (2 * largest or 1)
    across = min(COLUMNS, count)
    down = math.ceil(count / across)
    cell = (_WIDTH - _MARGIN) / COLUMNS
    tall = (cell - _GAP) * rows / columns + _GAP
    height = _TITLE + down * tall + _CAPTION
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        figure.text(
            0, 1 - 0.16 / height, figures.plain(f"{title}: {count} filters of {rows}x{columns} pixels"), fontsize=9
        )
        for index, tile in enumerate(colours):
            row, column = divmod(index, across)
            left, bottom = _MARGIN + column * cell, height - _TITLE - (row + 1) * tall + _GAP
            axes = figure.add_axes((left / _WIDTH, bottom / height, (cell - _GAP) / _WIDTH, (tall - _GAP) / height))
            axes.imshow(tile, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            if not column:
                axes.text(-0.12, 0.5, str(index), fontsize=7, ha="right", va="center", transform=axes.transAxes)
        figure.text(
            0,
            0.06 / height,
            f"One scale for all: grey is 0; red, green or blue is full at +{largest:.3g}, the largest weight, and "
            f"none at \N{MINUS SIGN}{largest:.3g}. Left: a row's first filter.",
            fontsize=7,
        )
    return figure


def slopes(runs: Mapping[str, Run], checkpoint: str = "best", width: float = _WIDTH) -> Figure:
    """Draw the slopes that runs have learnt.

    Args:
        runs: name -> run.
        checkpoint: best, last or an iteration.
        width: of the figure, in inches.

    Raises:
        RunError: a run has no such checkpoint.
        NetError: there are more than six runs or none, a net has no PReLU layer, or a slope is not finite.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise NetError(f"{len(runs)} runs: from 1 to {MOST_RUNS} can be told apart in one figure")
    found, starts = {}, {}
    for name, run in runs.items():
        found[name] = learnt_slopes(load(run.deploy, run.weights(checkpoint)), os.fspath(run.path))
        starts.update(initial_slopes(run.deploy))
    return plot_slopes(found, starts, width)


def learnt_slopes(net: caffe.Net, name: str = "the net") -> dict[str, np.ndarray]:
    """The slopes of each PReLU layer by its name, in the net's order: (channels,) float32, (1,) where they share one.

    Raises:
        NetError: the net, called `name`, has no PReLU layer, or a slope is not finite.
    """
    kinds = [layer.type for layer in net.layers]
    found = {
        layer: net.params[layer][0].data.ravel().copy()
        for layer, kind in zip(net._layer_names, kinds)
        if kind == "PReLU"
    }
    if not found:
        others = " and ".join(sorted({kind for kind in kinds if "ReLU" in kind})) or "no rectifier"
        raise NetError(f"{name} has no PReLU layer, whose slopes could be drawn (it has {others}): model5 has some")
    for layer, values in found.items():
        _check_finite(values, f"{name}: layer {layer} has slopes")
    return found


def initial_slopes(deploy: str | os.PathLike[str]) -> dict[str, float | None]:
    """The slope that each PReLU layer of a prototxt starts with; None where its filler draws it."""
    found: dict[str, float | None] = {}
    for layer in nets.read(deploy).layer:
        if layer.type == "PReLU":
            given = layer.prelu_param.HasField("filler")
            filler = layer.prelu_param.filler
            constant = filler.value if filler.type == "constant" else None
            found[layer.name] = constant if given else INITIAL
    return found


def plot_slopes(
    runs: Mapping[str, Mapping[str, np.ndarray]], starts: Mapping[str, float | None], width: float = _WIDTH
) -> Figure:
    """Draw the slopes of each layer: each channel's as a point, with a box from quartile to quartile about the median.

    Args:
        runs: name -> layer -> slopes (channels,); at most six, side by side.
        starts: layer -> the slope that training started with; a layer that is missing or None has no mark.
        width: of the figure, in inches.
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
        axes.set_xticks(range(len(layers)), names, rotation=90 if len(layers) > _MOST_LEVEL * width / _WIDTH else 0)
        axes.tick_params(axis="x", length=0, labelsize=8)
        axes.set_ylabel("Slope of negative inputs")
        axes.grid(axis="y", color=figures.INK, alpha=0.12, linewidth=0.6)
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
        handles = [
            Line2D([], [], color=colour, marker="o", markersize=4, linestyle="", label=figures.plain(name))
            for name, colour in zip(runs, figures.PALETTE)
        ]
        if marks:
            values = ", ".join(f"{value:g}" for value in sorted(set(marks.values())))
            handles.append(Line2D([], [], label=f"at the start ({values})", **_START))
        figures.legend_below(figure, handles)
        note = "A point a channel, in their order; a box from quartile to quartile, whiskers to the extremes"
        axes.set_xlabel(textwrap.fill(note, int(15 * width)), fontsize=7.5)
    return figure


def _strip(axes: Axes, values: np.ndarray, left: float, room: float, colour: str) -> None:
    """A layer's slopes, from `left` on: their median, quartiles and extremes as a box, each as a point beside it."""
    line = {"color": colour, "linewidth": 0.9}
    axes.boxplot(
        values,
        positions=[left + 0.2 * room],
        widths=0.28 * room,
        showfliers=False,
        whis=(0, 100),
        manage_ticks=False,
        medianprops={**line, "linewidth": 2},
        boxprops=line,
        whiskerprops=line,
        capprops=line,
    )
    spread = left + room * (0.4 + 0.5 * (np.arange(len(values)) + 0.5) / len(values))
    axes.plot(spread, values, "o", color=colour, markersize=2, alpha=0.6, markeredgewidth=0)


def _check_finite(values: np.ndarray, what: str) -> None:
    if not np.isfinite(values).all():
        raise NetError(f"{what} that are not finite: the net has diverged; train it again with a lower --base-lr")
