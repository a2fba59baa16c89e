"""Training curves of runs: all in one pair of axes where no two look alike, else a small one a model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.report import figures

PANELS = {"loss": "Training loss", "top1": "Validation top-1 (%)"}
POINTS = 400  # a longer training curve is drawn as this many means
COLOURS = len(figures.PALETTE)  # lines that are told apart by their colours alone
MOST_LINES = COLOURS * len(figures.DASHES)  # and with dashes and points: more would look alike

_DOTS = ("o", "s", "^")
_KEYS = {"loss": "train_loss", "top1": "top1"}  # of the records
_SMALL = (3.0, 2.1)  # inches: width and height of a small figure,
_CELL = (1.05, 0.9)  # and about those of small axes that share a figure and a legend,
_OWN = (1.65, 1.4)  # or have one each
_SIZES = {"axes.titlesize": 8, "axes.labelsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7}
_LEGEND = {"fontsize": 7, "handlelength": 1.5, "borderpad": 0.1, "borderaxespad": 0.1, "columnspacing": 1.0}  # of those


@dataclass(frozen=True)
class Line:
    """A run's records, those of its metrics.jsonl; `detail` tells it from the other runs of its model, if there are."""

    model: str
    detail: str
    records: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.model} ({self.detail})" if self.detail else self.model


def draw(lines: Sequence[Line], width: float = figures.WIDTH) -> Figure:
    """Draw training loss and validation top-1 against the iteration, a line a run, `width` inches wide.

    More than `MOST_LINES` runs are in small axes on one scale, a pair a model; in each the run whose top-1 came highest
    is drawn in grey, to compare the others with.

    Raises:
        TinyImageNetError: there is no run, or no record that could be drawn.
    """
    if len(lines) <= MOST_LINES:
        return curves({line.name: line.records for line in lines}, width=width)
    panels = [panel for panel in PANELS if _recorded(lines, panel)]
    if not panels:
        raise _nothing([line.name for line in lines], PANELS)
    best = max(lines, key=lambda line: max(_points(line.records, "top1")[1], default=0))
    parts = {panel: [part for part in _parts(lines) if _recorded(part, panel)] for panel in panels}
    alike = _alike([part for own in parts.values() for part in own])
    cell = _CELL if alike else _OWN
    rows = {panel: math.ceil(len(parts[panel]) / int(width / cell[0])) for panel in panels}
    heights = [(0.5 if alike else 0.3) + cell[1] * rows[panel] for panel in panels]
    with rc_context({**figures.STYLE, **_SIZES}):
        figure = Figure(figsize=(width, 0.5 + sum(heights)))
        figure.set_layout_engine("constrained", h_pad=0.02, w_pad=0.06 if alike else 0.02)
        blocks = np.ravel(figure.subfigures(len(panels), 1, height_ratios=heights))
        for block, panel in zip(blocks, panels):
            block.suptitle(PANELS[panel], x=0.01, ha="left", fontsize=9, fontweight="bold")
            across = math.ceil(len(parts[panel]) / rows[panel])
            grid = (_sharing if alike else _apart)(block, rows[panel], across, len(parts[panel]))
            for axes, part in zip(grid, parts[panel]):
                _draw_part(axes, part, panel, _limits(lines, panel), best)
                axes.tick_params(pad=2)
                axes.locator_params(nbins=4)
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k: five digits have no room
                if not alike:
                    axes.set_xlabel("Iteration", labelpad=1)
                    handles = axes.lines[: len(part)]
                    longest = max(len(line.get_label()) for line in handles)
                    columns = min(len(handles), max(1, int(width / across / (0.3 + 0.055 * longest))))
                    axes.figure.legend(handles=handles, ncols=columns, loc="outside lower center", **_LEGEND)
        if alike:
            own = max(zip(parts[panel], grid), key=lambda pair: len(pair[0]))
            figures.legend_below(figure, own[1].lines[: len(own[0])])
        note = f"All have the same axes; the grey line is {best.name} in each."
        figure.supxlabel(figures.plain(textwrap.fill(note, int(15 * width))), fontsize=7.5)
    return figure


def _alike(parts: Sequence[Sequence[Line]]) -> bool:
    """Whether lines of one look have one name in all parts, so that a legend can be that of all."""
    names = [[line.detail or line.model for line in part] for part in parts]
    longest = max(names, key=len)
    return all(own == longest[: len(own)] for own in names)


def _sharing(block: Any, rows: int, across: int, count: int) -> list[Axes]:
    """So many axes in a grid, with figures at its left and lower edge alone."""
    grid = block.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
    for k in range(count, grid.size):
        grid.flat[k].remove()
        grid.flat[k - across].tick_params(labelbottom=True)
    block.supxlabel("Iteration", fontsize=7)
    return list(grid.flat)[:count]


def _apart(block: Any, rows: int, across: int, count: int) -> list[Axes]:
    """So many axes, each with room for a legend below it."""
    return [cell.subplots() for cell in list(np.ravel(block.subfigures(rows, across)))[:count]]


def curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    panels: Sequence[str] = tuple(PANELS),
    width: float = figures.WIDTH,
) -> Figure:
    """Draw the `panels` of runs, a line a run; the lines of more than `MOST_LINES` are not told apart.

    Args:
        runs: name -> the records of its metrics.jsonl; what is missing, null or not finite is left out.
        panels: which of "loss" and "top1" to draw, side by side, or where `width` is small below each other.
        width: of the figure, in inches; one panel alone takes at most 4.3.

    Raises:
        TinyImageNetError: there is no run, or no record that could be drawn.
    """
    lines = [Line(name, "", records) for name, records in runs.items()]
    if not any(_recorded(lines, panel) for panel in panels):
        raise _nothing(runs, panels)
    rows = len(panels) if width < 2 * figures.NARROWEST else 1
    width = min(width, 4.3) if len(panels) == 1 else width
    labels = [
        line.name if any(_recorded([line], panel) for panel in panels) else f"{line.name} (no record yet)"
        for line in lines
    ]
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(width, 3.0 if rows == 1 else 2.3 * rows), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(rows, len(panels) // rows)), panels):
            _plot(axes, panel, lines, labels)
            axes.set(xlabel="Iteration", **_limits(lines, panel))
            axes.set_title(PANELS[panel], loc="left")
        if len(runs) > 1:
            figures.legend_below(figure, figure.axes[-1].lines)
    return figure


def small(lines: Sequence[Line], best: Line, panel: str) -> list[tuple[str, Figure]]:
    """Draw the `panel` of lines in small figures of the same axes, each of a model: models and figures.

    In each the `best` of all lines is drawn in grey, to compare the others with. A model that has recorded nothing has
    none; one with more runs than there are colours has several.
    """
    found = []
    limits = _limits(lines, panel)
    for part in _parts(lines):
        if not _recorded(part, panel):
            continue
        with rc_context(figures.STYLE):
            figure = Figure(figsize=_SMALL, layout="constrained")
            axes = figure.subplots()
            _draw_part(axes, part, panel, limits, best)
            axes.set_xlabel("Iteration")
            if len(part) > 1:
                figures.legend_below(figure, axes.lines[: len(part)])
        found.append((part[0].model, figure))
    return found


def _parts(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each small figure: those of a model, as many as there are colours."""
    models: dict[str, list[Line]] = {}
    for line in lines:
        models.setdefault(line.model, []).append(line)
    return [own[at : at + COLOURS] for own in models.values() for at in range(0, len(own), COLOURS)]


def _draw_part(axes: Axes, part: Sequence[Line], panel: str, limits: Mapping[str, Any], best: Line) -> None:
    """Draw some lines of one model, within the `limits` of all, and the `best` of all in grey."""
    _plot(axes, panel, part, [line.detail or line.model for line in part])
    axes.set(**limits)
    axes.set_title(figures.plain(part[0].model), loc="left")
    if best not in part:
        axes.plot(*_drawn(best, panel), color=figures.INK, alpha=0.35, linewidth=1, zorder=1)


def _plot(axes: Axes, panel: str, lines: Sequence[Line], labels: Sequence[str]) -> None:
    """Draw lines that differ in their colours and, once these have all been used, in dashes and points."""
    for index, (line, label) in enumerate(zip(lines, labels)):
        turn = index // COLOURS % len(figures.DASHES)
        iterations, values = _drawn(line, panel)
        axes.plot(
            iterations,
            values,
            label=figures.plain(label),
            color=figures.PALETTE[index % COLOURS],
            linestyle=figures.DASHES[turn],
            linewidth=1.4,
            marker=_DOTS[turn] if len(values) == 1 or (panel == "top1" and len(values) <= 60) else "",
            markersize=3,
        )
    axes.grid(axis="y", color=figures.INK, alpha=0.12, linewidth=0.6)
    axes.tick_params(length=3, width=0.8)


def _limits(lines: Sequence[Line], panel: str) -> dict[str, tuple[float, float]]:
    """The ends of the axes: of the iterations those of all panels, and in both from 0."""
    last = max((max(_points(line.records, each)[0], default=0) for line in lines for each in PANELS), default=0)
    highest = max((max(_drawn(line, panel)[1], default=0) for line in lines), default=0)
    return {"xlim": (0, 1.02 * max(last, 1)), "ylim": (0, 1.05 * highest or 1)}


def _recorded(lines: Sequence[Line], panel: str) -> bool:
    return any(len(_points(line.records, panel)[0]) for line in lines)


def _nothing(names: Iterable[str], panels: Iterable[str]) -> TinyImageNetError:
    said = ", ".join(names) or "no run was given"
    return TinyImageNetError(f"no {' or '.join(panels)} record to draw ({said}): train first with tools/train.py")


def _points(records: Sequence[Mapping[str, Any]], panel: str) -> tuple[np.ndarray, np.ndarray]:
    """Iterations and values of the records that have both, in order; a later record replaces an earlier one."""
    points = {}
    for record in records:
        pair = (record.get("iteration"), record.get(_KEYS[panel]))
        if all(isinstance(value, (int, float)) and math.isfinite(value) for value in pair):
            points[pair[0]] = pair[1]
    iterations = sorted(points)
    return np.array(iterations, float), np.array([points[iteration] for iteration in iterations], float)


def _drawn(line: Line, panel: str) -> tuple[np.ndarray, np.ndarray]:
    """The same as it is drawn: top-1 in per cent, a long curve of losses as means of neighbours."""
    iterations, values = _points(line.records, panel)
    if panel == "top1":
        return iterations, 100 * values
    if len(values) <= POINTS:
        return iterations, values
    edges = np.linspace(0, len(values), POINTS + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, len(values)))
    return np.add.reduceat(iterations, edges) / sizes, np.add.reduceat(values, edges) / sizes
