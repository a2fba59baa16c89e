"""How a process has ended that another one started and waits for: what it says of that, or what shows."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import dataclass
from typing import Any

from tiny_imagenet import errors
from tiny_imagenet.errors import Stopped, TinyImageNetError

GRACE = 5.0  # seconds from the end of the link to a process to its own end


@dataclass(frozen=True)
class Outcome:
    """What it says; it stands for an exception too, whose class need not be there where it is sent.

    Attributes:
        result: what its work returned; None where that failed.
        error: the class of `errors` that it raised, "" for none of them.
        text: what went wrong.
        status: of that error.
    """

    result: Any = None
    error: str = ""
    text: str = ""
    status: int = 1

    @classmethod
    def of_error(cls, error: TinyImageNetError) -> Outcome:
        """What stands for an error of ours."""
        return cls(error=type(error).__name__, text=str(error), status=getattr(error, "status", 1))

    def value(self) -> Any:
        """The result, or the error as an exception (not raised)."""
        if not self.error:
            return self.result
        if self.error == "Stopped":
            return Stopped(self.text, self.status - 128)
        return getattr(errors, self.error)(self.text)


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
