"""Training in several processes of this machine, one a rank: they are started, watched, and ended together.

This process does not compute. It is told by the ranks how they end, passes a wish to stop on to rank 0, and ends all of
them when one is lost: a rank whose partner is gone would wait for ever. When this process is lost, the ranks see that
and end by themselves.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from tiny_imagenet.errors import RunError
from tiny_imagenet.linked_process import LinkedProcess
from tiny_imagenet.outcomes import Outcome
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import console, ending
from tiny_imagenet.training.jobs import Options

GRACE = 5.0  # seconds that the others have to end by themselves once one has failed, or rank 0 is done
ASK = 0.1  # seconds from one look at the wish to stop to the next


@dataclass(frozen=True)
class Work:
    """What a rank is told first.

    Attributes:
        transport: "module:function" that is called with rank, names and links, and returns `Ranks`.
        rank, names: as `Ranks`.
        links: file descriptors of the pipes to the other ranks, as `rank_links.LinkedRanks`.
        source, options, argv: as `train.train`.
    """

    transport: str
    rank: int
    names: list[str]
    links: list[int]
    source: str | None
    options: Options
    argv: list[str] | None


def train(
    transport: str,
    names: Sequence[str],
    source: str | None,
    options: Options,
    argv: list[str] | None,
    stop: StopRequest,
) -> dict[str, Any]:
    """Train in so many processes as there are names; `transport` as in `Work`, the rest as `train.train`.

    Raises:
        RunError: a rank failed or was lost; the message names it.
        TinyImageNetError: as `train.train`.
        Stopped: `stop` has a signal; there is a checkpoint.
    """
    count = len(names)
    pairs = [socket.socketpair() for _ in names[1:]]  # rank 0's ends, the others'
    ends = [[zero for zero, _ in pairs], *([other] for _, other in pairs)]
    ranks: list[LinkedProcess] = []
    try:
        for rank in range(count):
            links = [end.fileno() for end in ends[rank]]
            work = Work(transport, rank, list(names), links, source, options, argv)
            ranks.append(LinkedProcess("training.rank_main", work, descriptors=links))
        for end in (end for pair in pairs for end in pair):
            end.close()
        outcomes = _watch(ranks, stop)
    finally:
        for rank in ranks:
            rank.close()
    return _judge(outcomes, list(names), options)


def _watch(ranks: list[LinkedProcess], stop: StopRequest) -> dict[int, Outcome]:
    """The outcomes of the ranks, in the order that they came; those that had to be ended are missing."""
    outcomes: dict[int, Outcome] = {}
    waiting = {rank.link: number for number, rank in enumerate(ranks)}
    until, told = float("inf"), False
    while waiting and time.monotonic() < until:
        for link in connection.wait(list(waiting), ASK):
            number = waiting.pop(link)
            rank = ranks[number]
            outcomes[number] = rank.outcome() or Outcome(text=f"it {rank.fate()}")
            if outcomes[number].result is None or number == 0:
                until = min(until, time.monotonic() + GRACE)
        if stop.signal and not told:
            told = True
            ranks[0].tell(stop.signal)
    if 0 not in outcomes or outcomes[0].result is None:
        console.show_cursor()
    return outcomes


def _judge(outcomes: dict[int, Outcome], names: list[str], options: Options) -> dict[str, Any]:
    """Rank 0's result, or the error that ended it all: of several the first that is not another's loss."""
    if 0 in outcomes and outcomes[0].result is not None:
        return outcomes[0].result
    failed = {rank: outcome for rank, outcome in outcomes.items() if outcome.result is None}
    rank = next((rank for rank, outcome in failed.items() if outcome.error != "RankLostError"), next(iter(failed)))
    outcome = failed[rank]
    if rank == 0 and outcome.error not in ("", "RankLostError"):
        raise outcome.value()
    raise RunError(ending.explain(f"{names[rank]} (rank {rank} of {len(names)}): {outcome.text}", options.run))
