"""A step of an experiment in a process of its own, which a process that does not compute starts, watches and ends.

The worker of a cluster that asks for the step loads neither Caffe nor a GPU's memory, and outlives a step that crashes.
The other way round, a step whose worker is gone ends at once: somebody else is going to be asked for it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection

from tiny_imagenet import errors, outcomes
from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.outcomes import Outcome
from tiny_imagenet.stop import StopRequest

_CHILD = "import sys; sys.path[:] = {path!r}; from tiny_imagenet.cluster.step_process import main; main({fd})"


class StepProcess:
    """A process that does a step."""

    def __init__(self, step: bytes, environment: Mapping[str, str], silent: bool = False):
        """Start it; `step` is a pickled `graph.Step`, `environment` that of the process; `silent`: it may not print."""
        ours, its = socket.socketpair()
        code = _CHILD.format(path=sys.path, fd=its.fileno())
        # A session of its own: Ctrl-C comes to whoever asked for the experiment, who passes it on.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if silent else None,
            stderr=subprocess.DEVNULL if silent else None,
            start_new_session=True,
            env=environment,
        )
        its.close()
        self._link = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it is gone: `outcome` says so
            self._link.send_bytes(step)

    def outcome(self, seconds: float) -> Outcome | None:
        """Wait so long for its end; None where it goes on.

        Raises:
            StepLostError: it was killed, or has crashed.
        """
        if not self._link.poll(seconds):
            return None
        with contextlib.suppress(EOFError, OSError):
            return self._link.recv()
        raise errors.StepLostError(f"its process {outcomes.describe(self._process)}")

    def stop(self) -> None:
        """Ask it to end with a checkpoint."""
        self._process.terminate()

    def close(self) -> None:
        """End it at once where it has not ended."""
        self._process.kill()
        self._process.wait()
        self._link.close()


def main(descriptor: int) -> None:
    """What the process does; `descriptor` is the link to the one that started it. Does not return."""
    link = Connection(descriptor)
    with StopRequest() as stop:
        packed = link.recv_bytes()
        threading.Thread(target=_leave_with, args=(link,), daemon=True).start()
        outcome = _outcome(packed, stop)
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(outcome)
    os._exit(0)


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
