"""Which training images screening drops (section 5.2.1): those whose object a crop can lose.

Boxes are arrays (n, 4) of x0, y0, x1, y1, inclusive pixel indexes within an `image` x `image` picture. A crop is
`crop` x `crop` pixels at any whole offset from 0 to image - crop on each axis, as the data layer draws it.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

CROP = 56
MIN_VISIBLE = Fraction(1, 4)
SMALL_AREA = 8 * 8
Box = tuple[int, int, int, int]


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas in pixels, int64 (n,)."""
    x0, y0, x1, y1 = _columns(boxes)
    return (x1 - x0 + 1) * (y1 - y0 + 1)


def worst_pixels(boxes: np.ndarray, image: int = 64, crop: int = CROP) -> np.ndarray:
    """The fewest pixels of each box that a crop can show, int64 (n,)."""
    x0, y0, x1, y1 = _columns(boxes)
    return _worst_length(x0, x1, image, crop) * _worst_length(y0, y1, image, crop)


def worst_visible(boxes: np.ndarray, image: int = 64, crop: int = CROP) -> np.ndarray:
    """The smallest share of each box's area that a crop can show, float64 (n,); `keep` compares exactly."""
    return worst_pixels(boxes, image, crop) / area(boxes)


def keep(
    boxes: np.ndarray, image: int = 64, crop: int = CROP, min_visible: Fraction | float = MIN_VISIBLE
) -> np.ndarray:
    """True for each box of which every crop shows at least `min_visible`, bool (n,); in whole numbers, so exact."""
    least = share(min_visible)
    kind = np.int64 if least.denominator < 2**32 else object  # pixels are fewer than 2**31
    visible, whole = worst_pixels(boxes, image, crop).astype(kind), area(boxes).astype(kind)
    return (visible * least.denominator >= whole * least.numerator).astype(bool)


def share(value: Fraction | float) -> Fraction:
    """A share in whole numbers; of a float the simplest one near it (0.1 is 1/10), of anything else itself."""
    return Fraction(value).limit_denominator(1_000_000) if isinstance(value, float) else Fraction(value)


def is_small(boxes: np.ndarray) -> np.ndarray:
    """True for each box with an area under 8 x 8 pixels, bool (n,)."""
    return area(boxes) < SMALL_AREA


def mend(box: Box, width: int = 64, height: int = 64) -> tuple[Box | None, str]:
    """A box as it can be in a picture of `width` x `height` pixels, and what was wrong with it ("": nothing).

    Corners that are the wrong way round are put in order and what sticks out is cut off. A box that is wholly outside
    becomes None.
    """
    x0, y0, x1, y1 = box
    if 0 <= x0 <= x1 < width and 0 <= y0 <= y1 < height:
        return box, ""
    wrong = "inside out" if x0 > x1 or y0 > y1 else "sticks out"
    (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
    if x1 < 0 or y1 < 0 or x0 >= width or y0 >= height:
        return None, "outside the image"
    return (max(x0, 0), max(y0, 0), min(x1, width - 1), min(y1, height - 1)), wrong


def scale(box: Box, width: int, height: int, image: int = 64) -> Box:
    """The pixels that a box in a picture of `width` x `height` touches when that is resized to `image` x `image`."""
    x0, y0, x1, y1 = box
    return (
        x0 * image // width,
        y0 * image // height,
        -(-(x1 + 1) * image // width) - 1,
        -(-(y1 + 1) * image // height) - 1,
    )


def _worst_length(low: np.ndarray, high: np.ndarray, image: int, crop: int) -> np.ndarray:
    # The overlap of two intervals, one sliding, rises and then falls: it is smallest at an end of the slide.
    first = np.minimum(high, crop - 1) - low + 1
    last = high - np.maximum(low, image - crop) + 1
    return np.maximum(np.minimum(first, last), 0)


def _columns(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, dtype=np.int64).reshape(-1, 4).T
