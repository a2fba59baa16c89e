"""What a page shows of runs' predictions: the best one's confusion, the worst classes, the images that are wrong."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tiny_imagenet.evaluation import metrics, origin, pedigree, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import confusion_figure, curves, gallery
from tiny_imagenet.report.folders import Run
from tiny_imagenet.report.results import Column
from tiny_imagenet.report.scores import Row
from tiny_imagenet.report.values import NONE, integer, number, share

PAIRS = 8  # the most confused pairs of classes that are listed
WORST = 12  # and the classes that are predicted worst

Classes = dict[tuple[Any, str], dict[str, Any]]  # scores by a class's number and name


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
    return Look(given is not None, records, class_scores(run.evaluation, given, given and _names(given)))


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
        data: as of `page.build`.
    """
    pictures = gallery.Pictures()
    shown = [next((index for index in column.runs if looks[index].labelled), None) for column in columns]
    shown = [index for index in shown if index is not None]
    galleries = []
    for index in shown:
        given = _load(runs[index])
        tiles = gallery.of(given, runs[index].data(data), _named(given), pictures, gallery.share(len(shown)))
        galleries.append({"name": rows[index].name, **tiles})
    first = [index for index in shown if rows[index].images == rows[shown[0]].images]
    best = max(first, key=lambda index: rows[index].scores["value"] or 0, default=None)
    return {
        "confusion": None if best is None else _confusion(rows[best].name, _load(runs[best])),
        "worst": _worst(looks, columns),
        "gallery": galleries,
        "labels": gallery.classes(galleries, "label"),
        "said": gallery.classes(galleries, "said"),
        "class_ids": gallery.ids(galleries),
        "pictures": pictures.shown,
    }


def class_scores(evaluation: dict[str, Any], given: Predictions | None, names: Sequence[str] | None) -> Classes:
    """The scores of each class of a run by its number and name: `name`, `count`, `top1` and `predicted`.

    They are evaluation.json's; where that is of an earlier version, those of the predictions.
    """
    found = {}
    rows = evaluation.get("per_class")
    if not isinstance(rows, list) and given is not None:
        rows = [
            {"index": i, "words": names[i] if names else str(i), **row}
            for i, row in enumerate(metrics.class_scores(given))
        ]
    for row in rows if isinstance(rows, list) else []:
        name = (row.get("words") or row.get("wnid")) if isinstance(row, dict) else None
        if isinstance(name, str) and name.strip() and share(row.get("top1")) is not None:
            found[number(row.get("index")), name] = {
                "name": name,
                "count": number(row.get("count")),
                "top1": row["top1"],
                "predicted": number(row.get("predicted")),
            }
    return found


def mean_scores(runs: Sequence[Classes]) -> Classes:
    """The means of several runs' scores, of the classes that all of them have."""
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    return {
        key: {**runs[0][key], **{score: _mean([run[key][score] for run in runs]) for score in ("top1", "predicted")}}
        for key in shared
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else statistics.fmean(values)


def worst_classes(columns: Sequence[Classes], most: int = WORST) -> list[dict[str, Any]]:
    """The classes that the first column has the lowest accuracy on, the lowest first.

    Args:
        columns: of each what `class_scores` or `mean_scores` gives.
        most: how many classes.

    Returns:
        Of each class `number`, `name`, `count`, `predicted` (how often the first column said it) and `scores`, a text
        a column.
    """
    ordered = sorted(columns[0].items(), key=lambda item: item[1]["top1"])
    return [
        {
            "number": integer(key[0]),
            "name": row["name"],
            "count": integer(row["count"]),
            "predicted": integer(row["predicted"]),
            "scores": [f"{100 * column[key]['top1']:.1f}" if key in column else NONE for column in columns],
        }
        for key, row in ordered[:most]
    ]


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
            found.append((column.row, mean_scores(classes)))
    if not found:
        return None
    return {
        "name": found[0][0].name,
        "columns": [row.name for row, _ in found],
        "rows": worst_classes([classes for _, classes in found]),
    }


def _confusion(name: str, given: Predictions) -> dict[str, Any]:
    """The figure of predictions, their most confused pairs of classes, and all names, where anybody knows them."""
    label = f"Confusion matrix of {name}, true classes down, predicted classes across"
    names = _named(given)
    return {
        "name": name,
        "figure": curves.svg(confusion_figure.matrix(given, names), "confusion", label),
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
