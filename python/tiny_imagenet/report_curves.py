"""A page's training curves: a figure of all runs where their colours tell them apart, else a small one a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tiny_imagenet import figures
from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.report_values import inline

MOST_LINES = len(figures.PALETTE)  # of a figure: each has a colour
_SMALL = (3.0, 2.1)  # inches: width and height of a small figure


@dataclass(frozen=True)
class Line:
    """A run's records; `detail` tells it from the other runs of its model, where there are any."""

    model: str
    detail: str
    records: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.model} ({self.detail})" if self.detail else self.model


def draw(lines: Sequence[Line], best: Line) -> list[dict[str, Any]]:
    """The panels of `figures.PANELS` of which there are records: `title`, `figures`, `small` (whether they are many).

    Small figures have the same axes, and in each the `best` of all lines is drawn in grey, to compare the others with.
    """
    parts = [list(lines)] if len(lines) <= MOST_LINES else _parts(lines)
    found = []
    for panel, title in figures.PANELS.items():
        try:
            if len(parts) == 1:
                figure = figures.curves({line.name: line.records for line in lines}, [panel])
                drawn = [svg(figure, panel, f"{title} against the iteration, a line a run")]
            else:
                drawn = _small(lines, best, parts, panel, title)
        except TinyImageNetError:  # nothing was recorded, which the page says
            continue
        found.append({"title": title, "figures": drawn, "small": len(parts) > 1, "best": best.name})
    return found


def svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as part of a page, in the page's text colour."""
    return inline(figures.svg(figure).replace(figures.INK, "currentColor"), prefix, label)


def _parts(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each small figure: those of a model, as many as there are colours."""
    models: dict[str, list[Line]] = {}
    for line in lines:
        models.setdefault(line.model, []).append(line)
    return [own[at : at + MOST_LINES] for own in models.values() for at in range(0, len(own), MOST_LINES)]


def _small(lines: Sequence[Line], best: Line, parts: Sequence[Sequence[Line]], panel: str, title: str) -> list[Markup]:
    found: list[tuple[Sequence[Line], Figure]] = []
    whole = figures.curves({line.name: line.records for line in lines}, [panel])
    for part in parts:
        try:
            runs = {line.detail or line.model: line.records for line in part}
            found.append((part, figures.curves(runs, [panel], _SMALL[0])))
        except TinyImageNetError:  # nothing was recorded of this model
            continue
    limits = {"xlim": whole.axes[0].get_xlim(), "ylim": whole.axes[0].get_ylim()}
    compared = whole.axes[0].lines[lines.index(best)].get_xydata()
    drawn = []
    for number, (part, figure) in enumerate(found, 1):
        figure.set_figheight(_SMALL[1])
        (axes,) = figure.axes
        axes.set_title(figures.plain(part[0].model), loc="left")
        axes.set(**limits)
        if best not in part:
            axes.plot(*compared.T, color=figures.INK, alpha=0.35, linewidth=1, zorder=1)
        drawn.append(
            svg(figure, f"{panel}-{number}", f"{title} of {part[0].model} against the iteration, a line a run")
        )
    return drawn
