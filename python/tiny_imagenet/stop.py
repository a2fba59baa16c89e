"""Ctrl-C, SIGTERM and SIGHUP as a wish that the training loop asks for, between two iterations."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from tiny_imagenet import cli

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # mpirun forwards SIGUSR1 to all ranks


class StopRequest:
    """While it is entered, the first of these signals is noted, and a second Ctrl-C ends the process at once.

    At once means also in the midst of an iteration, in which Python itself does not look at signals: a thread of its
    own does. In an interactive Python (a notebook) nothing ends the process. Signals that the process was told to
    ignore (nohup, a script's background jobs) stay ignored. Outside of the main thread, where Python takes no signals,
    it does nothing.

    Attributes:
        signal: the name of the first signal, "" while there is none.
    """

    def __init__(self):
        self.signal = ""
        self._before: dict[int, object] = {}
        self._entered = False

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._ours, self._pythons = socket.socketpair()
        self._pythons.setblocking(False)
        self._fd = signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)
        # Python writes to the socket for signals that have a handler; this one has nothing to add.
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, lambda *_: None) for number in heeded}
        self._entered = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._entered:
            return
        self._entered = False
        for number, handler in self._before.items():
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
                cli.note(f"{self.signal}: ending after this iteration with a checkpoint{again}")
