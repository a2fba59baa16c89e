"""Screened training images as a figure."""

import shutil
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from tiny_imagenet.data import dataset as datasets
from tiny_imagenet.data import images, screening
from tiny_imagenet.data.dataset import Record
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.report import screening_figure


def visible(box, offset, crop):
    """Pixels of the box within the crop at that offset, counted in a picture."""
    x0, y0, x1, y1 = box
    picture = np.zeros((64, 64), int)
    picture[y0 : y1 + 1, x0 : x1 + 1] = 1
    x, y = offset
    return picture[y : y + crop, x : x + crop].sum()


def records(boxes):
    return [Record(f"{index}.JPEG", f"/{index}.JPEG", 0, box) for index, box in enumerate(boxes)]


def numbers(examples):
    return [int(example.record.name[:-5]) for example in examples]


# Boxes 16 wide in the corner: the far crop sees 8 of their columns and `height` - 8 of their rows.
CORNERS = [(0, 0, 15, height - 1) for height in range(8, 28)]
SHARES = [Fraction(8 * (height - 8), 16 * height) for height in range(8, 28)]
DROPPED = sum(share < Fraction(1, 4) for share in SHARES)


# --- which ---


@given(st.lists(st.integers(0, 63), min_size=4, max_size=4), st.integers(1, 64))
def test_the_worst_crop_matches_a_search(values, crop):
    x0, x1 = sorted(values[:2])
    y0, y1 = sorted(values[2:])
    box, offsets = (x0, y0, x1, y1), range(64 - crop + 1)
    x, y = screening_figure.worst_offset(box, 64, crop)
    assert x in offsets and y in offsets
    xs = [max(0, min(x1, offset + crop - 1) - max(x0, offset) + 1) for offset in offsets]
    ys = [max(0, min(y1, offset + crop - 1) - max(y0, offset) + 1) for offset in offsets]
    assert visible(box, (x, y), crop) == min(xs) * min(ys) == screening.worst_pixels(np.array([box]), 64, crop)[0]


def test_the_first_of_two_equal_crops_is_taken():
    assert screening_figure.worst_offset((20, 20, 40, 40)) == (0, 0)
    assert screening_figure.worst_offset((0, 20, 3, 63)) == (8, 0)


def test_images_near_the_limit_and_a_spread_of_the_dropped_are_chosen():
    assert 4 < DROPPED < 14
    chosen = screening_figure.select(records(CORNERS), count=6)
    assert numbers(chosen.kept) == list(range(DROPPED, DROPPED + 6))  # 1/4 itself is kept
    assert SHARES[DROPPED] == Fraction(1, 4)
    assert numbers(chosen.dropped)[3:] == [DROPPED - 3, DROPPED - 2, DROPPED - 1]
    assert numbers(chosen.dropped)[:3] == [0, (DROPPED - 3) // 3, 2 * (DROPPED - 3) // 3] != [0, 1, 2]
    assert (chosen.dropped_of, chosen.kept_of) == (DROPPED, 20 - DROPPED)
    for example in [*chosen.dropped, *chosen.kept]:
        assert Fraction(example.visible, example.area) == SHARES[numbers([example])[0]]
        assert visible(example.record.box, example.offset, 56) == example.visible


def test_the_seed_decides_between_equal_fractions():
    given = records([(0, 0, 3, 3)] * 50)
    picks = [numbers(screening_figure.select(given, count=6, seed=seed).dropped) for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]


def test_images_without_a_box_are_ignored():
    chosen = screening_figure.select([Record("x", "/x", 0, None), *records(CORNERS)])
    assert chosen.dropped_of + chosen.kept_of == 20
    with pytest.raises(DatasetError):
        screening_figure.select([Record("x", "/x", 0, None)])


@pytest.mark.parametrize(
    ("option", "value"),
    [("crop", 0), ("crop", 65), ("min_visible", 1.5), ("min_visible", float("nan")), ("rows", 0), ("rows", 21)],
)
def test_values_out_of_range_are_rejected(dataset, option, value):
    with pytest.raises(DatasetError, match=f"{option}: .*{value}"):
        screening_figure.draw(dataset, **{option: value})


# --- the picture ---


def test_the_figure_shows_boxes_crops_and_fractions(dataset):
    figure = screening_figure.draw(dataset, crop=48, min_visible=Fraction(1, 3), rows=1)
    read = datasets.read(dataset)
    chosen = screening_figure.select(read.splits["train"], 48, Fraction(1, 3), 6)
    examples = [*chosen.dropped, *chosen.kept]
    assert len(chosen.kept) == 6 and chosen.dropped and len(figure.axes) == len(examples)
    for axes, example in zip(figure.axes, examples):
        x, y = example.offset
        x0, y0, x1, y1 = example.record.box
        window, box = axes.patches
        assert (to_hex(window.get_ec()), to_hex(box.get_ec())) == ("#56b4e9", "#e69f00")
        # The frames are half a pixel outside the edges of the outermost pixels.
        assert window.get_bbox().extents.tolist() == [x - 1, y - 1, x + 48, y + 48]
        assert box.get_bbox().extents.tolist() == [x0 - 1, y0 - 1, x1 + 1, y1 + 1]
        original = images.read_image(example.record.path)[:, :, ::-1]
        shown = np.asarray(axes.images[0].get_array())
        assert (shown[y : y + 48, x : x + 48] == original[y : y + 48, x : x + 48]).all()
        assert (shown[y0 : y1 + 1, x0 : x1 + 1] == original[y0 : y1 + 1, x0 : x1 + 1]).all()
        outside = np.ones((64, 64), bool)
        outside[y : y + 48, x : x + 48] = outside[y0 : y1 + 1, x0 : x1 + 1] = False
        assert (shown[outside].astype(int) >= 150).all()
        share, words = (text.get_text() for text in axes.texts)
        assert 0 <= 100 * example.visible / example.area - float(share.removesuffix(" %")) < 0.1
        assert words == read.classes[example.record.label].words
    titles = [text.get_text() for text in figure.texts]
    assert f"{chosen.dropped_of:,} images" in titles[0] and f"6 of {chosen.kept_of:,} images" in titles[1]
    assert all("33.3 %" in title for title in titles)


# --- the script ---


def test_the_script_draws_the_same_each_time(dataset, tmp_path, tool):
    for name in ("a.svg", "b.svg"):
        tool("visualize", "screening", dataset, "--rows", 1, "--seed", 2, "--out", name, cwd=tmp_path)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_an_unreadable_image_is_an_error(dataset, tmp_path, tool):
    shutil.copytree(dataset, tmp_path / "data")
    for path in (tmp_path / "data" / "train").rglob("*.JPEG"):
        path.write_bytes(b"")
    done = tool("visualize", "screening", "data", "--out", "a.png", cwd=tmp_path, fails=1)
    assert ".JPEG" in done.stderr and not (tmp_path / "a.png").exists()
