"""How a net's gradients travel: in pieces, in the order in which the backward pass finishes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BYTES = 4  # of a float32
LARGEST, SMALLEST = 1 << 20, 1 << 16  # values (4 MiB, 256 KiB)


@dataclass(frozen=True)
class Part:
    """Values `begin` to `end` of the parameter of number `parameter`."""

    parameter: int
    begin: int
    end: int


@dataclass(frozen=True)
class Bucket:
    """What travels at once.

    Attributes:
        layer: the layer after whose backward pass it is whole.
        parts: what it is made of, in this order.
    """

    layer: int
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """How many values."""
        return sum(part.end - part.begin for part in self.parts)


def layout(parameters: Sequence[tuple[int, int]], largest: int = LARGEST, smallest: int = SMALLEST) -> list[Bucket]:
    """The buckets of a net, in the order in which they travel, the same on every rank.

    The last ones, whose travel nothing hides, are small: from the bottom of the net up each may have twice as many
    values as the one below it, up to `largest`. A parameter that is larger is cut.

    Args:
        parameters: the layer and the number of values of each, from the bottom of the net up.
        largest: values in a bucket, at most.
        smallest: values in the last one.
    """
    buckets: list[Bucket] = []
    parts: list[Part] = []
    room = limit = smallest
    lowest = 0
    for number, (layer, size) in enumerate(parameters):
        begin = 0
        while begin < size:
            lowest = layer if not parts else lowest
            end = min(size, begin + room)
            parts.append(Part(number, begin, end))
            room -= end - begin
            begin = end
            if not room:
                buckets.append(Bucket(lowest, tuple(parts)))
                parts, limit = [], min(2 * limit, largest)
                room = limit
    if parts:
        buckets.append(Bucket(lowest, tuple(parts)))
    return buckets[::-1]
