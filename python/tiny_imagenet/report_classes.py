"""What a page shows of single classes: those that the best run does worst on, with every run's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiny_imagenet import metrics
from tiny_imagenet.predictions import Predictions
from tiny_imagenet.report_values import NONE, integer, number, share

WORST = 12
Classes = dict[tuple[Any, str], dict[str, Any]]


def of(evaluation: dict[str, Any], given: Predictions | None, names: Sequence[str] | None) -> Classes:
    """The scores of each class of a run by its index and name: `name`, `count`, `top1` and `predicted`.

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


def worst(runs: Sequence[Classes], best: int, most: int = WORST) -> list[dict[str, Any]]:
    """The classes that run number `best` does worst on, the worst first.

    Args:
        runs: of each run what `of` gives.
        best: which of them is looked at.
        most: how many classes.

    Returns:
        Of each class `name`, `count`, `predicted` (how often the best run said it) and `scores`, a text a run.
    """
    ordered = sorted(runs[best].items(), key=lambda item: item[1]["top1"])
    return [
        {
            "name": row["name"],
            "count": integer(row["count"]),
            "predicted": integer(row["predicted"]),
            "scores": [f"{100 * run[key]['top1']:.1f}" if key in run else NONE for run in runs],
        }
        for key, row in ordered[:most]
    ]
