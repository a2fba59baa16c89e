"""Scores of runs and ensembles as the cells of a page's table, the paper's beside them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet import paper
from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.report_values import NONE, integer, number, percent, share


def ensemble(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The row of a file of `tools/ensemble.py --json`.

    Raises:
        PredictionsError: it is not one.
    """
    advice = "write it with tools/ensemble.py PRED.npz PRED.npz --json > FILE.json"
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        members, scores = value["members"], value["ensemble"]
        names = [str(member["name"]) for member in members]
        if not isinstance(scores, dict):
            raise TypeError("scores")
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file: {advice}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PredictionsError(f"{path}: not what tools/ensemble.py --json prints: {advice}") from error
    known, weights = paper.ensemble(names), value.get("weights")
    paths = [str(member.get("path", NONE)) for member in members]
    given = ["--weights", *(f"{weight:.6g}" for weight in weights)] if _uneven(weights) else []
    return {
        "name": "all nine models" if known is paper.FULL_ENSEMBLE else " + ".join(names),
        "weights": "weights " + ", ".join(f"{weight:.3g}" for weight in weights) if given else "equal weights",
        "command": shlex.join(["tools/ensemble.py", *paths, *given, "--json"]),
        "searched": isinstance(value.get("search"), dict),
        "scores": of(scores),
        "comparable": number(scores.get("classes")) == paper.CLASSES,
        "classes": integer(scores.get("classes")),
        "paper": f"{known.validation_accuracy:g}" if known else NONE,
        "paper_at": known.validation_accuracy if known else None,
    }


def of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The scores as text in per cent, and the numbers that place the interval's mark."""
    interval = summary.get("top1_interval")
    ends = [share(end) for end in interval] if isinstance(interval, list) and len(interval) == 2 else [None, None]
    value = share(summary.get("top1"))
    return {
        "value": value,
        "top1": percent(value),
        "interval": NONE if None in ends else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}",
        "mark": None if value is None or None in ends else [round(100 * x, 3) for x in (ends[0], value, ends[1])],
        "top5": percent(share(summary.get("top5"))),
        "error": percent(share(summary.get("error"))),
        "count": integer(summary.get("count")),
    }


def _uneven(weights: Any) -> bool:
    numbers = [number(weight) for weight in weights] if isinstance(weights, list) else []
    return None not in numbers and len(set(numbers)) > 1
