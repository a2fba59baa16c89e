"""Whether the ranks of a training are still there: what their signs of life, or the lack of them, say."""

from __future__ import annotations

import math
from collections.abc import Sequence

BEAT = 0.5  # seconds from one sign of life to the next, at most


class Watch:
    """One rank's watch over others: rank 0 watches all, each of them watches rank 0.

    Times are seconds of one clock of this machine.

    Args:
        names: of all ranks.
        rank: the one that watches.
        limit: seconds after which something has taken too long.
        now: the time.

    Attributes:
        beat: seconds from one sign of life to the next.
    """

    def __init__(self, names: Sequence[str], rank: int, limit: float, now: float):
        self.beat = min(BEAT, limit / 8)
        self._names, self._rank, self._limit = names, rank, limit
        self._heard = dict.fromkeys(range(1, len(names)) if rank == 0 else [0], now)
        self._stand = dict.fromkeys(self._heard, (0, 0, 0))
        self._changed = now
        self._said = False

    def sign(self, rank: int, begun: int, done: int, steps: int, now: float) -> None:
        """A sign of life has come from a rank that has begun so many operations, done so many, and taken so many steps.

        The watching rank says so of itself too.
        """
        if rank in self._heard:
            self._heard[rank] = now
        if self._stand.get(rank) != (begun, done, steps):
            self._stand[rank] = begun, done, steps
            self._changed, self._said = now, False

    def forgive(self, seconds: float) -> None:
        """Leave out the time in which this process stood still and could hear nobody."""
        self._heard = {rank: then + seconds for rank, then in self._heard.items()}
        self._changed += seconds

    def silent(self, now: float, limit: float = math.inf) -> str:
        """Which ranks are lost for want of a sign of life, as a sentence; "" where none is.

        Args:
            now: the time.
            limit: seconds, where there is less patience than the watch has.
        """
        limit = min(limit, self._limit)
        if now - min(self._heard.values()) <= limit:
            return ""
        # Of several that went at once, the signs came at different times.
        gone = [rank for rank, then in self._heard.items() if now - then > limit - 2 * self.beat]
        names, has = ", ".join(self._names[rank] for rank in gone), "has" if len(gone) == 1 else "have"
        return f"{names} {has} not answered for {limit:g} s: the process, its machine or the network is gone"

    def stuck(self, now: float) -> str:
        """Who waits in vain though all answer, as a sentence, in rank 0; "" where nobody does.

        What all have begun gets done, step by step, unless two of them cannot reach each other.
        """
        if self._rank or now - self._changed <= self._limit:
            return ""
        whole = min(begun for begun, *_ in self._stand.values())
        waiting = [rank for rank, (_, done, _) in self._stand.items() if done < whole]
        if not waiting:
            return ""
        names = ", ".join(self._names[rank] for rank in sorted(waiting))
        return (
            f"all ranks answer, yet nothing has come through to {names} for {self._limit:g} s: the network between "
            "two of the machines is broken, or a firewall keeps them apart, or it is too slow for --answer-within"
        )

    def behind(self, now: float) -> str:
        """Whom the others wait for, who answers all the same, as a sentence, once, in rank 0; else ""."""
        if self._rank or self._said or now - self._changed <= self._limit:
            return ""
        most = max(begun for begun, *_ in self._stand.values())
        behind = [rank for rank, (begun, *_) in self._stand.items() if begun < most]
        if not behind:
            return ""
        self._said = True
        names = ", ".join(self._names[rank] for rank in sorted(behind))
        return f"all have waited for {names} for {self._limit:g} s: busy, or hanging (a disk or file system, say)"
