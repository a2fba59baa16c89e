"""What a process of `supervisor` does: it takes part in a training as one of the ranks, and says how that ended."""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

import caffe

from tiny_imagenet import linked_process
from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.outcomes import Outcome
from tiny_imagenet.training import train
from tiny_imagenet.training.supervisor import Work


class _Told:
    """The supervisor's wish to stop, as training asks for it; without a supervisor this process ends.

    Attributes:
        signal: as `stop.StopRequest`.
    """

    def __init__(self, link: Connection):
        self.signal = ""
        self._link = link
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self.signal = self._link.recv()
            except (EOFError, OSError):
                os._exit(1)


def main(descriptor: int) -> None:
    """Take part; `descriptor` is the link to the supervisor. Does not return."""
    link = Connection(descriptor)
    work: Work = link.recv()
    try:
        outcome = Outcome(_take_part(work, _Told(link)))
    except BaseException as error:
        # Within: after it the solver would go, and NCCL wait for ranks that stay.
        linked_process.leave(link, _of_error(error))
    linked_process.leave(link, outcome)


def _take_part(work: Work, told: _Told) -> dict[str, Any]:
    module, function = work.transport.split(":")
    connect = getattr(importlib.import_module(module), function)
    ranks = connect(work.rank, work.names, [Connection(link) for link in work.links])
    return train.take_part(ranks, work.source, work.options, work.argv, told)


def _of_error(error: BaseException) -> Outcome:
    if isinstance(error, TinyImageNetError):
        return Outcome.of_error(error)
    if isinstance(error, (caffe.CaffeError, MemoryError, OSError)):
        return Outcome(text=str(error) or type(error).__name__)
    traceback.print_exc()
    return Outcome(text=f"{type(error).__name__}: {error}")
