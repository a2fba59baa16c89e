"""Screening of training images (section 5.2.1): drops those whose object a random crop may cut off.

Boxes are arrays (n, 4) of x0, y0, x1, y1, inclusive pixel indices in an `image` x `image` picture. A crop is
`crop` x `crop` pixels at an integer offset from 0 to image - crop on each axis, as drawn by the data layer.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

CROP = 56
MIN_VISIBLE = Fraction(1, 4)
SMALL_AREA = 8 * 8
Box = tuple[int, int, int, int]


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the area of each box in pixels, int64 (n,)."""
    x0, y0, x1, y1 = _columns(boxes)
    return (x1 - x0 + 1) * (y1 - y0 + 1)


def worst_pixels(boxes: np.ndarray, image: int = 64, crop: int = CROP) -> np.ndarray:
    """Return the smallest number of pixels of each box in any crop, int64 (n,)."""
    x0, y0, x1, y1 = _columns(boxes)
    return _worst_length(x0, x1, image, crop) * _worst_length(y0, y1, image, crop)


def worst_visible(boxes: np.ndarray, image: int = 64, crop: int = CROP) -> np.ndarray:
    """Return the smallest fraction of each box in any crop, float64 (n,); `keep` compares exactly."""
    return worst_pixels(boxes, image, crop) / area(boxes)


def keep(
    boxes: np.ndarray, image: int = 64, crop: int = CROP, min_visible: Fraction | float = MIN_VISIBLE
) -> np.ndarray:
    """Return whether every crop shows at least the fraction `min_visible` of each box, bool (n,); exact."""
    least = share(min_visible)
    kind = np.int64 if least.denominator < 2**32 else object  # pixels are fewer than 2**31
    visible, whole = worst_pixels(boxes, image, crop).astype(kind), area(boxes).astype(kind)
    return (visible * least.denominator >= whole * least.numerator).astype(bool)


def share(value: Fraction | float) -> Fraction:
    """Return a fraction: for a float, the simplest one near it (0.1 is 1/10)."""
    return Fraction(value).limit_denominator(1_000_000) if isinstance(value, float) else Fraction(value)


def is_small(boxes: np.ndarray) -> np.ndarray:
    """Return whether the area of each box is under 8 x 8 pixels, bool (n,)."""
    return area(boxes) < SMALL_AREA


def mend(box: Box, width: int = 64, height: int = 64) -> tuple[Box | None, str]:
    """Fit a box into an image of `width` x `height` pixels; return it and the problem ("" if there was none).

    Corners are sorted and clipped to the image. A box outside the image becomes None.
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
    """Return the pixels touched by a box after its `width` x `height` image is resized to `image` x `image`."""
    x0, y0, x1, y1 = box
    return (
        x0 * image // width,
        y0 * image // height,
        -(-(x1 + 1) * image // width) - 1,
        -(-(y1 + 1) * image // height) - 1,
    )


def _worst_length(low: np.ndarray, high: np.ndarray, image: int, crop: int) -> np.ndarray:
    # The overlap with a sliding interval rises and then falls, so the minimum is at one of its two ends.
    first = np.minimum(high, crop - 1) - low + 1
    last = high - np.maximum(low, image - crop) + 1
    return np.maximum(np.minimum(first, last), 0)


def _columns(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, dtype=np.int64).reshape(-1, 4).T
