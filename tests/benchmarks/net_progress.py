"""Shows what is measured at the moment: a bar on a terminal, a line for each measurement elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tiny_imagenet import cli

T = TypeVar("T")


def shown(turns: Sequence[T], name: Callable[[T], str]) -> Iterator[T]:
    """Yield `turns`; before each, its name is shown."""
    if not sys.stderr.isatty():
        for number, turn in enumerate(turns, 1):
            cli.note(f"{number} of {len(turns)}: {name(turn)}")
            yield turn
        return
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(turns))
        for turn in turns:
            progress.update(bar, description=name(turn))
            yield turn
            progress.advance(bar)
