"""What a process of `supervisor` does: it takes part in a training as one of the ranks, and says how that ended."""

from __future__ import annotations

import importlib
import os
import threading
import traceback
from multiprocessing.connection import Connection

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
    linked_process.leave(link, _outcome(work, _Told(link)))


def _outcome(work: Work, told: _Told) -> Outcome:
    try:
        module, function = work.transport.split(":")
        connect = getattr(importlib.import_module(module), function)
        ranks = connect(work.rank, work.names, [Connection(link) for link in work.links])
        return Outcome(train.take_part(ranks, work.source, work.options, work.argv, told))
    except TinyImageNetError as error:
        return Outcome.of_error(error)
    except (caffe.CaffeError, MemoryError, OSError) as error:
        return Outcome(text=str(error) or type(error).__name__)
    except BaseException as error:
        traceback.print_exc()
        return Outcome(text=f"{type(error).__name__}: {error}")
