"""A sheet of images that a net takes for something else: what they show, what it says, and how sure it is."""

from __future__ import annotations

import difflib
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError
from tiny_imagenet.evaluation import metrics, origin, pedigree
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import figures

ROWS = 4
COLUMNS = 5
MOST_ROWS = 20

_WIDTH = figures.WIDTH  # inches, as all below
_CELL, _GAP, _CAPTION, _TITLE = _WIDTH / COLUMNS, 0.12, 0.5, 0.32
_NEAR = 3  # classes that an error names
_LINE, _SHARE = 0.145, 0.5  # between lines of a caption; what the probability takes of its last line


class Mistake(NamedTuple):
    """An image's LMDB key, its true and its predicted class, and the probability of the predicted one."""

    key: str
    label: int
    predicted: int
    probability: float


def draw(
    given: Predictions,
    data: str | os.PathLike[str],
    rows: int = ROWS,
    seed: int | None = None,
    of_class: str | None = None,
) -> Figure:
    """Draw `rows` rows of images of `data` that `given` is wrong about; below each the true and the predicted class.

    Args:
        given: predictions of a split with labels.
        data: the converted data folder that they were made of.
        rows: how many rows of five images.
        seed: draws among the errors, which are then in the order of the keys; None takes the most confident ones,
            the most confident first.
        of_class: the true class of all images, as `class_number` takes it; None is any.

    Raises:
        PredictionsError: no label is known, or there is no error to show.
        DatasetError: `rows` is out of range, `of_class` means no class or several, or the data cannot be read or has
            other classes or images.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise DatasetError(f"rows is {rows}: from 1 to {MOST_ROWS} are allowed")
    entries = lmdb_reader.read_manifest(data)["classes"]
    _check_classes(given, data, entries)
    label = None if of_class is None else class_number(of_class, entries, data)
    every, images = mistakes(given, label)
    whose = f" of {_name(entries[label])}" if label is not None else ""
    if not every:
        raise PredictionsError(
            f"{given.path or given.name}: all {images} labelled images{whose} are predicted right: no errors to show"
        )
    chosen = select(every, rows * COLUMNS, seed)
    split = origin.split(given)
    pictures = read(Path(data) / f"{split}.lmdb", chosen)
    names = [_name(entry) for entry in entries]
    kind = "most confident" if seed is None else "drawn"
    which = "the" if len(chosen) == len(every) else f"{len(chosen):,} {kind} of"
    title = f"{pedigree.called(given)}: {which} {len(every):,} errors in {images:,} {split} images{whose}"
    return plot(chosen, pictures, names, title)


def mistakes(given: Predictions, label: int | None = None) -> tuple[list[Mistake], int]:
    """The images that are predicted wrong, in the order of their keys, and how many labelled images there are.

    Args:
        given: with at least one known label.
        label: the true class of the images that count; None is any.

    Raises:
        PredictionsError: no label is known, or a probability is not finite.
    """
    probabilities, labels = metrics.labelled(given)
    keys = given.keys[given.labels >= 0]
    predicted = probabilities.argmax(axis=1)
    counted = np.ones(len(labels), bool) if label is None else labels == label
    wrong = np.flatnonzero(counted & (predicted != labels))
    wrong = wrong[np.argsort(keys[wrong], kind="stable")]
    found = [
        Mistake(str(keys[n]), int(labels[n]), int(predicted[n]), float(probabilities[n, predicted[n]])) for n in wrong
    ]
    return found, int(counted.sum())


def select(every: Sequence[Mistake], count: int, seed: int | None = None) -> list[Mistake]:
    """The `count` most confident mistakes, the most confident first; with a seed, as many drawn, in their order."""
    if seed is None:
        return sorted(every, key=lambda mistake: -mistake.probability)[:count]
    drawn = np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False)
    return [every[number] for number in sorted(drawn.tolist())]


def read(lmdb: str | os.PathLike[str], chosen: Sequence[Mistake]) -> list[np.ndarray]:
    """The images of mistakes by their keys: (height, width, 3) uint8, RGB.

    Raises:
        DatasetError: the LMDB cannot be read, has no image of a key, or has it with another label.
    """
    records = lmdb_reader.Records(lmdb)
    pictures = []
    for mistake in chosen:
        number = mistake.key.split("_")[0]
        known = number.isdecimal() and int(number) < len(records)
        key, label, image = records[int(number)] if known else ("", -1, np.empty(0))
        if (key, label) != (mistake.key, mistake.label):
            what = f"label {label} there, not {mistake.label}" if key == mistake.key else "not there"
            raise DatasetError(
                f"{lmdb}, record {mistake.key!r}: {what}: name the --data that the predictions were made of"
            )
        if image.shape[0] != 3:
            raise DatasetError(f"{lmdb}, record {key!r}: {image.shape[0]} channels, not 3: convert the data set again")
        pictures.append(image[::-1].transpose(1, 2, 0))
    return pictures


def plot(chosen: Sequence[Mistake], pictures: Sequence[np.ndarray], names: Sequence[str], title: str) -> Figure:
    """Draw mistakes with their pictures (height, width, 3), RGB; `names` has one name a class."""
    lines = math.ceil(len(chosen) / COLUMNS)
    height = _TITLE + lines * (_CELL + _CAPTION)
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        left = _GAP / 2 / _WIDTH
        fit(figure.text(left, 1 - 0.16 / height, figures.plain(title), fontsize=9), _WIDTH - _GAP)
        figure.text(
            left,
            1 - 0.3 / height,
            "Bold: the true class. Below it the predicted class, then the image and the predicted class's probability.",
            fontsize=7,
        )
        for index, (mistake, picture) in enumerate(zip(chosen, pictures)):
            row, column = divmod(index, COLUMNS)
            side = _CELL - _GAP
            bottom = height - _TITLE - row * (_CELL + _CAPTION) - _CELL
            x = (column * _CELL + _GAP / 2) / _WIDTH
            axes = figure.add_axes((x, bottom / height, side / _WIDTH, side / height))
            axes.imshow(picture, interpolation="none")
            axes.set_axis_off()
            _write(axes, mistake, names)
    return figure


def percent(probability: float) -> str:
    """A probability as per cent with one decimal, rounded down: none below 1 reads as 100."""
    return f"{math.floor(1000 * probability) / 10:.1f} %"


def fit(text: Text, width: float) -> None:
    """Cut the text so that it is at most `width` inches wide."""
    renderer = FigureCanvasAgg(text.figure).get_renderer()
    whole = text.get_text()

    def cut(length: int) -> bool:
        text.set_text(whole if length == len(whole) else whole[:length].rstrip(" ,\\") + "…")
        return text.get_window_extent(renderer).width <= width * text.figure.dpi

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
        if cut(len(whole)):
            return
        fits, wide = 0, len(whole)
        while fits + 1 < wide:
            middle = (fits + wide) // 2
            fits, wide = (middle, wide) if cut(middle) else (fits, middle)
        cut(fits)


def _write(axes: Axes, mistake: Mistake, names: Sequence[str]) -> None:
    image = mistake.key.partition("_")[2].rsplit(".", 1)[0]
    styles = ({"fontweight": "bold"}, {}, {"alpha": 0.65})
    lines = (_first(names[mistake.label]), _first(names[mistake.predicted]), image)
    side = _CELL - _GAP
    for number, (line, style) in enumerate(zip(lines, styles)):
        place = {"y": -(0.03 + number * _LINE) / side, "va": "top", "transform": axes.transAxes, "fontsize": 7.5}
        text = axes.text(0, s=figures.plain(line), ha="left", **place, **style)
        fit(text, 0.96 * side - (_SHARE if number == 2 else 0))
    axes.text(1, s=percent(mistake.probability), ha="right", **place)


def _first(name: str) -> str:
    """The first of a class's words."""
    return name.split(",")[0]


def class_number(name: str, entries: Sequence[Mapping[str, Any]], data: str | os.PathLike[str]) -> int:
    """The number of the one class that `name` means: a wnid, its words or one of them, or a number.

    Args:
        name: as a person writes it; whether letters are small or capital does not matter.
        entries: the manifest's classes.
        data: what to call the data folder.

    Raises:
        DatasetError: it means no class, or several.
    """
    wanted = name.strip().lower()
    known = [_called(entry) for entry in entries]
    found = [number for number, names in enumerate(known) if wanted in names]
    if not found and wanted.isdecimal() and int(wanted) < len(entries):
        return int(wanted)
    if len(found) == 1:
        return found[0]
    near = found or _near(wanted, known)
    what = f"several classes {name!r}" if found else f"no class {name!r}"
    some = [f"{entry['wnid']} ({entry['words']})" for entry in ([entries[n] for n in near] or entries)[:_NEAR]]
    hint = f"did you mean {' or '.join(some)}?" if near else f"it has such as {', '.join(some)};"
    raise DatasetError(f"{data} has {what}: {hint} manifest.json lists all, and a wnid names one")


def _called(entry: Mapping[str, Any]) -> list[str]:
    """What a class can be called, in small letters: its wnid, then all its words, and each of them."""
    words = entry["words"].lower()
    return [name for name in (entry["wnid"].lower(), words, *map(str.strip, words.split(","))) if name]


def _near(wanted: str, known: Sequence[Sequence[str]]) -> list[int]:
    """The numbers of the classes whose words `wanted` is a part of; where there are none, of those written like it."""
    part = [number for number, names in enumerate(known) if wanted and any(wanted in one for one in names[1:])]
    alike = difflib.get_close_matches(wanted, [one for names in known for one in names], _NEAR)
    return part or [number for number, names in enumerate(known) if set(names) & set(alike)]


def _check_classes(given: Predictions, data: str | os.PathLike[str], entries: Sequence[Mapping[str, Any]]) -> None:
    name, advice = given.path or given.name, "name the --data that the predictions were made of"
    if given.classes != len(entries):
        raise DatasetError(f"{data} has {len(entries)} classes, {name} tells {given.classes} apart: {advice}")
    meta = origin.meta(given)
    known = {"wnids": [entry["wnid"] for entry in entries], "class_names": [_name(entry) for entry in entries]}
    if any(isinstance(meta.get(key), list) and meta[key] != value for key, value in known.items()):
        raise DatasetError(f"{data} has other classes than {name}, or in another order: {advice}")


def _name(entry: Mapping[str, Any]) -> str:
    return entry["words"] or entry["wnid"]
