"""How a process has ended that did not say so itself."""

from __future__ import annotations

import signal
import subprocess

GRACE = 5.0  # seconds from the end of the link to a process to its own end


def describe(process: subprocess.Popen[bytes]) -> str:
    """What has become of a process whose link has ended, in words that follow "it" or "its process"."""
    try:
        status = process.wait(GRACE)
    except subprocess.TimeoutExpired:
        return "no longer answers"
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    perhaps = ", which the system sends where memory runs out" if name == "SIGKILL" else ""
    return f"was ended by {name}{perhaps}"
