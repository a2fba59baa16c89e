"""The page's table of results: runs, their means over seeds, and ensembles, next to the paper's accuracies."""

from __future__ import annotations

import json
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation import metrics, provenance
from tiny_imagenet.evaluation.metrics import NONE, TOP1
from tiny_imagenet.evaluation.provenance import Provenance
from tiny_imagenet.models import paper
from tiny_imagenet.report import folders
from tiny_imagenet.report.folders import Folder

_ADVICE = "write it with tools/ensemble.py PRED.npz PRED.npz --json > FILE.json"


@dataclass
class Row:
    """A row of the table.

    Attributes:
        name: of the run or ensemble.
        kind: "run", "mean" (over seeds), "crops" (a run with ten crops), "ensemble" or "held-out".
        scores: keys of `metrics.summary`.
        made_by: provenance of the predictions.
        records: sha256 of the scored images; None if unknown.
        published: the paper's accuracy in per cent, if it has one.
        settings: cells of `folders.SETTINGS`; without them `note` is shown.
        note: how an ensemble was weighted.
        missing: the command to run if there are no scores.
        stale: a sentence if the scores are not of the run's current best weights.
        searched: whether an ensemble's weights were chosen on the scored images.
        data: folder of the scored data, or "".
        spread: standard deviation of top-1 over seeds, of a mean.
        images: name of the set of scored images, if the table has several.
        best: whether it is the best run on its images.
    """

    name: str
    kind: str
    scores: Mapping[str, Any]
    made_by: Provenance
    records: str | None = None
    published: float | None = None
    settings: list[str] = field(default_factory=list)
    note: str = ""
    missing: str = ""
    stale: str = ""
    searched: bool = False
    data: str = ""
    spread: float | None = None
    images: str = ""
    best: bool = False

    @property
    def top1(self) -> float | None:
        return self.scores.get("top1")

    @property
    def classes(self) -> int | None:
        return self.scores.get("classes")

    @property
    def about(self) -> list[str]:
        """The scored images, unless they are a centre crop of the validation split, and the name of their set."""
        crops = provenance.crops_text(self.made_by.crops)
        scored = crops if self.made_by.split == "val" else self.made_by.images
        return [text for text in ("" if self.made_by.like_paper or self.missing else scored, self.images) if text]

    @property
    def ranked(self) -> bool:
        """Whether it can be the best."""
        return self._fair and self.kind in ("run", "ensemble") and self.top1 is not None

    @property
    def comparable(self) -> bool:
        """Whether it has the paper's number of classes."""
        return self.classes == paper.CLASSES

    @property
    def paper_at(self) -> float | None:
        """The paper's accuracy, if it was measured alike: centre crop, equal weights."""
        return self.published if self.missing or self._fair else None

    @property
    def paper(self) -> str:
        return NONE if self.paper_at is None else f"{self.paper_at:{'g' if self.kind == 'ensemble' else '.2f'}}"

    @property
    def _fair(self) -> bool:
        return self.made_by.like_paper and not self.searched

    @property
    def interval(self) -> str:
        """The 95 % interval, or the spread of a mean."""
        return TOP1.interval(self.scores) if self.spread is None else f"± {100 * self.spread:.2f}"

    @property
    def mark(self) -> list[float]:
        """Low end, value and high end of the bar, in per cent; empty without scores."""
        low, high = self.scores.get("top1_interval") or (self.top1, self.top1)
        return [] if low is None else [round(100 * share, 3) for share in (low, self.top1, high)]


def of_run(folder: Folder) -> Row:
    """The row of a run."""
    known, evaluation, path = paper.PAPER.get(folder.model), folder.evaluation, folder.run.path
    made_by = _evaluated(folder, evaluation, provenance.CENTRE)
    return Row(
        folder.name,
        "run",
        evaluation or {"classes": folder.info.get("classes")},
        made_by,
        folder.images,
        known.validation_accuracy if known else None,
        folders.settings(folder.info),
        missing="" if evaluation else f"tools/evaluate.py {path}",
        stale=_stale(made_by, ""),
        data=evaluation.get("data") or folder.info.get("data") or "",
    )


def of_ten_crops(folder: Folder) -> Row:
    """The row of a run's evaluation with ten crops."""
    made_by = _evaluated(folder, folder.ten_crops, None)
    return Row(folder.name, "crops", folder.ten_crops, made_by, stale=_stale(made_by, " --ten-crop"))


def of_seeds(name: str, rows: Sequence[Row]) -> Row:
    """The row of the mean of runs that differ in their seeds."""
    first = rows[0]
    scores: dict[str, Any] = {"count": first.scores.get("count"), "classes": first.classes, "seeds": len(rows)}
    for score in metrics.SCORES:
        values = [row.scores.get(score.key) for row in rows]
        scores[score.key] = None if None in values else statistics.fmean(values)
    settings = [", ".join(dict.fromkeys(values)) for values in zip(*(row.settings for row in rows))]
    spread = statistics.stdev(row.top1 for row in rows)
    return Row(name, "mean", scores, first.made_by, first.records, first.published, settings, spread=spread)


def _evaluated(folder: Folder, evaluation: Mapping[str, Any], crops: str | None) -> Provenance:
    iteration = evaluation.get("checkpoint")
    values = {"crops": crops, **evaluation, "checkpoint": "best", "iteration": iteration}
    return provenance.read({**values, "name": folder.name, "run": os.fspath(folder.run.path)})


def _stale(made_by: Provenance, flags: str) -> str:
    stale = provenance.stale(made_by)
    return stale and f"The scores of {made_by.name} are {stale}: run tools/evaluate.py {made_by.run}{flags}"


# --- ensembles ---


@dataclass(frozen=True)
class Ensemble:
    """The rows of an ensemble, its members' names and weights, and the command that repeats it."""

    row: Row
    held_out: Row | None
    members: list[tuple[str, str]]
    command: str


def ensembles(paths: Sequence[str | os.PathLike[str]]) -> list[Ensemble]:
    """Ensembles from files written with `tools/ensemble.py --json`; equal names are distinguished by the file.

    Raises:
        PredictionsError: a file is missing, or something else.
    """
    found = [_ensemble(Path(path)) for path in paths]
    names = [" ".join([one.row.name, *one.row.about]) for one in found]
    called = [Provenance(name, os.fspath(path)) for name, path in zip(names, paths)]
    for one, detail in zip(found, provenance.details(called)):
        one.row.name += f" ({detail})" if detail else ""
    return found


def _ensemble(path: Path) -> Ensemble:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        made_by, scores = [provenance.read(member) for member in value["members"]], value["ensemble"]
        weights = value["weights"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PredictionsError(f"{path} is missing or not from tools/ensemble.py --json: {_ADVICE}") from error
    labels = provenance.labels(made_by)
    known = paper.ensemble(one.name for one in made_by)
    whole = known and len(known.members) == len(paper.PAPER)
    name = f"{known.name} models" if whole else provenance.joined(labels)
    uneven, searched, held = len(set(weights)) > 1, "search" in value, value.get("held_out")
    own = provenance.read({"name": name, "split": value.get("split"), "crops": value.get("crops")})
    stale = [f"{label} is {text}" for label, one in zip(labels, made_by) if (text := provenance.stale(one))]
    row = Row(
        name,
        "ensemble",
        scores,
        own,
        value.get("records"),
        known.validation_accuracy if known and not uneven else None,
        note=_weights(weights) if uneven else "equal weights",
        stale=f"In the ensemble of {name}, {', '.join(stale)}: evaluate and average again" if stale else "",
        searched=searched,
    )
    command = ["tools/ensemble.py", *(one.path or "-" for one in made_by)]
    if searched:
        command += ["--search"]
        if held:
            command += ["--folds", str(len(held["folds"]))] + (["--seed", str(held["seed"])] if held["seed"] else [])
    elif uneven:
        command += ["--weights", *(f"{weight:.6g}" for weight in weights)]
    below = None
    if held:
        note = "each image by weights chosen without it"
        below = Row(f"the same, {len(held['folds'])} held-out folds", "held-out", held, own, note=note)
    members = list(zip(labels, (f"{weight:.3g}" for weight in weights)))
    return Ensemble(row, below, members, shlex.join([*command, "--json"]))


def _weights(weights: Sequence[float]) -> str:
    if len(weights) > provenance.MOST_NAMED:
        return f"unequal weights, {sum(map(bool, weights))} of {len(weights)} above 0"
    return "weights " + ", ".join(f"{weight:.3g}" for weight in weights)


# --- the table ---


@dataclass(frozen=True)
class Images:
    """A set of images that rows were scored on, and the best rows.

    Attributes:
        name: "images 1" and so on; "" if all rows have the same images.
        data: a folder that contains them, or "".
        run: the best run.
        mean: the mean over seeds that includes this run.
        ensemble: the best ensemble.
    """

    name: str
    data: str
    run: Row | None
    mean: Row | None
    ensemble: Row | None

    @property
    def best(self) -> Row:
        """The best of run and ensemble."""
        return max(filter(None, (self.run, self.ensemble)), key=lambda row: row.top1)


def images(rows: Sequence[Row], means: Mapping[int, Row]) -> list[Images]:
    """The sets of images that ranked rows were scored on; sets `images` and `best` of the rows.

    Args:
        rows: of runs and ensembles.
        means: as returned by `seeds`.
    """
    sets: dict[Any, list[int]] = {}
    for index, key in _image_keys(rows).items():
        sets.setdefault(key, []).append(index)
    found = []
    for number, own in enumerate(sets.values(), 1):
        name = f"images {number}" if len(sets) > 1 else ""
        for index in own:
            rows[index].images = name
            if index in means:
                means[index].images = name
        best: dict[str, int] = {}
        for index in sorted(own, key=lambda index: rows[index].top1):
            best[rows[index].kind] = index
        run, ensemble = (rows[best[kind]] if kind in best else None for kind in ("run", "ensemble"))
        if run:
            run.best = True
        data = next((rows[index].data for index in own if rows[index].data), "")
        found.append(Images(name, data, run, means.get(best.get("run", -1)), ensemble))
    return found


def _image_keys(rows: Sequence[Row]) -> dict[int, Any]:
    """A key of the scored images for each ranked row; unknown images are taken for others of the same number."""
    ranked = {index: row for index, row in enumerate(rows) if row.ranked}
    known: dict[Any, str] = {}
    for row in ranked.values():
        if row.records:
            known.setdefault((row.classes, row.scores.get("count")), row.records)
    sizes = {index: (row.classes, row.scores.get("count")) for index, row in ranked.items()}
    return {index: row.records or known.get(sizes[index], sizes[index]) for index, row in ranked.items()}


def seeds(rows: Sequence[Row], groups: Sequence[Sequence[int]], several: Sequence[Folder]) -> dict[int, Row]:
    """The row of the mean over seeds by the index of each run that it includes.

    Args:
        rows: of the runs.
        groups: as returned by `folders.groups`.
        several: the runs.
    """
    keys = _image_keys(rows)
    own = [[index for index in group if index in keys] for group in groups]
    own = [group for group in own if len(group) > 1 and len({keys[index] for index in group}) == 1]
    names = [f"{several[group[0]].model}, mean of {len(group)} seeds" for group in own]
    if len(set(names)) < len(names):
        common = [os.path.commonpath([os.path.abspath(several[index].run.path) for index in group]) for group in own]
        names = provenance.labels([Provenance(name, run=path) for name, path in zip(names, common)])
    found = {}
    for name, group in zip(names, own):
        found.update(dict.fromkeys(group, of_seeds(name, [rows[index] for index in group])))
    return found


def bodies(
    rows: Sequence[Row], groups: Sequence[Sequence[int]], means: Mapping[int, Row], several: Sequence[Folder]
) -> list[list[tuple[Row, int]]]:
    """The rows of each part of the table with their indentation: runs below their mean, ten crops below their run."""
    found: list[list[tuple[Row, int]]] = []
    alone = False
    for group in groups:
        if not (alone and len(group) == 1):
            found.append([])
        alone = len(group) == 1
        mean = next((means[index] for index in group if index in means), None)
        if mean:
            found[-1].append((mean, 0))
        for index in group:
            found[-1].append((rows[index], int(bool(mean))))
            if several[index].ten_crops:
                found[-1].append((of_ten_crops(several[index]), 1 + bool(mean)))
    return found


def order(rows: Sequence[Row], sets: Sequence[Images]) -> list[int]:
    """Indices of rows, grouped by image set, best top-1 first."""
    names = [one.name for one in sets]

    def place(index: int) -> tuple[int, float]:
        row = rows[index]
        return names.index(row.images) if row.images in names else len(names), -(row.top1 or 0)

    return sorted(range(len(rows)), key=place)
