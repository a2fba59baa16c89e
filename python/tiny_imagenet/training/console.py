"""What a person sees of a training: a live line on a terminal, plain lines elsewhere and in the log file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from tiny_imagenet import cli

PLAIN_EVERY = 10.0  # seconds between two lines of how far it is, where there is no terminal and in the log
LIVE_EVERY = 0.2  # between two changes of the live line


class Console:
    """Lines for people.

    Args:
        log: the file that all lines are added to; one that cannot be written is an OSError.
        name: of what is trained.
        total: iterations in all.
        quiet: nothing on stderr but warnings.
    """

    def __init__(self, log: Path, name: str, total: int, quiet: bool = False):
        self._log = open(log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by __exit__)
        self._name, self._total, self._quiet = name, total, quiet
        self._progress: Any = None
        self._wide = True
        self._live = self._plain = time.monotonic()

    def __enter__(self) -> Console:
        if sys.stderr.isatty() and not self._quiet:
            from rich import progress
            from rich.console import Console as Terminal

            terminal = Terminal(stderr=True)
            self._wide = terminal.width >= 110
            bar = [progress.BarColumn(20)] if self._wide else []
            name = progress.TextColumn("{task.description}", markup=False, style="bold")
            state = progress.TextColumn("{task.fields[state]}", markup=False)
            shown = progress.Progress(name, *bar, state, console=terminal, transient=True)
            self._task = shown.add_task(self._name, total=self._total, state="")
            shown.start()
            self._progress = shown
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._progress:
            self._progress.stop()
        with contextlib.suppress(OSError), self._log:  # what cannot be written has been said, or is the error
            if error is not None:
                self._write(f"ended by {type(error).__name__}: {error}")

    def say(self, text: str, warning: bool = False) -> None:
        """A line that stays."""
        self._write(text)
        if self._progress:
            from rich.text import Text

            self._progress.console.print(Text(text), soft_wrap=True)
        elif warning or not self._quiet:
            cli.note(text)

    def show(self, iteration: int, epoch: float, loss: float, rate: float, speed: float, left: float) -> None:
        """How far it is; called after each iteration, it shows what people can follow.

        Args:
            iteration: iterations done.
            epoch: epochs done.
            loss: of training, lately.
            rate: the learning rate.
            speed: images a second.
            left: seconds to the end, should it go on like this.
        """
        now = time.monotonic()
        live, plain = self._progress and now - self._live > LIVE_EVERY, now - self._plain > PLAIN_EVERY
        if not live and not plain:
            return
        state = f"iteration {iteration}/{self._total}, epoch {epoch:.2f}, loss {loss:.4f}, rate {rate:g}"
        state += f", {speed:.1f} images/s, {duration(left)} left"
        if live:
            self._live = now
            short = f"{iteration}/{self._total} epoch {epoch:.2f} loss {loss:.3f} rate {rate:g} {speed:.0f}/s "
            shown = state if self._wide else f"{short}{duration(left)} left"
            self._progress.update(self._task, completed=iteration, state=shown)
        if plain:
            self._plain = now
            self._write(state)
            if not self._progress and not self._quiet:
                cli.note(state)

    def _write(self, text: str) -> None:
        self._log.write(_stamped(text))


def add_line(log: Path, text: str) -> None:
    """Add a line to a log file that no Console has open any more; one that cannot be written stays as it is."""
    with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as stream:
        stream.write(_stamped(text))


def show_cursor() -> None:
    """Let the cursor show again that the live line of a process has hidden which did not end by itself."""
    if sys.stderr.isatty():
        os.write(2, b"\r\x1b[K\x1b[?25h")


def _stamped(text: str) -> str:
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {text}\n"


def duration(seconds: float) -> str:
    """A time as people say it: "41 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
