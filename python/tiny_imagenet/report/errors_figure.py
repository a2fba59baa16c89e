"""Misclassified images with true class, predicted class and probability."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError
from tiny_imagenet.evaluation import data_source, metrics, provenance
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import figures

ROWS = 4
COLUMNS = 5
MOST_ROWS = 20

_CELL, _GAP, _CAPTION, _TITLE = figures.WIDTH / COLUMNS, 0.12, 0.5, 0.32  # inches
_SIDE = _CELL - _GAP
_LINE, _SHARE = 0.145, 0.5  # inches: between lines of a caption, and the width of the probability


class Mistake(NamedTuple):
    """An image's LMDB key, its true and predicted class, and the probability of the predicted class."""

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
    """Draw `rows` rows of five misclassified images with their true and predicted class.

    Args:
        given: predictions of a split with labels.
        data: the converted data folder that was predicted.
        rows: number of rows.
        seed: draws among the errors, shown in the order of their keys; None takes the most confident errors.
        of_class: only images of this class, as accepted by `class_number`.

    Raises:
        PredictionsError: no label is known, or there are no errors.
        DatasetError: `rows` is out of range, `of_class` is not one class, or the data cannot be read or differs from
            the predictions in its classes or images.
    """
    if not 1 <= rows <= MOST_ROWS:
        raise DatasetError(f"rows: expected from 1 to {MOST_ROWS}, got {rows}")
    entries = lmdb_reader.read_manifest(data)["classes"]
    names = [entry["words"] or entry["wnid"] for entry in entries]
    wnids = data_source.meta(given).get("wnids") or [entry["wnid"] for entry in entries]
    words = data_source.meta(given).get("class_names") or names
    if given.classes != len(entries) or wnids != [entry["wnid"] for entry in entries] or words != names:
        raise DatasetError(f"{given.path or given.name} and {data} have different classes: pass its own --data")
    label = None if of_class is None else class_number(of_class, entries, data)
    every, images = mistakes(given, label)
    whose = f" of {names[label]}" if label is not None else ""
    if not every:
        who = given.path or given.name
        raise PredictionsError(f"{who}: all {images} labelled images{whose} are predicted correctly")
    chosen = select(every, rows * COLUMNS, seed)
    split = data_source.split(given)
    pictures = read(Path(data) / f"{split}.lmdb", chosen)
    kind = "most confident" if seed is None else "random"
    which = "all" if len(chosen) == len(every) else f"{len(chosen):,} {kind} of"
    title = f"{provenance.title(given)}: {which} {len(every):,} errors in {images:,} {split} images{whose}"
    return plot(chosen, pictures, names, title)


def mistakes(given: Predictions, label: int | None = None) -> tuple[list[Mistake], int]:
    """The misclassified images in the order of their keys, and the number of labelled images.

    Args:
        given: predictions with at least one known label.
        label: only images of this true class.

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
    """The `count` most confident mistakes in descending order, or with a seed as many random ones in given order."""
    if seed is None:
        return sorted(every, key=lambda mistake: -mistake.probability)[:count]
    drawn = np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False)
    return [every[number] for number in sorted(drawn.tolist())]


def read(lmdb: str | os.PathLike[str], chosen: Sequence[Mistake]) -> list[np.ndarray]:
    """The images of mistakes, (height, width, 3) uint8 RGB.

    Raises:
        DatasetError: the LMDB cannot be read, or does not contain a key with its label.
    """
    import caffe  # slow, and only needed here

    pictures = []
    try:
        records = caffe.LmdbRecords(lmdb)
        for mistake in chosen:
            number = mistake.key.split("_")[0]
            known = number.isdecimal() and int(number) < len(records)
            if not known or (records.key(int(number)), records.label(int(number))) != mistake[:2]:
                record = f"record {mistake.key!r} with label {mistake.label}"
                raise DatasetError(f"{lmdb} has no {record}: pass its own --data")
            pictures.append(records.image(int(number))[::-1].transpose(1, 2, 0))
    except caffe.CaffeError as error:
        raise DatasetError(f"cannot read {lmdb}: {error}") from error
    return pictures


def plot(chosen: Sequence[Mistake], pictures: Sequence[np.ndarray], names: Sequence[str], title: str) -> Figure:
    """Draw mistakes with their pictures (height, width, 3), RGB; `names` has one name per class."""
    lines = math.ceil(len(chosen) / COLUMNS)
    height = _TITLE + lines * (_CELL + _CAPTION)
    note = "Bold: true class. Below: predicted class, then the image's name and the predicted class's probability."
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, height))
        left = _GAP / 2 / figures.WIDTH
        heading = figure.text(left, 1 - 0.16 / height, figures.plain(title), fontsize=9)
        figures.fit(heading, figures.WIDTH - _GAP)
        figure.text(left, 1 - 0.3 / height, note, fontsize=7)
        for index, (mistake, picture) in enumerate(zip(chosen, pictures)):
            row, column = divmod(index, COLUMNS)
            bottom = height - _TITLE - row * (_CELL + _CAPTION) - _CELL
            axes = figures.add_axes(figure, column * _CELL + _GAP / 2, bottom, _SIDE, _SIDE)
            axes.imshow(picture, interpolation="none")
            axes.set_axis_off()
            _write(axes, mistake, names)
    return figure


def _write(axes: Axes, mistake: Mistake, names: Sequence[str]) -> None:
    image = mistake.key.partition("_")[2].rsplit(".", 1)[0]
    styles = ({"fontweight": "bold"}, {}, {"alpha": 0.65})
    lines = (figures.first(names[mistake.label]), figures.first(names[mistake.predicted]), image)
    for number, (line, style) in enumerate(zip(lines, styles)):
        place = {"y": -(0.03 + number * _LINE) / _SIDE, "va": "top", "transform": axes.transAxes, "fontsize": 7.5}
        text = axes.text(0, s=figures.plain(line), ha="left", **place, **style)
        figures.fit(text, 0.96 * _SIDE - (_SHARE if number == 2 else 0))
    axes.text(1, s=figures.percent(mistake.probability), ha="right", **place)


def class_number(name: str, entries: Sequence[Mapping[str, Any]], data: str | os.PathLike[str]) -> int:
    """The number of the class called `name`: a wnid, all its words or one of them, or a number; case is ignored.

    Args:
        name: of the class.
        entries: the manifest's classes.
        data: the data folder, for messages.

    Raises:
        DatasetError: no class or several classes have this name.
    """
    wanted = name.strip().lower()
    known: dict[str, list[int]] = {}
    for number, entry in enumerate(entries):
        words = entry["words"].lower()
        for own in {entry["wnid"].lower(), words, *map(str.strip, words.split(","))} - {""}:
            known.setdefault(own, []).append(number)
    found = known.get(wanted, [])
    if len(found) == 1:
        return found[0]
    if not found and wanted.isdecimal() and int(wanted) < len(entries):
        return int(wanted)
    if found:
        several = " and ".join(entries[number]["wnid"] for number in found)
        raise DatasetError(f"{data} has several classes {name!r}: pass one of the wnids {several}")
    containing = [own for own in known if wanted and wanted in own]
    hint = f" Did you mean {containing[0]!r}?" if containing else did_you_mean(wanted, known)
    raise DatasetError(f"{data} has no class {name!r}: its manifest.json lists all classes.{hint}")
