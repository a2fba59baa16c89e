"""What a page shows of single predictions: the best run's confusion, the worst classes, the images that are wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiny_imagenet import figures, metrics, origin, pedigree, predictions, report_classes, report_curves, report_gallery
from tiny_imagenet.predictions import Predictions
from tiny_imagenet.report_classes import Classes
from tiny_imagenet.report_results import Column
from tiny_imagenet.report_runs import Run
from tiny_imagenet.report_scores import Row
from tiny_imagenet.report_values import integer

PAIRS = 8  # the most confused pairs of classes that are listed


@dataclass(frozen=True)
class Look:
    """What there is to see in a run's predictions.

    Attributes:
        labelled: whether there are predictions, of images with labels.
        records: the sha256 of what was scored; None where nobody knows it.
        classes: the scores of each class; empty where there are none.
    """

    labelled: bool
    records: str | None
    classes: Classes


def look(run: Run) -> Look:
    """Look into a run's predictions.

    Raises:
        PredictionsError: they cannot be read.
    """
    given = _load(run)
    records = pedigree.records(given) if given else run.records_of_data
    return Look(given is not None, records, report_classes.of(run.evaluation, given, given and _names(given)))


def sections(
    runs: Sequence[Run],
    looks: Sequence[Look],
    rows: Sequence[Row],
    columns: Sequence[Column],
    data: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """The parts of a page: `confusion` and `worst`, None where there is nothing to see, and those of the gallery.

    Args:
        runs: the runs, of which the following are.
        looks: what was seen in each.
        rows: their rows in the table of results.
        columns: the same, runs that differ in their seed as one, in the order in which the page compares them.
        data: as of `report.build`.
    """
    pictures = report_gallery.Pictures()
    shown = [next((index for index in column.runs if looks[index].labelled), None) for column in columns]
    shown = [index for index in shown if index is not None]
    gallery = []
    for index in shown:
        given = _load(runs[index])
        tiles = report_gallery.of(
            given, runs[index].data(data), _named(given), pictures, report_gallery.share(len(shown))
        )
        gallery.append({"name": rows[index].name, **tiles})
    first = [index for index in shown if rows[index].images == rows[shown[0]].images]
    best = max(first, key=lambda index: rows[index].scores["value"] or 0, default=None)
    return {
        "confusion": None if best is None else _confusion(rows[best].name, _load(runs[best])),
        "worst": _worst(looks, columns),
        "gallery": gallery,
        "labels": report_gallery.classes(gallery, "label"),
        "said": report_gallery.classes(gallery, "said"),
        "class_ids": report_gallery.ids(gallery),
        "pictures": pictures.shown,
    }


def _load(run: Run) -> Predictions | None:
    given = predictions.load(run.predictions) if run.predictions else None
    return given if given is not None and (given.labels >= 0).any() else None


def _names(given: Predictions) -> list[str] | None:
    known = origin.classes(given)
    return known and [words or wnid for wnid, words in known]


def _named(given: Predictions) -> list[str]:
    return _names(given) or [str(label) for label in range(given.classes)]


def _worst(looks: Sequence[Look], columns: Sequence[Column]) -> dict[str, Any] | None:
    """The table of the classes that are predicted worst, with all columns that are of the first one's images."""
    found = []
    for column in columns:
        classes = [looks[index].classes for index in column.runs if looks[index].classes]
        if classes and (not found or column.row.images == found[0][0].images):
            found.append((column.row, report_classes.mean(classes)))
    if not found:
        return None
    return {
        "name": found[0][0].name,
        "columns": [row.name for row, _ in found],
        "rows": report_classes.worst([classes for _, classes in found]),
    }


def _confusion(name: str, given: Predictions) -> dict[str, Any]:
    """The figure of predictions, their most confused pairs of classes, and all names, where anybody knows them."""
    label = f"Confusion matrix of {name}, true classes down, predicted classes across"
    names = _named(given)
    return {
        "name": name,
        "figure": report_curves.svg(figures.confusion(given, names), "confusion", label),
        "pairs": [
            {
                "true": (pair["true"], names[pair["true"]]),
                "said": (pair["predicted"], names[pair["predicted"]]),
                "count": integer(pair["count"]),
                "of": integer(pair["of"]),
            }
            for pair in metrics.confused(given, PAIRS)
        ],
        "names": _names(given) or [],
    }
