"""Screening compared with counting pixels in every crop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tiny_imagenet.data import screening


@st.composite
def boxes(draw, image=64):
    x0, y0 = (draw(st.integers(0, image - 1)) for _ in range(2))
    x1, y1 = (draw(st.integers(low, image - 1)) for low in (x0, y0))
    return x0, y0, x1, y1


def counted(box, image=64, crop=56):
    """Return the fewest visible pixels and the area, from an image of the box and all crops."""
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
def test_any_image_crop_and_fraction(box, crop, share):
    visible, area = counted(box, 12, crop)
    assert screening.worst_pixels(np.array([box]), 12, crop).tolist() == [visible]
    assert screening.keep(np.array([box]), 12, crop, share).tolist() == [Fraction(int(visible), int(area)) >= share]


def test_exactly_a_quarter_is_kept():
    # The opposite crop shows 8x8 pixels of 16x16 in a corner, exactly a quarter, and 7x7 of 15x15, which is less.
    corners = np.array([(0, 0, 15, 15), (48, 48, 63, 63), (0, 48, 15, 63), (0, 0, 14, 14), (49, 0, 63, 14)])
    assert screening.worst_visible(corners)[:3].tolist() == [0.25, 0.25, 0.25]
    assert screening.keep(corners).tolist() == [True, True, True, False, False]


def test_many_boxes_at_once_or_none():
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


@given(st.tuples(*[st.integers(-20, 84)] * 4), st.integers(1, 70), st.integers(1, 70))
def test_a_mended_box_covers_the_same_pixels_of_the_image(box, width, height):
    x0, y0, x1, y1 = box
    columns = np.arange(-100, 200)  # a plane far larger than the image
    inside = lambda low, high: (columns >= min(low, high)) & (columns <= max(low, high))  # noqa: E731
    plane = inside(y0, y1)[:, None] & inside(x0, x1)[None, :]
    expected = plane[100 : 100 + height, 100 : 100 + width]
    mended, wrong = screening.mend(box, width, height)
    found = np.zeros((height, width), bool)
    if mended:
        found[mended[1] : mended[3] + 1, mended[0] : mended[2] + 1] = True
        assert 0 <= mended[0] <= mended[2] < width and 0 <= mended[1] <= mended[3] < height
    np.testing.assert_array_equal(found, expected)
    assert (wrong == "") == (mended == box)


@given(st.tuples(*[st.integers(-20, 84)] * 4))
def test_screening_of_a_mended_box_matches_a_pixel_count(box):
    mended, _ = screening.mend(box)
    if mended:
        visible, area = counted(mended)
        assert screening.keep(np.array([mended])).tolist() == [4 * visible >= area]


@given(boxes(image=40), st.integers(40, 90), st.integers(40, 90))
def test_a_scaled_box_is_the_pixels_it_touches(box, width, height):
    x0, y0, x1, y1 = screening.scale(box, width, height, 16)
    # The pixel i of 16 covers [i / 16, (i + 1) / 16) of a side, the box's columns [x0 / width, (x1 + 1) / width).
    for low, high, first, last, side in ((x0, x1, box[0], box[2], width), (y0, y1, box[1], box[3], height)):
        touched = [i for i in range(16) if i * side < (last + 1) * 16 and (i + 1) * side > first * 16]
        assert [low, high] == [touched[0], touched[-1]]


def test_mending_names_the_problem():
    assert screening.mend((3, 4, 5, 6)) == ((3, 4, 5, 6), "")
    assert screening.mend((-3, 4, 5, 64)) == ((0, 4, 5, 63), "sticks out")
    assert screening.mend((5, 4, 3, 66)) == ((3, 4, 5, 63), "inside out")
    assert screening.mend((64, 4, 70, 6)) == (None, "outside the image")


def test_a_fraction_is_exact_unless_it_is_a_float():
    exact = Fraction(1, 10**15)
    assert screening.share(exact) == exact
    assert screening.share(0.1) == Fraction(1, 10) and screening.share(1) == 1
    box = np.array([(0, 0, 9, 9)])  # the opposite crop shows 2x2 of 100 pixels
    least = Fraction(int(screening.worst_pixels(box)[0]), 100)
    for share in (least, least - exact, least + exact, least + Fraction(1, 10**40)):
        assert screening.keep(box, min_visible=share).tolist() == [share <= least]
    assert screening.keep(box, min_visible=exact).dtype == bool
