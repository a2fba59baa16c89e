"""What all figures share: their look, names and legends, and how they become files, drawn without a display.

`save` and `svg` turn a matplotlib Figure into a file or text, the same bytes for the same figure (pyplot's global state
is not touched). Colours are Okabe and Ito's, safe for colour-blind eyes.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.files import atomic_file

INK = "#1c1d1f"  # text and axes; the report swaps it for the page's own colour
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # tells curves apart once the colours have all been used
ENDINGS = (".png", ".svg")
WIDTH = 7.0  # inches: a page's; a column of two has about 3.3
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
