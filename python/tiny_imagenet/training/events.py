"""TensorBoard events, written as they come: a disk that is full is an error here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar


class Events:
    """An event file of its own in a folder of event files."""

    def __init__(self, folder: Path, iteration: int):
        """`iteration` is the last one of the files that are there: what they say beyond it is void."""
        folder.mkdir(parents=True, exist_ok=True)
        again = any(folder.iterdir())
        self._writer = EventsWriter(os.fspath(folder / "events"), f".{os.getpid()}.{iteration}")
        if again:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(session_log=start), iteration + 1)

    def add(self, values: Mapping[str, float], iteration: int) -> None:
        """Write numbers by their names."""
        for name, value in values.items():
            self._write(event_pb2.Event(summary=scalar(name, value)), iteration)
        self._writer.flush()

    def _write(self, event: event_pb2.Event, iteration: int) -> None:
        event.wall_time, event.step = time.time(), iteration
        self._writer.write_event(event)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
