"""Progress of a training: a live line on a terminal, train.log, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from tiny_imagenet import cli
from tiny_imagenet.errors import RunError
from tiny_imagenet.runs import Run

PLAIN_EVERY = 10.0  # seconds between two progress lines in train.log, and on stderr without a terminal
LIVE_EVERY = 0.2  # seconds between two updates of the live line
AVERAGED = 20  # iterations whose loss the live line averages


class Progress:
    """Progress without output, for all ranks but 0; rank 0 has `RunProgress`."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str, warning: bool = False) -> None:
        """Print a line and add it to train.log."""

    def step(self, iteration: int, loss: float, rate: float) -> None:
        """Show an iteration's loss and learning rate."""

    def record(self, iteration: int, rate: float, loss: float | None, values: Mapping[str, float]) -> dict[str, Any]:
        """Write a record to metrics.jsonl and the events, and return it; `values` are the scores of a validation."""
        return {}

    def validated(self, record: Mapping[str, Any], verdict: str, seconds: float) -> None:
        """Print the line of a validation."""

    def restart_clock(self, iteration: int) -> None:
        """Measure images per second from here: validation and checkpoints are not training."""


class RunProgress(Progress):
    """Progress of a run.

    Args:
        run: the run folder; a file that cannot be written is a RunError.
        start: iterations done in earlier sessions.
        total: iterations of the whole training.
        epoch: iterations per epoch.
        batch: images per iteration.
        quiet: print only warnings.
    """

    def __init__(self, run: Run, start: int, total: int, epoch: int, batch: int, quiet: bool = False):
        self._run, self._start, self._total, self._epoch, self._batch = run, start, total, epoch, batch
        self._quiet = quiet
        self._live: Any = None
        self._wide = True
        self._shown = self._logged = self._began = time.monotonic()
        self._lately: collections.deque[float] = collections.deque(maxlen=AVERAGED)
        self.restart_clock(start)
        with self._writing():
            self._log = open(run.log_file, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by __exit__)
            self._events = _events(run.events, start)

    def __enter__(self) -> RunProgress:
        if sys.stderr.isatty() and not self._quiet:
            from rich import progress
            from rich.console import Console

            console = Console(stderr=True)
            self._wide = console.width >= 110
            columns = [progress.TextColumn("{task.description}", markup=False, style="bold")]
            columns += [progress.BarColumn(20)] if self._wide else []
            columns += [progress.TextColumn("{task.fields[state]}", markup=False)]
            self._live = progress.Progress(*columns, console=console, transient=True)
            self._bar = self._live.add_task(self._run.info["model"], total=self._total, state="")
            self._live.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._live:
            self._live.stop()
        with contextlib.suppress(OSError):  # reported already, or about to be
            self._events.close()
        with contextlib.suppress(OSError), self._log:
            if error is not None:
                self._write(f"ended by {type(error).__name__}: {error}")

    def note(self, text: str, warning: bool = False) -> None:
        with self._writing():
            self._write(text)
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(text), soft_wrap=True)
        elif warning or not self._quiet:
            cli.note(text)

    def step(self, iteration: int, loss: float, rate: float) -> None:
        self._lately.append(loss)
        now = time.monotonic()
        live, plain = self._live and now - self._shown > LIVE_EVERY, now - self._logged > PLAIN_EVERY
        if not live and not plain:
            return
        loss = sum(self._lately) / len(self._lately)
        speed = self._speed(iteration) or 0
        left = duration((now - self._began) / (iteration - self._start) * (self._total - iteration))
        epoch = iteration / self._epoch
        state = f"iteration {iteration}/{self._total}, epoch {epoch:.2f}, loss {loss:.4f}, rate {rate:g}"
        state += f", {speed:.1f} images/s, {left} left"
        if live:
            self._shown = now
            short = (
                f"{iteration}/{self._total} epoch {epoch:.2f} loss {loss:.3f} rate {rate:g} {speed:.0f}/s {left} left"
            )
            self._live.update(self._bar, completed=iteration, state=state if self._wide else short)
        if plain:
            self._logged = now
            with self._writing():
                self._write(state)
            if not self._live and not self._quiet:
                cli.note(state)

    def record(self, iteration: int, rate: float, loss: float | None, values: Mapping[str, float]) -> dict[str, Any]:
        scores = {"learning_rate": rate, "train_loss": loss, "images_per_second": self._speed(iteration), **values}
        record = {"iteration": iteration, "epoch": round(iteration / self._epoch, 4), **scores}
        self._run.log(record)
        with self._writing():
            for name, value in scores.items():
                if value is not None:
                    self._event(event_pb2.Event(summary=scalar(name, value)), iteration)
            self._events.flush()
        self.restart_clock(iteration)
        return record

    def validated(self, record: Mapping[str, Any], verdict: str, seconds: float) -> None:
        loss = "" if record["train_loss"] is None else f"training loss {record['train_loss']:.4f}, "
        speed = f", {record['images_per_second']:.1f} images/s" if record["images_per_second"] else ""
        self.note(
            f"iteration {record['iteration']} (epoch {record['epoch']:g}): {loss}validation loss "
            f"{record['validation_loss']:.4f}, top-1 {100 * record['top1']:.2f} %"
            f"{' (best)' if verdict == 'best' else ''}{speed}, {duration(seconds)}"
        )

    def restart_clock(self, iteration: int) -> None:
        self._clock, self._clock_iteration = time.monotonic(), iteration

    def _speed(self, iteration: int) -> float | None:
        images = (iteration - self._clock_iteration) * self._batch
        return round(images / (time.monotonic() - self._clock), 2) if images else None

    def _event(self, event: event_pb2.Event, iteration: int) -> None:
        event.wall_time, event.step = time.time(), iteration
        self._events.write_event(event)

    def _write(self, text: str) -> None:
        self._log.write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {text}\n")

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise RunError(f"cannot write into {self._run.path}: {error.strerror or error}") from error


def _events(folder: Path, iteration: int) -> EventsWriter:
    """A new event file; TensorBoard ignores what earlier files have after `iteration`."""
    folder.mkdir(parents=True, exist_ok=True)
    again = any(folder.iterdir())
    writer = EventsWriter(os.fspath(folder / "events"), f".{os.getpid()}.{iteration}")
    if again:
        start = event_pb2.Event(session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))
        start.wall_time, start.step = time.time(), iteration + 1
        writer.write_event(start)
    return writer


def duration(seconds: float) -> str:
    """Return a time in words: "41 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
