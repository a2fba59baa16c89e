"""A page's training curves: a figure of all runs where their colours tell them apart, else a small one a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.report import curves_figure, figures
from tiny_imagenet.report.curves_figure import Line
from tiny_imagenet.report.values import inline


def draw(lines: Sequence[Line], best: Line) -> list[dict[str, Any]]:
    """The panels of `curves_figure.PANELS` of which there are records: `title`, `figures`, `small` (whether they are
    many) and `best`, the name of the line that is grey in small ones.
    """
    small = len(lines) > curves_figure.COLOURS
    found = []
    for panel, title in curves_figure.PANELS.items():
        what = f"{title}{{}} against the iteration, a line a run"
        if small:
            several = enumerate(curves_figure.small(lines, best, panel), 1)
            drawn = [svg(one, f"{panel}-{n}", what.format(f" of {model}")) for n, (model, one) in several]
        else:
            try:
                figure = curves_figure.curves({line.name: line.records for line in lines}, [panel])
            except TinyImageNetError:  # nothing was recorded, which the page says
                continue
            drawn = [svg(figure, panel, what.format(""))]
        if drawn:
            found.append({"title": title, "figures": drawn, "small": small, "best": best.name})
    return found


def svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as part of a page, in the page's text colour."""
    return inline(figures.svg(figure).replace(figures.INK, "currentColor"), prefix, label)
