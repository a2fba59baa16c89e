"""A page's table of results as a whole: which rows go together, which images they are of, and what does best."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.evaluation.pedigree import Pedigree
from tiny_imagenet.report import scores
from tiny_imagenet.report.scores import Row


@dataclass(frozen=True)
class Images:
    """Images that rows are scored on; each attribute but the first two is None where there is no such row.

    Attributes:
        name: what the rows call them; "" where all rows are of the same.
        data: a data folder that has them, "" where nobody knows one.
        run: the row of the run that does best on them.
        mean: the row of the mean that this run is part of.
        ensemble: the row of the ensemble that does best on them.
    """

    name: str
    data: str
    run: Row | None
    mean: Row | None
    ensemble: Row | None

    @property
    def best(self) -> Row:
        """The row that does best."""
        return max(filter(None, (self.run, self.ensemble)), key=lambda row: row.scores["value"])


def images(rows: Sequence[Row], means: Mapping[int, Row]) -> list[Images]:
    """The images that the ranked rows are of, in the order of their first rows; `best` of the best runs is set.

    Args:
        rows: of runs and ensembles; where they are of several sets of images, each row's `images` is set.
        means: by the index of a run's row the row of the mean that it is part of.
    """
    sets = _sets(rows)
    found = []
    for number, own in enumerate(sets, 1):
        name = f"images {number}" if len(sets) > 1 else ""
        for index in own:
            for row in filter(None, (rows[index], means.get(index))):
                row.images = name
        best = {}
        for index in own:
            kind = rows[index].kind
            if kind not in best or rows[index].scores["value"] > rows[best[kind]].scores["value"]:
                best[kind] = index
        run, ensemble = (rows[best[kind]] if kind in best else None for kind in ("run", "ensemble"))
        if run:
            run.best = True
        data = next((rows[index].data for index in own if rows[index].data), "")
        found.append(Images(name, data, run, means.get(best.get("run", -1)), ensemble))
    return found


def _sets(rows: Sequence[Row]) -> list[list[int]]:
    """The indexes of the ranked rows by their images; what nobody knows the records of joins what has as many."""
    sets: list[list[int]] = []
    ranked = [index for index, row in enumerate(rows) if row.ranked]
    for index in sorted(ranked, key=lambda index: rows[index].records is None):
        own = next((own for own in sets if _same(rows[own[0]], rows[index])), None)
        if own is None:
            sets.append(own := [])
        own.append(index)
    return sorted(map(sorted, sets))


def _same(one: Row, other: Row) -> bool:
    if one.records and other.records:
        return one.records == other.records
    return (one.classes, one.scores["count"]) == (other.classes, other.scores["count"])


def means(
    rows: Sequence[Row],
    groups: Sequence[Sequence[int]],
    models: Sequence[str],
    evaluations: Sequence[Mapping[str, Any]],
) -> dict[int, Row]:
    """By the index of a run's row the row of the mean over the seeds of its group, where several have the same images.

    Args:
        rows: of the runs.
        groups: of `folders.groups`.
        models: what the runs' models are called.
        evaluations: what the rows were made of.
    """
    own = [[index for index in group if rows[index].ranked] for group in groups]
    own = [group for group in own if len(group) > 1 and all(_same(rows[group[0]], rows[index]) for index in group)]
    folders = [os.path.commonpath([os.path.abspath(str(rows[index].made_by.run)) for index in group]) for group in own]
    called = [f"{models[group[0]]}, mean of {len(group)} seeds" for group in own]
    names = pedigree.labels([Pedigree(name, run=folder) for name, folder in zip(called, folders)])
    found = {}
    for name, group in zip(names, own):
        row = scores.of_seeds(name, [rows[index] for index in group], [evaluations[index] for index in group])
        found.update(dict.fromkeys(group, row))
    return found


def bodies(
    rows: Sequence[Row], groups: Sequence[Sequence[int]], means: Mapping[int, Row], below: Mapping[int, Sequence[Row]]
) -> list[list[tuple[Row, int]]]:
    """The rows in the parts of the table, each with how far it is set in.

    Runs that are alone stand together, those of a group below their mean, and `below` each what belongs to it.
    """
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
            found[-1] += [(rows[index], int(bool(mean))), *((row, 1 + bool(mean)) for row in below.get(index, ()))]
    return found


@dataclass(frozen=True)
class Column:
    """What is compared with others: a run, or the mean of several; `runs` are their indexes, the best first."""

    row: Row
    runs: list[int]


def columns(rows: Sequence[Row], means: Mapping[int, Row], images: Sequence[Images]) -> list[Column]:
    """The means, and the runs that are part of none, by the images that they are of, and then the best first."""
    found: dict[int, Column] = {}
    for index in order(rows, images):
        row = means.get(index, rows[index])
        found.setdefault(id(row), Column(row, [])).runs.append(index)
    several = list(found.values())
    return [several[place] for place in order([column.row for column in several], images)]


def order(rows: Sequence[Row], images: Sequence[Images]) -> list[int]:
    """The indexes of rows by the images that they are of, and then the best first."""
    names = [one.name for one in images]

    def place(index: int) -> tuple[int, float]:
        row = rows[index]
        return names.index(row.images) if row.images in names else len(names), -(row.scores["value"] or 0)

    return sorted(range(len(rows)), key=place)
