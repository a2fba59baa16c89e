"""What an experiment consists of: steps, of which some need others. Here they are taken one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import Stopped, TinyImageNetError
from tiny_imagenet.stop import StopRequest


@dataclass(frozen=True)
class Step:
    """A piece of an experiment that a process can do by itself.

    Attributes:
        name: for people; no two steps of an experiment share one.
        call: a function of a module, which is called with `arguments` and `stop`.
        arguments: what can be pickled.
        needs: the names of steps that must have succeeded before.
        run: the run folder that it writes into, which nothing else may do at the same time.
        quick: whether it takes next to no time, so that there is no use in another process for it.
    """

    name: str
    call: Callable[..., Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    run: Path | None = None
    quick: bool = False

    def __call__(self, stop: StopRequest) -> Any:
        """Do it in this process."""
        return self.call(**self.arguments, stop=stop)


def run(steps: list[Step], stop: StopRequest) -> Iterator[tuple[Step, Any]]:
    """Take the steps in their order; yield each with its result, or with the TinyImageNetError that it ended with.

    A step that needs one that failed is left out.

    Raises:
        Stopped: `stop` has a signal.
    """
    failed: set[str] = set()
    for step in steps:
        if failed.intersection(step.needs):
            failed.add(step.name)
            continue
        try:
            result = step(stop)
        except Stopped:
            raise
        except TinyImageNetError as error:
            failed.add(step.name)
            result = error
        yield step, result
