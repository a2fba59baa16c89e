"""What the benchmarks' tables are printed on, and how a pair of figures stands in them."""

from __future__ import annotations

from rich import box
from rich.console import Console

WIDTH = 150  # columns that the tables take


def page() -> tuple[Console, box.Box | None]:
    """A console that is wide enough, and the border of its tables; plain text where stdout is no terminal."""
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, WIDTH)
    return console, box.SIMPLE_HEAD if console.is_terminal else None


def pair(values: dict[str, float], digits: int) -> str:
    """The best and, in brackets, the median."""
    return f"{values['best']:.{digits}f} ({values['median']:.{digits}f})"
