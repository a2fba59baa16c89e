"""A process of this machine that another one has started, and the link on which it is told and tells."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from tiny_imagenet.outcomes import Outcome

GRACE = 5.0  # seconds from the end of the link to a process to its own end

_CHILD = "import sys; sys.path[:] = {path!r}; from tiny_imagenet.{module} import main; main({fd})"


class LinkedProcess:
    """The process, as the one sees it that has started it.

    Attributes:
        link: to it; there is something to receive once it has ended.
    """

    def __init__(
        self,
        module: str,
        work: Any,
        descriptors: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        silent: bool = False,
    ):
        """Start it.

        Args:
            module: of this package; its `main` is called with the descriptor of the process's end of the link.
            work: what it is told first.
            descriptors: others that it is to have.
            environment: of the process; None for that of this one.
            silent: it may not print.
        """
        ours, its = socket.socketpair()
        code = _CHILD.format(path=sys.path, module=module, fd=its.fileno())
        # A session of its own: Ctrl-C comes to the one that has started it, who passes it on.
        self._process = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],
            pass_fds=[its.fileno(), *descriptors],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if silent else None,
            stderr=subprocess.DEVNULL if silent else None,
            start_new_session=True,
            env=environment,
        )
        its.close()
        self.link = Connection(ours.detach())
        self.tell(work)

    def tell(self, what: Any) -> None:
        """Tell it something; that it has gone, `outcome` says."""
        with contextlib.suppress(OSError):
            self.link.send(what)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self._process.terminate()

    def outcome(self) -> Outcome | None:
        """How its work has ended, as it says; None where it has gone without a word. The link is ready."""
        with contextlib.suppress(EOFError, OSError):
            return self.link.recv()
        return None

    def fate(self) -> str:
        """What has become of it, where it has gone without a word: words that follow "it" or "its process"."""
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "no longer answers"
        if status >= 0:
            return f"ended with status {status}"
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        perhaps = ", which the system sends where memory runs out" if name == "SIGKILL" else ""
        return f"was ended by {name}{perhaps}"

    def close(self) -> None:
        """End it at once where it has not ended."""
        self._process.kill()
        self._process.wait()
        self.link.close()


def leave(link: Connection, outcome: Outcome) -> NoReturn:
    """End this process, and say how its work has ended to the one that has started it."""
    sys.stdout.flush()
    sys.stderr.flush()
    link.send(outcome)
    os._exit(0)  # at once: NCCL and CUDA would first wait for processes that are gone
