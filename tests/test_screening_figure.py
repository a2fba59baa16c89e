import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from tiny_imagenet.data import dataset as datasets
from tiny_imagenet.data import screening
from tiny_imagenet.data.dataset import Record
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.report import figures, screening_figure

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "visualize.py"


def script(*arguments, cwd):
    command = [sys.executable, str(SCRIPT), "screening", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


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
def test_the_worst_crop_is_that_of_a_search(values, crop):
    x0, x1 = sorted(values[:2])
    y0, y1 = sorted(values[2:])
    box, offsets = (x0, y0, x1, y1), range(64 - crop + 1)
    x, y = screening_figure.worst_offset(box, 64, crop)
    assert x in offsets and y in offsets
    xs = [max(0, min(x1, offset + crop - 1) - max(x0, offset) + 1) for offset in offsets]
    ys = [max(0, min(y1, offset + crop - 1) - max(y0, offset) + 1) for offset in offsets]
    assert visible(box, (x, y), crop) == min(xs) * min(ys) == screening.worst_pixels(np.array([box]), 64, crop)[0]


def test_of_two_equal_crops_it_is_the_first():
    assert screening_figure.worst_offset((20, 20, 40, 40)) == (0, 0)
    assert screening_figure.worst_offset((0, 20, 3, 63)) == (8, 0)


def test_those_nearest_to_the_limit_are_chosen_and_a_spread_of_the_dropped():
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


@pytest.mark.parametrize("count", range(1, 25))
def test_any_number_is_chosen_once_each(count):
    chosen = screening_figure.select(records(CORNERS), count=count)
    assert len(set(numbers(chosen.dropped))) == len(chosen.dropped) == min(count, DROPPED)
    assert numbers(chosen.dropped)[-1] == DROPPED - 1
    assert len(chosen.kept) == min(count, 20 - DROPPED)


def test_all_dropped_and_none():
    whole = screening_figure.select(records([(20, 20, 40, 40)] * 3), min_visible=1)
    assert (len(whole.dropped), len(whole.kept)) == (0, 3)
    lost = screening_figure.select(records([(0, 0, 3, 3)] * 3), min_visible=Fraction(1, 100))
    assert (len(lost.dropped), len(lost.kept)) == (3, 0)


def test_the_seed_decides_among_equals():
    given = records([(0, 0, 3, 3)] * 50)
    picks = [numbers(screening_figure.select(given, count=6, seed=seed).dropped) for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]


def test_what_has_no_box_is_passed_over():
    chosen = screening_figure.select([Record("x", "/x", 0, None), *records(CORNERS)])
    assert chosen.dropped_of + chosen.kept_of == 20
    with pytest.raises(DatasetError, match="no training image has a box: add them"):
        screening_figure.select([Record("x", "/x", 0, None)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0}, "crop is 0: from 1 to 64"),
        ({"crop": 65}, "crop is 65"),
        ({"min_visible": 1.5}, "min_visible is 1.5: from 0 to 1"),
        ({"min_visible": float("nan")}, "min_visible is nan"),
        ({"rows": 0}, "rows is 0: from 1 to 20"),
        ({"rows": 21}, "rows is 21"),
    ],
)
def test_what_is_out_of_range_is_refused(dataset, options, message):
    with pytest.raises(DatasetError, match=message):
        screening_figure.draw(dataset, **options)


# --- the picture ---


def test_the_picture_shows_boxes_crops_and_shares(dataset):
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
        # The frames stand half a pixel outside of the outermost pixels' edges.
        assert window.get_bbox().extents.tolist() == [x - 1, y - 1, x + 48, y + 48]
        assert box.get_bbox().extents.tolist() == [x0 - 1, y0 - 1, x1 + 1, y1 + 1]
        original = datasets.read_image(example.record.path)[:, :, ::-1]
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
    assert f"Dropped: {chosen.dropped_of:,} images" in titles[0] and titles[0].endswith("less than 33.3 %")
    assert f"Just kept: 6 of {chosen.kept_of:,} images" in titles[1] and titles[1].endswith("at least 33.3 %")


def test_a_share_below_the_limit_never_reads_as_the_limit():
    assert screening_figure._percent(Fraction(24999, 100000)) == "24.9 %"
    assert screening_figure._percent(Fraction(1, 4)) == "25.0 %"
    assert screening_figure._percent(Fraction(0)) == "0.0 %" and screening_figure._percent(Fraction(1)) == "100.0 %"


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_nothing_overlaps_whatever_the_names(dataset, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    wnids = (folder / "wnids.txt").read_text().split()
    names = ["W" * 30, "a $x^{ 5$", "_hidden", "<b>&", "数字" * 20, "German short-haired pointer"]
    words = "".join(f"{wnid}\t{names[index % len(names)]}\n" for index, wnid in enumerate(wnids))
    (folder / "words.txt").write_text(words, encoding="utf-8")
    figure = screening_figure.draw(folder)
    figures.save(figure, tmp_path / "a.png")
    renderer = figure.canvas.get_renderer()
    boxes = []
    for axes in figure.axes:
        boxes += [axes.get_window_extent(renderer), *(text.get_window_extent(renderer) for text in axes.texts)]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert width <= 0 or height <= 0
    nodes = ElementTree.fromstring(figures.svg(figure)).iter("{http://www.w3.org/2000/svg}text")
    assert {"_hidden", "a $x^{ 5$"} <= {"".join(node.itertext()).strip() for node in nodes}


# --- the script ---


def test_the_script_draws_the_same_each_time(dataset, tmp_path):
    for ending in (".png", ".svg"):
        for name in ("a", "b"):
            done = script(dataset, "--out", name + ending, "--rows", 1, "--seed", 2, cwd=tmp_path)
            assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{name}{ending}\n")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 1200


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none", "--out", "a.png"], 1, "none is not a folder"),
        (["none", "--out", "a.pdf"], 2, "ends in .png or .svg"),
        (["none"], 2, "--out"),
        (["none", "--out", "a.png", "--crop", "65"], 2, "'65' is not a whole number of at least 1 and at most 64"),
        (["none", "--out", "a.png", "--rows", "0"], 2, "'0' is not a whole number"),
        (["none", "--out", "a.png", "--min-visible", "5/4"], 2, "'5/4' is not a share from 0 to 1"),
        (["none", "--out", "a.png", "--min-visible", "1/0"], 2, "'1/0' is not a share"),
        (["none", "--out", "a.png", "--min-visible", "nan"], 2, "'nan' is not a share"),
    ],
)
def test_the_script_refuses_in_one_line(tmp_path, arguments, status, message):
    done = script(*arguments, cwd=tmp_path)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr.startswith("visualize.py") and done.stderr.count("\n") == 1 and message in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_image_that_cannot_be_read_is_named(dataset, tmp_path):
    shutil.copytree(dataset, tmp_path / "data")
    for path in (tmp_path / "data" / "train").rglob("*.JPEG"):
        path.write_bytes(b"")
    done = script("data", "--out", "a.png", cwd=tmp_path)
    assert done.returncode == 1 and "cannot read the image" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_help_has_an_example():
    assert "tools/visualize.py screening" in script("--help", cwd="/").stdout
