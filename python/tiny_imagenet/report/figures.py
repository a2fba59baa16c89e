"""Style, text and files shared by all figures; matplotlib is used without pyplot or a display.

`save` and `svg` turn a Figure into a file or text; the same figure gives the same bytes. The colours are Okabe and
Ito's, which colour-blind readers can distinguish.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.files import atomic_file

INK = "#1c1d1f"  # text and axes; the report replaces it with the page's text colour
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # for more curves than colours
ENDINGS = (".png", ".svg")
WIDTH = 7.0  # inches: the text width of a page; a column of two has about 3.3
NARROWEST = 3.0

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


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` atomically to a .png (200 dpi, white background) or .svg file.

    Raises:
        TinyImageNetError: the name has another ending, or the file cannot be written.
    """
    check_ending(path)
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        _write(figure, stream, Path(path).suffix.lower()[1:], facecolor="white")


def check_ending(path: str | os.PathLike[str]) -> None:
    """Raise TinyImageNetError unless `path` ends in .png or .svg."""
    if Path(path).suffix.lower() not in ENDINGS:
        raise TinyImageNetError(f"{path}: expected a file name ending in {' or '.join(ENDINGS)}")


def svg(figure: Figure) -> str:
    """Return `figure` as an <svg> element with a transparent background and text kept as text."""
    stream = io.BytesIO()
    _write(figure, stream, "svg", transparent=True)
    text = stream.getvalue().decode()
    return re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def inline(text: str, prefix: str, label: str) -> Markup:
    """An <svg> element as part of a page: with ids that start with `prefix`, and as wide as its container."""
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text).replace(INK, "currentColor")
    start, rest = text[len("<svg") :].split(">", 1)
    start = re.sub(r'\s(width|height)="[^"]*"', "", start)
    return Markup('<svg role="img" aria-label="{}"').format(label) + Markup(f"{start}>{rest}")


def _write(figure: Figure, stream: io.BufferedIOBase, ending: str, **options: Any) -> None:
    FigureCanvasAgg(figure)
    metadata = {"Date": None, "Creator": None} if ending == "svg" else {"Software": None}
    with rc_context(STYLE), quiet_glyphs():
        figure.savefig(
            stream, format=ending, dpi=200, bbox_inches="tight", pad_inches=0.05, metadata=metadata, **options
        )


@contextlib.contextmanager
def quiet_glyphs() -> Iterator[None]:
    """Suppress the warning about names in a script that the font does not contain."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place of the figure given in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def legend_below(figure: Figure, handles: Sequence[Any]) -> None:
    """Add a legend of `handles` below the figure, in as many columns as fit."""
    longest = max(len(handle.get_label()) for handle in handles)
    columns = int(figure.get_figwidth() / (0.65 + 0.07 * longest))
    columns = min(max(1, columns), len(handles))
    # It lies outside the figure, which `_write` enlarges, so that the layout is not affected.
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "ncol": columns}
    figure.legend(handles=handles, fontsize=8, borderpad=0.2, handlelength=3, **place)


def fit(text: Text, width: float) -> None:
    """Shorten the text to at most `width` inches, with an ellipsis."""
    renderer = FigureCanvasAgg(text.figure).get_renderer()
    whole = text.get_text()
    with quiet_glyphs():
        for length in range(len(whole), 0, -1):
            text.set_text(whole if length == len(whole) else whole[:length].rstrip(" ,\\") + "…")
            if text.get_window_extent(renderer).width <= width * text.figure.dpi:
                return


def short(name: object) -> str:
    """The first of a class's words, shortened if it is long."""
    text = first(name)
    return text if len(text) <= 18 else text[:17] + "…"


def first(name: object) -> str:
    """The first of a class's words."""
    return str(name).split(",")[0]


def plain(name: object) -> str:
    """Escape a name that matplotlib would read as mathematics or, with a leading underscore, hide."""
    text = str(name).replace("$", r"\$")
    return " " + text if text.startswith("_") else text


def percent(share: float | Fraction) -> str:
    """A fraction in per cent with one decimal, rounded down: a value below a limit never reads as the limit."""
    tenths = math.floor(share * 1000)
    return f"{tenths // 10}.{tenths % 10} %"
