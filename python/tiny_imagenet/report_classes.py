"""What a page shows of single classes: those that are predicted worst, with the accuracy of each model on them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tiny_imagenet import metrics
from tiny_imagenet.predictions import Predictions
from tiny_imagenet.report_values import NONE, integer, number, share

WORST = 12
Classes = dict[tuple[Any, str], dict[str, Any]]


def of(evaluation: dict[str, Any], given: Predictions | None, names: Sequence[str] | None) -> Classes:
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


def mean(runs: Sequence[Classes]) -> Classes:
    """The means of several runs' scores, of the classes that all of them have."""
    shared = [key for key in runs[0] if all(key in run for run in runs)]
    return {
        key: {**runs[0][key], **{score: _mean([run[key][score] for run in runs]) for score in ("top1", "predicted")}}
        for key in shared
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else statistics.fmean(values)


def worst(columns: Sequence[Classes], most: int = WORST) -> list[dict[str, Any]]:
    """The classes that the first column has the lowest accuracy on, the lowest first.

    Args:
        columns: of each what `of` or `mean` gives.
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
