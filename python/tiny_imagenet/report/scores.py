"""Scores as the rows of a page's table, the paper's beside them where both are of the same."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.evaluation.pedigree import Pedigree
from tiny_imagenet.models import paper
from tiny_imagenet.report.values import NONE, integer, number, percent, share, text


@dataclass
class Row:
    """A row of the table of results.

    Attributes:
        name: of the run or ensemble.
        kind: "run", "mean" (of runs that differ in their seed), "crops" (of a run, ten), "ensemble" or "held out".
        scores: what `of` gives.
        made_by: what made the predictions that were scored.
        records: the sha256 of the images that were scored; None where nobody knows it.
        classes: how many there are.
        published: the paper's validation accuracy in per cent, where it has one.
        cells: the last columns' values, each with its class in the page; else `said` stands there.
        said: what there is to say instead.
        missing: the command that would give the scores, where they are not there.
        moved: what is not of a run's best weights any more.
        searched: whether an ensemble's weights were chosen on the images that are scored.
        data: the folder of the data that was scored, "" where nobody knows it.
        images: what the page calls the images that were scored, where its rows are of several sets of them.
        best: whether nothing of its kind does better on these images.
    """

    name: str
    kind: str
    scores: dict[str, Any]
    made_by: Pedigree
    records: str | None = None
    classes: float | None = None
    published: float | None = None
    cells: list[tuple[str, str]] = field(default_factory=list)
    said: str = ""
    missing: str = ""
    moved: str = ""
    searched: bool = False
    data: str = ""
    images: str = ""
    best: bool = False

    @property
    def about(self) -> list[str]:
        """What is scored, where that is not a centre crop of the validation split, or not the same in all rows."""
        crops, split = self.made_by.crops, self.made_by.split
        scored = pedigree.say_crops(crops) if split == "val" else pedigree.say(split, crops)
        return [text for text in ("" if self.made_by.usual or self.missing else scored, self.images) if text]

    @property
    def ranked(self) -> bool:
        """Whether it is among those of which one does best."""
        usual = self.made_by.usual and not self.searched
        return usual and self.kind in ("run", "ensemble") and self.scores["value"] is not None

    @property
    def comparable(self) -> bool:
        """Whether it tells as many classes apart as the paper."""
        return self.classes == paper.CLASSES

    @property
    def paper_at(self) -> float | None:
        """The paper's figure where it is of what is scored here: a centre crop, equal weights."""
        return self.published if self.missing or (self.made_by.usual and not self.searched) else None

    @property
    def paper(self) -> str:
        """The same as the paper prints it."""
        return NONE if self.paper_at is None else f"{self.paper_at:{'g' if self.kind == 'ensemble' else '.2f'}}"


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


def of_run(
    name: str,
    path: Path,
    model: str,
    info: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    iterations: float | None,
    records: str | None,
) -> Row:
    """The row of a run folder, from its run.json, its evaluation.json and what else there is to know of it."""
    known, screened = paper.PAPER.get(model), info.get("screened")
    made_by = _evaluated(name, path, evaluation, pedigree.CENTRE)
    return Row(
        name,
        "run",
        of(evaluation),
        made_by,
        records,
        number(evaluation.get("classes", info.get("classes"))),
        known.validation_accuracy if known else None,
        cells=[
            (text(info.get("nonlinearity")), ""),
            ("yes" if screened is True else "no" if screened is False else NONE, ""),
            (integer(info.get("parameters")), "number"),
            (integer(iterations), "number"),
            (integer(info.get("train_images")), "number"),
        ],
        missing="" if evaluation else f"tools/evaluate.py {path}",
        moved=_again(made_by, ""),
        data=text(evaluation.get("data"), text(info.get("data"), "")),
    )


def of_ten_crops(name: str, path: Path, evaluation: Mapping[str, Any]) -> Row:
    """The row of a run's evaluation_tencrop.json."""
    made_by = _evaluated(name, path, evaluation, None)
    classes = number(evaluation.get("classes"))
    return Row(name, "crops", of(evaluation), made_by, classes=classes, moved=_again(made_by, " --ten-crop"))


def of_seeds(name: str, rows: Sequence[Row], evaluations: Sequence[Mapping[str, Any]]) -> Row:
    """The row of the mean of runs that differ in their seed, from their rows and evaluation.json; all have a top-1.

    In place of an interval it has top-1's standard deviation.
    """
    values = {key: [share(one.get(key)) for one in evaluations] for key in ("top1", "top5", "error")}
    means = {key: None if None in several else statistics.fmean(several) for key, several in values.items()}
    value = round(100 * means["top1"], 3)
    scores = {
        **of(means),
        "interval": f"± {100 * statistics.stdev(values['top1']):.2f}",
        "mark": [value, value, value],
        "seeds": len(rows),
        "count": rows[0].scores["count"],
    }
    cells = [one[0] if len(set(one)) == 1 else ("", one[0][1]) for one in zip(*(row.cells for row in rows))]
    first = rows[0]
    return Row(name, "mean", scores, first.made_by, first.records, first.classes, first.published, cells)


def _evaluated(name: str, path: Path, evaluation: Mapping[str, Any], crops: str | None) -> Pedigree:
    values = {"crops": crops, **evaluation, "checkpoint": "best", "iteration": evaluation.get("checkpoint")}
    return pedigree.read({**values, "name": name, "run": str(path)})


def _again(made_by: Pedigree, flags: str) -> str:
    moved = pedigree.moved(made_by)
    return moved and f"{made_by.name} was scored with the weights {moved}: run tools/evaluate.py {made_by.run}{flags}"
