"""A step of an experiment in a process of its own, which a process that does not compute starts, watches and ends.

The worker of a cluster that asks for the step loads neither Caffe nor a GPU's memory, and outlives a step that crashes.
The other way round, a step whose worker is gone ends at once: somebody else is going to be asked for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection

from tiny_imagenet import linked_process
from tiny_imagenet.errors import StepLostError, TinyImageNetError
from tiny_imagenet.linked_process import LinkedProcess
from tiny_imagenet.outcomes import Outcome
from tiny_imagenet.stop import StopRequest


class StepProcess:
    """A process that does a step."""

    def __init__(self, step: bytes, environment: Mapping[str, str], silent: bool = False):
        """Start it; `step` is a pickled `graph.Step`, `environment` that of the process; `silent`: it may not print."""
        self._process = LinkedProcess("experiment.step_process", step, environment=environment, silent=silent)

    def outcome(self, seconds: float) -> Outcome | None:
        """Wait so long for its end; None where it goes on.

        Raises:
            StepLostError: it was killed, or has crashed.
        """
        if not self._process.link.poll(seconds):
            return None
        outcome = self._process.outcome()
        if outcome is None:
            raise StepLostError(f"its process {self._process.fate()}")
        return outcome

    def stop(self) -> None:
        """Ask it to end with a checkpoint."""
        self._process.terminate()

    def close(self) -> None:
        """End it at once where it has not ended."""
        self._process.close()


def main(descriptor: int) -> None:
    """What the process does; `descriptor` is the link to the one that started it. Does not return."""
    link = Connection(descriptor)
    with StopRequest() as stop:
        packed = link.recv()
        threading.Thread(target=_leave_with, args=(link,), daemon=True).start()
        outcome = _outcome(packed, stop)
    linked_process.leave(link, outcome)


def _leave_with(link: Connection) -> None:
    """End this process when the other end is gone: nobody waits for it, and half a checkpoint does not count."""
    with contextlib.suppress(EOFError, OSError):
        link.recv()
    os._exit(1)


def _outcome(packed: bytes, stop: StopRequest) -> Outcome:
    try:
        return Outcome(pickle.loads(packed)(stop))
    except TinyImageNetError as error:
        return Outcome.of_error(error)
    except BaseException as error:  # of Caffe, the memory, the disk
        traceback.print_exc()
        return Outcome(error="TinyImageNetError", text=f"{type(error).__name__}: {error}")
