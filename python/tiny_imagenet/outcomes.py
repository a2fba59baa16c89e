"""How the work of a process has ended, as it says to another that waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tiny_imagenet import errors
from tiny_imagenet.errors import Stopped, TinyImageNetError


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
