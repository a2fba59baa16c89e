"""How long an iteration takes on several machines: a model of what averaging gradients adds to computing them.

Assumed: a machine computes its share of the batch as fast, image for image, as it computes a whole one; a third of that
time is the forward pass; the backward pass spends on each layer in proportion to its multiplications; a bucket sets out
as soon as it is whole and the one before it has come; and all links are as fast in both directions at once, whoever
else uses them. Left out: reading the data, the update, validation and checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tiny_imagenet.training import buckets


@dataclass(frozen=True)
class Layer:
    """A layer with parameters.

    Attributes:
        parameters: how many values.
        multiply_adds: of one image.
    """

    parameters: int
    multiply_adds: float


@dataclass(frozen=True)
class Link:
    """A machine's way to the others.

    Attributes:
        bandwidth: bytes a second, in each direction.
        latency: seconds that a step of an average takes beside its bytes.
    """

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Iteration:
    """What an iteration takes.

    Attributes:
        computing: seconds that a rank computes.
        sending: seconds that the gradients are on their way.
        waiting: how many of these the computation stands still.
    """

    computing: float
    sending: float
    waiting: float

    @property
    def seconds(self) -> float:
        return self.computing + self.waiting

    @property
    def hidden(self) -> float:
        """The share of the way that the backward pass hides."""
        return 1 - self.waiting / self.sending if self.sending else 1.0

    @property
    def efficiency(self) -> float:
        """The share of the time that is computation."""
        return self.computing / self.seconds


def average_seconds(size: int, ranks: int, link: Link) -> float:
    """Seconds in which `ranks` average `size` bytes: halving and doubling for a power of two, else a ring."""
    if ranks == 1:
        return 0.0
    steps = 2 * math.log2(ranks) if ranks & (ranks - 1) == 0 else 2 * (ranks - 1)
    return steps * link.latency + 2 * (ranks - 1) / ranks * size / link.bandwidth


def iteration(layers: Sequence[Layer], computing: float, ranks: int, link: Link) -> Iteration:
    """What an iteration takes whose share of the batch a rank computes in `computing` seconds.

    Args:
        layers: from the bottom of the net up.
        computing: of the forward and the backward pass.
        ranks: how many.
        link: of each machine.
    """
    work = sum(layer.multiply_adds for layer in layers)
    done, at = {}, computing / 3
    for number in reversed(range(len(layers))):
        at += 2 / 3 * computing * layers[number].multiply_adds / work
        done[number] = at
    sending, free = 0.0, 0.0
    for bucket in buckets.layout([(number, layer.parameters) for number, layer in enumerate(layers)]):
        takes = average_seconds(buckets.BYTES * bucket.size, ranks, link)
        free = max(free, done[bucket.layer]) + takes
        sending += takes
    return Iteration(computing, sending, max(0.0, free - computing))
