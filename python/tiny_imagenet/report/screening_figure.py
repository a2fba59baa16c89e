"""A picture of what screening does: training images that it drops, above images that it just keeps."""

from __future__ import annotations

import math
import os
import random
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from tiny_imagenet.data import dataset, images, screening
from tiny_imagenet.data.dataset import Record
from tiny_imagenet.data.images import SIZE
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.report import figures

CROP = 56
ROWS = 2
COLUMNS = 6
MOST_ROWS = 20

_WIDTH = 7.0  # inches, as all below: a page's width
_CELL, _GAP, _CAPTION, _TITLE, _LEGEND = _WIDTH / COLUMNS, 0.1, 0.3, 0.32, 0.26
_BOX, _WINDOW = figures.PALETTE[4], figures.PALETTE[5]  # orange and sky blue: told apart by everyone, and by the dashes
_VEIL = 0.6  # how white what the crop cuts away becomes


class Example(NamedTuple):
    """A training image, the offset (x, y) of its worst crop, and how many of its box's pixels that crop shows."""

    record: Record
    offset: tuple[int, int]
    visible: int
    area: int


class Selection(NamedTuple):
    """Examples of each kind by rising visible share, and how many training images there are of each."""

    dropped: list[Example]
    kept: list[Example]
    dropped_of: int
    kept_of: int


def draw(
    root: str | os.PathLike[str],
    crop: int = CROP,
    min_visible: Fraction | float = screening.MIN_VISIBLE,
    rows: int = ROWS,
    seed: int = 0,
) -> Figure:
    """Draw training images of the data set in `root` with their boxes and worst crops, `rows` rows of each kind.

    The worst crop is the one, of `crop` x `crop` pixels, that shows least of the object's box; what it cuts away,
    but for the box, is veiled. Below each image stand the share of the box that it shows, rounded down, and the
    class. The same arguments give the same figure.

    Raises:
        DatasetError: `crop`, `min_visible` or `rows` is out of range, the data set is incomplete, no training image
            has a box, or one that is to be drawn cannot be read.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise DatasetError(f"rows is {rows}: from 1 to {MOST_ROWS} are allowed")
    data = dataset.read(root)
    chosen = select(data.splits["train"], crop, min_visible, rows * COLUMNS, seed)
    words = [entry.words for entry in data.classes]
    share = _percent(Fraction(min_visible).limit_denominator(1_000_000))
    titles = (
        f"Dropped: {chosen.dropped_of:,} images, of whose object a crop can show less than {share}",
        f"Just kept: {len(chosen.kept):,} of {chosen.kept_of:,} images, whose every crop shows at least {share}",
    )
    halves = [_lines(chosen.dropped) * (_CELL + _CAPTION), _lines(chosen.kept) * (_CELL + _CAPTION)]
    height = sum(halves) + 2 * _TITLE + _LEGEND
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        top = height
        for title, half, examples in zip(titles, halves, (chosen.dropped, chosen.kept)):
            figure.text(_GAP / 2 / _WIDTH, (top - 0.2) / height, title, fontsize=9)
            top -= _TITLE
            for index, example in enumerate(examples):
                row, column = divmod(index, COLUMNS)
                left = column * _CELL + _GAP / 2
                bottom = top - row * (_CELL + _CAPTION) - _CELL + _GAP
                side = _CELL - _GAP
                axes = figure.add_axes((left / _WIDTH, bottom / height, side / _WIDTH, side / height))
                _draw_example(axes, example, crop, words[example.record.label])
            top -= half
        _draw_legend(figure, crop, height)
    return figure


def select(
    records: Sequence[Record],
    crop: int = CROP,
    min_visible: Fraction | float = screening.MIN_VISIBLE,
    count: int = ROWS * COLUMNS,
    seed: int = 0,
) -> Selection:
    """Choose at most `count` dropped and `count` kept training images; those without a box are passed over.

    The kept ones are those with the smallest visible shares. Of the dropped, one half has the largest shares and
    the other is spread evenly over the order of the rest, from the smallest share. `seed` decides among equals.

    Raises:
        DatasetError: `crop` is not from 1 to 64, `min_visible` not from 0 to 1, or no image has a box.
    """
    if not 1 <= crop <= SIZE:
        raise DatasetError(f"crop is {crop}: from 1 to {SIZE} pixels are allowed")
    if not 0 <= min_visible <= 1:
        raise DatasetError(f"min_visible is {min_visible}: from 0 to 1 is allowed")
    boxed = [record for record in records if record.box]
    if not boxed:
        raise DatasetError("no training image has a box: add them to the *_boxes.txt files or name another data set")
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


def worst_offset(box: tuple[int, int, int, int], image: int = SIZE, crop: int = CROP) -> tuple[int, int]:
    """The offset (x, y), in pixels, of a crop that shows as little of the box (x0, y0, x1, y1, inclusive) as any.

    On each axis it is 0 or image - crop, since the overlap of two intervals, one sliding, rises and then falls; of
    two that show the same, it is 0.
    """
    offsets = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        first = max(0, min(high, crop - 1) - low + 1)
        last = max(0, high - max(low, image - crop) + 1)
        offsets.append(0 if first <= last else image - crop)
    return offsets[0], offsets[1]


def _lines(examples: list[Example]) -> int:
    return math.ceil(len(examples) / COLUMNS)


def _draw_example(axes: Axes, example: Example, crop: int, words: str) -> None:
    picture = images.read_image(example.record.path)[:, :, ::-1].copy()
    (x, y), (x0, y0, x1, y1) = example.offset, example.record.box
    outside = np.ones((SIZE, SIZE, 1), bool)
    outside[y : y + crop, x : x + crop] = False
    outside[y0 : y1 + 1, x0 : x1 + 1] = False  # the object can be seen whole
    picture = np.where(outside, np.uint8(255 * _VEIL) + picture * (1 - _VEIL), picture).astype(np.uint8)
    axes.imshow(picture, interpolation="none")
    axes.set_axis_off()
    for left, top, width, height, colour, dashes in (
        (x, y, crop, crop, _WINDOW, (0, (3, 1.5))),
        (x0, y0, x1 - x0 + 1, y1 - y0 + 1, _BOX, "-"),
    ):
        # The frame's inner edge is the edge of the pixels: pixel 3 reaches from 2.5 to 3.5.
        axes.add_patch(_frame((left - 1, top - 1), width + 1, height + 1, colour, dashes))
    share = _percent(Fraction(example.visible, example.area))
    text = {"ha": "center", "va": "top", "transform": axes.transAxes}
    axes.text(0.5, -0.03, share, fontsize=8, fontweight="bold", **text)
    _shrink(axes.text(0.5, -0.155, figures.plain(figures.short(words)), fontsize=7, **text), _CELL - _GAP / 2)


def _shrink(text: Text, width: float) -> None:
    """Make the text so small that it is at most `width` inches wide."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
        pixels = text.get_window_extent(FigureCanvasAgg(text.figure).get_renderer()).width
    text.set_fontsize(text.get_fontsize() * min(1, width * text.figure.dpi / pixels))


def _frame(corner: tuple[float, float], width: float, height: float, colour: str, dashes: object) -> Rectangle:
    casing = [withStroke(linewidth=2.0, foreground=figures.INK)]
    return Rectangle(
        corner, width, height, fill=False, ec=colour, lw=1.1, ls=dashes, clip_on=False, path_effects=casing
    )


def _draw_legend(figure: Figure, crop: int, height: float) -> None:
    labels = ("the object's box", f"the {crop}x{crop} crop that shows least of it")
    frames = [_frame((0, 0), 1, 1, colour, dashes) for colour, dashes in ((_BOX, "-"), (_WINDOW, (0, (3, 1.5))))]
    figure.legend(
        frames, labels, loc="lower left", bbox_to_anchor=(0, 0), ncol=2, fontsize=8, handlelength=1.2, handleheight=1.2,
        borderaxespad=0, borderpad=0.3,
    )  # fmt: skip


def _percent(share: Fraction) -> str:
    """A share as per cent with one decimal, rounded down: one below the limit never reads as the limit."""
    tenths = share.numerator * 1000 // share.denominator
    return f"{tenths // 10}.{tenths % 10} %"
