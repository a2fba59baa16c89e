"""Training curves of runs: one pair of axes, or a small one per model if there are too many lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.report import figures

PANELS = {"train_loss": "Training loss", "top1": "Validation top-1 (%)"}  # by the key of the records
POINTS = 400  # longer training curves are averaged to this many points
COLOURS = len(figures.PALETTE)
MOST_LINES = COLOURS * len(figures.DASHES)  # more lines would not be distinguishable in one pair of axes

_DOTS = ("o", "s", "^")
_CELL = (1.05, 1.0)  # inches: width and height of small axes
_SMALL = {"axes.titlesize": 8, "axes.labelsize": 7, "xtick.labelsize": 7, "ytick.labelsize": 7}


@dataclass(frozen=True)
class Line:
    """The records of a run's metrics.jsonl; `detail` distinguishes it from other runs of its model."""

    model: str
    detail: str
    records: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.model} ({self.detail})" if self.detail else self.model


def draw(lines: Sequence[Line], panels: Sequence[str] = tuple(PANELS), width: float = figures.WIDTH) -> Figure:
    """Draw the `panels` of runs against the iteration, one line per run, in a figure `width` inches wide.

    More than `MOST_LINES` runs are drawn in small axes per model on a common scale, each with the best run in grey.

    Raises:
        TinyImageNetError: nothing is recorded.
    """
    panels_drawn = [panel for panel in panels if _recorded(lines, panel)]
    if not panels_drawn:
        names = ", ".join(line.name for line in lines) or "no run was given"
        raise TinyImageNetError(f"no {' or '.join(panels)} record to draw ({names}): train first with tools/train.py")
    if len(lines) > MOST_LINES:
        return _by_model(lines, panels_drawn, width)
    return _together(lines, panels, width)


def _together(lines: Sequence[Line], panels: Sequence[str], width: float) -> Figure:
    rows = len(panels) if width < 2 * figures.NARROWEST else 1
    width = min(width, 4.3) if len(panels) == 1 else width
    recorded = [any(_recorded([line], panel) for panel in panels) for line in lines]
    labels = [f"{line.name}{'' if known else ' (no record yet)'}" for line, known in zip(lines, recorded)]
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(width, 3.0 if rows == 1 else 2.3 * rows), layout="constrained")
        for axes, panel in zip(np.ravel(figure.subplots(rows, len(panels) // rows)), panels):
            _plot(axes, panel, lines, labels)
            axes.set(xlabel="Iteration", **_limits(lines, panel))
            axes.set_title(PANELS[panel], loc="left")
        if len(lines) > 1:
            figures.legend_below(figure, figure.axes[-1].lines)
        else:
            figure.suptitle(figures.plain(lines[0].name), x=0.01, ha="left", fontsize=9)
    return figure


def _by_model(lines: Sequence[Line], panels: Sequence[str], width: float) -> Figure:
    best = max(lines, key=lambda line: max(_points(line.records, "top1")[1], default=0))
    parts = _parts(lines)
    names = [[line.detail or line.model for line in part] for part in parts]
    longest = max(names, key=len)
    alike = all(own == longest[: len(own)] for own in names)  # one legend serves all axes
    rows = math.ceil(len(parts) / int(width / (_CELL[0] if alike else 1.5 * _CELL[0])))
    across = math.ceil(len(parts) / rows)
    height = 0.5 + _CELL[1] * rows
    with rc_context({**figures.STYLE, **_SMALL}):
        figure = Figure(figsize=(width, 0.5 + height * len(panels)), layout="constrained")
        for block, panel in zip(np.ravel(figure.subfigures(len(panels), 1)), panels):
            block.suptitle(PANELS[panel], x=0.01, ha="left", fontsize=9, fontweight="bold")
            block.supxlabel("Iteration", fontsize=7)
            grid = block.subplots(rows, across, sharex=True, sharey=True, squeeze=False)
            for axes, part, labels in zip(grid.flat, parts, names):
                _plot(axes, panel, part, labels)
                axes.set(**_limits(lines, panel))
                axes.set_title(figures.plain(part[0].model), loc="left")
                axes.locator_params(nbins=4)
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 20k: there is no room for five digits
                if not alike:
                    axes.legend(fontsize=6, handlelength=1, borderpad=0, labelspacing=0.2)
                if best not in part:
                    axes.plot(*_drawn(best, panel), color=figures.INK, alpha=0.35, linewidth=1, zorder=1)
            for number in range(len(parts), grid.size):
                grid.flat[number].remove()
                grid.flat[number - across].tick_params(labelbottom=True)
        if alike:
            figures.legend_below(figure, figure.axes[parts.index(max(parts, key=len))].lines[: len(longest)])
        note = f"The axes are the same; the grey line is {best.name}."
        figure.supxlabel(figures.plain(textwrap.fill(note, int(15 * width))), fontsize=7.5)
    return figure


def _parts(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each small axes: those of one model, at most one per colour."""
    models: dict[str, list[Line]] = {}
    for line in lines:
        models.setdefault(line.model, []).append(line)
    return [own[at : at + COLOURS] for own in models.values() for at in range(0, len(own), COLOURS)]


def _plot(axes: Axes, panel: str, lines: Sequence[Line], labels: Sequence[str]) -> None:
    """Draw lines in different colours and, once all colours are used, with different dashes and markers."""
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
    """The limits of the axes: both start at 0, and the iterations are those of all panels."""
    last = max((max(_points(line.records, each)[0], default=0) for line in lines for each in PANELS), default=0)
    highest = max((max(_drawn(line, panel)[1], default=0) for line in lines), default=0)
    return {"xlim": (0, 1.02 * max(last, 1)), "ylim": (0, 1.05 * highest or 1)}


def _recorded(lines: Sequence[Line], panel: str) -> bool:
    return any(len(_points(line.records, panel)[0]) for line in lines)


def _points(records: Sequence[Mapping[str, Any]], panel: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted iterations and values of the records that have both; a later record replaces an earlier one."""
    found = {record.get("iteration"): record.get(panel) for record in records if record.get(panel) is not None}
    points = sorted((at, value) for at, value in found.items() if at is not None and math.isfinite(value))
    return np.array([at for at, _ in points], float), np.array([value for _, value in points], float)


def _drawn(line: Line, panel: str) -> tuple[np.ndarray, np.ndarray]:
    """The points to draw: top-1 in per cent, a long loss curve as means of neighbours."""
    iterations, values = _points(line.records, panel)
    if panel == "top1":
        return iterations, 100 * values
    if len(values) <= POINTS:
        return iterations, values
    edges = np.linspace(0, len(values), POINTS + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, len(values)))
    return np.add.reduceat(iterations, edges) / sizes, np.add.reduceat(values, edges) / sizes
