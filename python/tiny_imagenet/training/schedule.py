"""Learning-rate schedules: plateau (section 5.2.1 of the paper), cosine, and the solver's own lr_policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Schedule:
    """Leave the rate to the solver's lr_policy; base class of the other schedules.

    Attributes:
        base_lr: the solver's base_lr.
        max_iter: iterations after which training ends.
        best: best validation top-1 so far, from 0 to 1.
    """

    base_lr: float
    max_iter: int
    best: float = -math.inf

    def rate(self, iteration: int) -> float:
        """Return the base_lr of the update that follows `iteration` updates."""
        return self.base_lr

    def update(self, top1: float) -> str:
        """Take the top-1 of a validation and return "best", "wait", "drop" (of the rate) or "stop" (training).

        An equal top-1 is not better, and neither is NaN.
        """
        better = top1 > self.best
        self.best = top1 if better else self.best
        return "best" if better else "wait"

    def state(self) -> dict[str, Any]:
        """Return the schedule as JSON, for `load_state`."""
        return {**asdict(self), "best": self.best if math.isfinite(self.best) else None}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; settings such as the length or the number of drops stay those of this object."""
        self.best = -math.inf if state["best"] is None else state["best"]

    def describe(self) -> str:
        """Return the schedule as a phrase."""
        return f"set by the solver's lr_policy, to iteration {self.max_iter}"


@dataclass
class Plateau(Schedule):
    """Multiply the rate when validation top-1 stops improving; stop when that has happened several times.

    Attributes:
        factor: multiplies the rate at each drop.
        patience: epochs without a better top-1 before a drop; 0 keeps the rate.
        drops: number of plateaus before training stops; there is no drop at the last one.
        waited: epochs since the best top-1 or the last drop.
        dropped: plateaus so far.
    """

    factor: float = 0.1
    patience: int = 5
    drops: int = 3
    waited: int = 0
    dropped: int = 0

    def rate(self, iteration: int) -> float:
        return self.base_lr * self.factor**self.dropped

    def update(self, top1: float) -> str:
        verdict = super().update(top1)
        self.waited = 0 if verdict == "best" else self.waited + 1
        if verdict == "best" or not self.patience or self.waited < self.patience:
            return verdict
        self.waited = 0
        self.dropped += 1
        return "stop" if self.dropped >= self.drops else "drop"

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.waited, self.dropped = state["waited"], state["dropped"]

    def describe(self) -> str:
        if not self.patience:
            return f"{self.base_lr:g}, to iteration {self.max_iter}"
        return (
            f"{self.base_lr:g}, times {self.factor:g} after {self.plateau}; "
            f"stops at plateau {self.drops} or iteration {self.max_iter}"
        )

    @property
    def plateau(self) -> str:
        """The length of a plateau in words."""
        return f"{self.patience} epoch{'s' if self.patience != 1 else ''} without a better top-1"


@dataclass
class Cosine(Schedule):
    """Lower the rate from base_lr to 0 along half a cosine."""

    def rate(self, iteration: int) -> float:
        return self.base_lr * (1 + math.cos(math.pi * min(iteration / self.max_iter, 1))) / 2

    def describe(self) -> str:
        return f"{self.base_lr:g}, along a cosine to 0 at iteration {self.max_iter}"


def make(settings: Mapping[str, Any], lr_policy: str, base_lr: float, max_iter: int) -> Schedule:
    """Return the schedule of a run.

    Args:
        settings: the schedule fields of a model's row (`zoo.SCHEDULE`).
        lr_policy: of the solver; any but "fixed" is a schedule of Caffe's own.
        base_lr: initial rate.
        max_iter: iterations of the training.
    """
    if lr_policy != "fixed":
        return Schedule(base_lr, max_iter)
    if settings["lr_schedule"] == "cosine":
        return Cosine(base_lr, max_iter)
    rule = {"factor": settings["lr_factor"], "patience": settings["patience"], "drops": settings["lr_drops"]}
    return Plateau(base_lr, max_iter, **rule)
