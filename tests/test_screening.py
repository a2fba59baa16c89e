"""Screening against a count of pixels over every crop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiny_imagenet import screening


@st.composite
def boxes(draw, image=64):
    x0, y0 = (draw(st.integers(0, image - 1)) for _ in range(2))
    x1, y1 = (draw(st.integers(low, image - 1)) for low in (x0, y0))
    return x0, y0, x1, y1


def counted(box, image=64, crop=56):
    """The fewest visible pixels and the area, from a picture of the box and each of the crops."""
    x0, y0, x1, y1 = box
    picture = np.zeros((image, image), int)
    picture[y0 : y1 + 1, x0 : x1 + 1] = 1
    offsets = range(image - crop + 1)
    return min(picture[y : y + crop, x : x + crop].sum() for y in offsets for x in offsets), picture.sum()


@given(boxes())
def test_matches_a_pixel_count(box):
    visible, area = counted(box)
    array = np.array([box])
    assert screening.worst_pixels(array).tolist() == [visible]
    assert screening.area(array).tolist() == [area]
    assert screening.worst_visible(array).tolist() == [visible / area]
    assert screening.keep(array).tolist() == [4 * visible >= area]


@given(boxes(image=12), st.integers(1, 12), st.fractions(0, 1, max_denominator=100))
def test_any_size_crop_and_share(box, crop, share):
    visible, area = counted(box, 12, crop)
    assert screening.worst_pixels(np.array([box]), 12, crop).tolist() == [visible]
    assert screening.keep(np.array([box]), 12, crop, share).tolist() == [Fraction(int(visible), int(area)) >= share]


def test_exactly_a_quarter_is_kept():
    # 16x16 in a corner: the far crop sees 8x8 of it, a quarter; 15x15 there shows 7x7 of 225, less.
    corners = np.array([(0, 0, 15, 15), (48, 48, 63, 63), (0, 48, 15, 63), (0, 0, 14, 14), (49, 0, 63, 14)])
    assert screening.worst_visible(corners)[:3].tolist() == [0.25, 0.25, 0.25]
    assert screening.keep(corners).tolist() == [True, True, True, False, False]


def test_many_boxes_at_once_and_none():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 64, (200, 2, 2)), axis=1).reshape(200, 4)
    expected = [4 * visible >= area for visible, area in map(counted, corners.tolist())]
    assert screening.keep(corners).tolist() == expected
    assert 0 < sum(expected) < 200
    assert screening.keep(np.zeros((0, 4), np.int64)).shape == (0,)
    assert screening.keep([]).shape == (0,)


def test_small_is_an_area_under_64():
    sizes = np.array([(0, 0, 7, 7), (0, 0, 7, 6), (10, 3, 10, 63), (0, 0, 0, 63)])
    assert screening.is_small(sizes).tolist() == [False, True, True, False]
