"""Ctrl-C, SIGTERM and SIGHUP as a stop flag polled by the training loop between two iterations.

`end_with_parent` ends a child process with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading

from tiny_imagenet import cli

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # mpirun forwards SIGUSR1 to all ranks
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, even within a call to CUDA or NCCL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class StopRequest:
    """Note the first stop signal while entered; a second Ctrl-C ends the process at once.

    A thread watches the signals, since Python handles none during an iteration in C++. In a notebook nothing ends the
    process. Signals that the process ignores (nohup, background jobs of a script) stay ignored. Outside the main
    thread, where Python allows no handlers, entering has no effect.

    Attributes:
        signal: name of the first signal, or "".
    """

    def __init__(self) -> None:
        self.signal = ""
        self._handlers: dict[int, object] = {}
        self._entered = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._ours, self._pythons = socket.socketpair()
        self._pythons.setblocking(False)
        self._fd = signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        # Python writes signals that have a handler to the socket; this handler has nothing to add.
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in heeded}
        self._entered = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._entered:
            return
        self._entered = False
        for number, handler in self._handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._fd)
        self._pythons.close()  # ends the thread
        self._thread.join()
        self._ours.close()

    def _watch(self) -> None:
        while received := self._ours.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
            if self.signal and number == signal.SIGINT and not interactive:
                if sys.stderr.isatty():
                    os.write(2, b"\x1b[?25h\n")  # the live line has hidden the cursor
                os._exit(128 + number)
            if not self.signal:
                self.signal = signal.Signals(number).name
                again = "" if interactive else "; Ctrl-C again ends at once"
                cli.note(f"{self.signal}: stopping after this iteration with a checkpoint{again}")
