"""Training images that screening drops, above images that it just keeps."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from tiny_imagenet.data import dataset, images, screening
from tiny_imagenet.data.dataset import Record
from tiny_imagenet.data.images import SIZE
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.report import figures

ROWS = 2
COLUMNS = 6
MOST_ROWS = 20

_CELL, _GAP, _CAPTION, _TITLE, _LEGEND = figures.WIDTH / COLUMNS, 0.1, 0.3, 0.32, 0.26  # inches
_BOX, _WINDOW = figures.PALETTE[4], figures.PALETTE[5]
_DASHED = (0, (3, 1.5))
_VEIL = 0.6  # opacity of the white outside the crop


class Example(NamedTuple):
    """A training image, the offset (x, y) of its worst crop, and the pixels of its box: in that crop and in all."""

    record: Record
    offset: tuple[int, int]
    visible: int
    area: int


class Selection(NamedTuple):
    """Examples in ascending order of their visible fraction, and the number of training images of each kind."""

    dropped: list[Example]
    kept: list[Example]
    dropped_of: int
    kept_of: int


def draw(
    root: str | os.PathLike[str],
    crop: int = screening.CROP,
    min_visible: Fraction | float = screening.MIN_VISIBLE,
    rows: int = ROWS,
    seed: int = 0,
) -> Figure:
    """Draw training images of the data set in `root` with their boxes and worst crops, `rows` rows of each kind.

    The worst crop is the `crop` x `crop` window that contains the smallest part of the object's box. Everything
    outside the crop and the box is veiled. Below each image are the visible fraction, rounded down, and the class.

    Raises:
        DatasetError: `crop`, `min_visible` or `rows` is out of range, the data set is incomplete, no training image
            has a box, or an image cannot be read.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise DatasetError(f"rows: expected from 1 to {MOST_ROWS}, got {rows}")
    data = dataset.read(root)
    chosen = select(data.splits["train"], crop, min_visible, rows * COLUMNS, seed)
    words = [entry.words for entry in data.classes]
    share = figures.percent(screening.share(min_visible))
    titles = (
        f"Dropped: {chosen.dropped_of:,} images with a crop that contains less than {share} of the object's box",
        f"Just kept: {len(chosen.kept):,} of {chosen.kept_of:,} images whose crops all contain at least {share}",
    )
    parts = (chosen.dropped, chosen.kept)
    halves = [math.ceil(len(examples) / COLUMNS) * (_CELL + _CAPTION) for examples in parts]
    height = sum(halves) + 2 * _TITLE + _LEGEND
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, height))
        top = height
        for title, half, examples in zip(titles, halves, parts):
            figure.text(_GAP / 2 / figures.WIDTH, (top - 0.2) / height, title, fontsize=9)
            top -= _TITLE
            for index, example in enumerate(examples):
                row, column = divmod(index, COLUMNS)
                left, bottom = column * _CELL + _GAP / 2, top - row * (_CELL + _CAPTION) - _CELL + _GAP
                axes = figures.add_axes(figure, left, bottom, _CELL - _GAP, _CELL - _GAP)
                _draw_example(axes, example, crop, words[example.record.label])
            top -= half
        labels = ("the object's box", f"the {crop}x{crop} crop with the smallest part of it")
        frames = [_frame((0, 0), 1, 1, _BOX, "-"), _frame((0, 0), 1, 1, _WINDOW, _DASHED)]
        place = {"loc": "lower left", "bbox_to_anchor": (0, 0), "ncol": 2, "borderaxespad": 0, "borderpad": 0.3}
        figure.legend(frames, labels, fontsize=8, handlelength=1.2, handleheight=1.2, **place)
    return figure


def select(
    records: Sequence[Record],
    crop: int = screening.CROP,
    min_visible: Fraction | float = screening.MIN_VISIBLE,
    count: int = ROWS * COLUMNS,
    seed: int = 0,
) -> Selection:
    """Choose at most `count` dropped and `count` kept training images that have a box.

    The kept images are those with the smallest visible fractions. Half of the dropped images have the largest
    fractions, the others are spread evenly over the rest. `seed` decides between equal fractions.

    Raises:
        DatasetError: `crop` is not from 1 to 64, `min_visible` is not from 0 to 1, or no image has a box.
    """
    if not 1 <= crop <= SIZE:
        raise DatasetError(f"crop: expected from 1 to {SIZE} pixels, got {crop}")
    if not 0 <= min_visible <= 1:
        raise DatasetError(f"min_visible: expected from 0 to 1, got {min_visible}")
    boxed = [record for record in records if record.box]
    if not boxed:
        raise DatasetError("no training image has a box: the *_boxes.txt files are empty; name another data set")
    random.Random(seed).shuffle(boxed)
    boxes = np.array([record.box for record in boxed], np.int64)
    order = np.argsort(screening.worst_visible(boxes, SIZE, crop), kind="stable")
    keeps = screening.keep(boxes, SIZE, crop, min_visible)[order]
    dropped, kept = order[~keeps], order[keeps]
    near = min(count - count // 2, len(dropped))
    rest, spread = len(dropped) - near, min(count - near, len(dropped) - near)
    picks = [*(index * rest // spread for index in range(spread)), *range(rest, len(dropped))]
    visible, area = screening.worst_pixels(boxes, SIZE, crop), screening.area(boxes)

    def examples(indices: np.ndarray) -> list[Example]:
        return [
            Example(boxed[index], worst_offset(boxed[index].box, SIZE, crop), int(visible[index]), int(area[index]))
            for index in indices.tolist()
        ]

    return Selection(examples(dropped[picks]), examples(kept[:count]), len(dropped), len(kept))


def worst_offset(box: tuple[int, int, int, int], image: int = SIZE, crop: int = screening.CROP) -> tuple[int, int]:
    """The offset (x, y) of the crop with the smallest part of the box (x0, y0, x1, y1, inclusive), in pixels.

    On each axis it is 0 or image - crop, because the overlap with a sliding interval first rises and then falls.
    """
    offsets = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        first = max(0, min(high, crop - 1) - low + 1)
        last = max(0, high - max(low, image - crop) + 1)
        offsets.append(0 if first <= last else image - crop)
    return offsets[0], offsets[1]


def _draw_example(axes: Axes, example: Example, crop: int, words: str) -> None:
    picture = images.read_image(example.record.path)[:, :, ::-1].copy()
    (x, y), (x0, y0, x1, y1) = example.offset, example.record.box
    outside = np.ones((SIZE, SIZE, 1), bool)
    outside[y : y + crop, x : x + crop] = False
    outside[y0 : y1 + 1, x0 : x1 + 1] = False
    picture = np.where(outside, np.uint8(255 * _VEIL) + picture * (1 - _VEIL), picture).astype(np.uint8)
    axes.imshow(picture, interpolation="none")
    axes.set_axis_off()
    # The inner edge of a frame is the edge of the pixels: pixel 3 extends from 2.5 to 3.5.
    axes.add_patch(_frame((x - 1, y - 1), crop + 1, crop + 1, _WINDOW, _DASHED))
    axes.add_patch(_frame((x0 - 1, y0 - 1), x1 - x0 + 2, y1 - y0 + 2, _BOX, "-"))
    share = figures.percent(Fraction(example.visible, example.area))
    text = {"ha": "center", "va": "top", "transform": axes.transAxes}
    axes.text(0.5, -0.03, share, fontsize=8, fontweight="bold", **text)
    figures.fit(axes.text(0.5, -0.155, figures.plain(figures.short(words)), fontsize=7, **text), _CELL - _GAP / 2)


def _frame(corner: tuple[float, float], width: float, height: float, colour: str, dashes: object) -> Rectangle:
    casing = [withStroke(linewidth=2.0, foreground=figures.INK)]
    style = {"fill": False, "ec": colour, "lw": 1.1, "ls": dashes, "clip_on": False, "path_effects": casing}
    return Rectangle(corner, width, height, **style)
