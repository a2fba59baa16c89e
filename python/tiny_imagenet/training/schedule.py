"""When the learning rate drops and when training ends (section 5.2.1; open points e and l)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Plateau:
    """Drops the rate when validation top-1 has not improved for `patience` epochs; ends with the last of `drops` times.

    Attributes:
        factor: that the rate is multiplied by; the loop does that.
        patience: epochs without a better top-1 before a drop; 0: never.
        drops: at the so-manieth time training ends in place of another drop.
        best: the best top-1 so far, from 0 to 1.
        waited: epochs since it was reached, or since the last drop.
        dropped: drops so far.
    """

    factor: float
    patience: int
    drops: int
    best: float = -math.inf
    waited: int = 0
    dropped: int = 0

    @property
    def epochs(self) -> str:
        """`patience` as people say it."""
        return "an epoch" if self.patience == 1 else f"{self.patience} epochs"

    @property
    def times(self) -> str:
        """`drops` as people say it."""
        return "once" if self.drops == 1 else f"{self.drops} times"

    def update(self, top1: float) -> str:
        """Take the top-1 of an epoch; what to do now: "best", "wait", "drop" or "stop".

        Equal is not better, and neither is a NaN.
        """
        if top1 > self.best:
            self.best, self.waited = top1, 0
            return "best"
        self.waited += 1
        if not self.patience or self.waited < self.patience:
            return "wait"
        self.waited = 0
        self.dropped += 1
        return "stop" if self.dropped >= self.drops else "drop"

    def state(self) -> dict[str, Any]:
        """All of it as JSON; `Plateau.of` makes the same from it."""
        return {**dataclasses.asdict(self), "best": self.best if math.isfinite(self.best) else None}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Plateau:
        """What `state` said."""
        return cls(**{**state, "best": -math.inf if state["best"] is None else state["best"]})
