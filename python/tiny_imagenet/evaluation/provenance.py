"""Provenance of predictions: model, run, iteration, split and crops, and the names built from them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import LINKS, Run

CENTRE = "centre"  # the value of `crops` for one centre crop
MOST_NAMED = 4  # an ensemble with more members is named by their number
MIXED = "mixed"  # the value of `split` or `crops` if the members of an ensemble differ


@dataclass(frozen=True)
class Provenance:
    """How predictions were made; unknown values are None.

    Attributes:
        name: in tables.
        path: of the predictions file, or "".
        model: name of the net.
        run: the run folder.
        checkpoint: best, last or an iteration, as requested.
        iteration: of the weights.
        split: train, train_screened, val, test or mixed.
        crops: centre, a text starting with "ten:", or mixed.
    """

    name: str
    path: str = ""
    model: str | None = None
    run: str | None = None
    checkpoint: str | None = None
    iteration: int | None = None
    split: str | None = None
    crops: str | None = None

    @property
    def like_paper(self) -> bool:
        """Whether the scores are comparable with the paper's: the validation split, one centre crop."""
        return self.split == "val" and self.crops == CENTRE

    @property
    def images(self) -> str:
        """Split and crops in words, such as "val split, centre crop"."""
        return f"{self.split or 'unknown'} split, {crops_text(self.crops)}"


def of(given: Predictions) -> Provenance:
    """The provenance recorded in `meta`."""
    meta = {**given.meta, "name": _name(given.name, given.meta), "path": given.path}
    if meta.get("run") and given.path and not Run(meta["run"]).started and Run(Path(given.path).parent).started:
        meta["run"] = os.fspath(Path(given.path).parent)  # the run folder was moved
    return read(meta)


def of_run(folder: Path, info: Mapping[str, Any]) -> Provenance:
    """The provenance of a run by its folder and run.json; its name is the model's, or else the folder's."""
    return Provenance(info.get("model") or folder.resolve().name, run=os.fspath(folder))


def by_name(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Run]:
    """Runs by their `labels`; RunError if a folder is not a run folder."""
    runs = [Run(path) for path in paths]
    return dict(zip(labels([of_run(run.path, run.info) for run in runs]), runs))


def read(values: Mapping[str, Any]) -> Provenance:
    """A provenance from a JSON object; other keys are ignored."""
    return Provenance(**{key.name: values[key.name] for key in fields(Provenance) if values.get(key.name) is not None})


def common(values: Iterable[str | None]) -> str | None:
    """The value that all share; None if one is unknown, `MIXED` if two differ."""
    found = list(values)
    return None if None in found or not found else found[0] if len(set(found)) == 1 else MIXED


def stale(one: Provenance) -> str:
    """A phrase if the run's best or last checkpoint is now another iteration, else ""."""
    if one.run is None or one.checkpoint not in LINKS or one.iteration is None:
        return ""
    try:
        now = int(Run(one.run).weights(one.checkpoint).parent.name)
    except (RunError, ValueError):  # the run folder or its checkpoints are missing
        return ""
    return "" if now == one.iteration else f"from iteration {one.iteration}, but {one.checkpoint} is now {now}"


def crops_text(crops: str | None) -> str:
    """Crops in words, such as "centre crop" or "ten crops"."""
    first = (crops or "unknown").partition(":")[0]
    return f"{first} crop" if first == CENTRE else f"{first} crops"


def title(given: Predictions) -> str:
    """The name of predictions in a figure's title: model and run, or an ensemble and its members."""
    if _members(given.meta):
        return f"{given.name} of {_joined_members(given.meta)}"
    return labels([of(given)])[0]


def joined(names: Sequence[str]) -> str:
    """The names of an ensemble's members, or their number if there are many."""
    return " + ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} members"


def labels(several: Sequence[Provenance]) -> list[str]:
    """The name of each in a table, with its `details` in parentheses."""
    return [f"{one.name} ({detail})" if detail else one.name for one, detail in zip(several, details(several))]


def details(several: Sequence[Provenance]) -> list[str]:
    """The end of each run folder, if it is not the name itself, and what distinguishes equal names.

    As much of the folder's path is used as is needed, then the iteration, the crops and the end of the file's path.
    """
    found = [""] * len(several)
    for name in {one.name for one in several}:
        places = [index for index, one in enumerate(several) if one.name == name]
        for index, detail in zip(places, _details([several[index] for index in places])):
            found[index] = detail
    return found


def _details(same: Sequence[Provenance]) -> list[str]:
    runs = tails([one.run for one in same])
    parts = [[run] if run and run != one.name else [] for run, one in zip(runs, same)]
    for texts in (
        ["" if one.iteration is None else f"iteration {one.iteration}" for one in same],
        [crops_text(one.crops) for one in same],
        tails([one.path for one in same]),
    ):
        longer = [[*part, text] if text else part for part, text in zip(parts, texts)]
        if len(set(map(tuple, longer))) > len(set(map(tuple, parts))):
            parts = longer
    return [", ".join(part) for part in parts]


def tails(paths: Sequence[str | None]) -> list[str]:
    """The shortest ends of paths that distinguish those that differ; "" for no path."""
    whole = [Path(os.path.abspath(path)).parts if path else () for path in paths]
    different = set(whole) - {()}
    longest = max(map(len, different), default=0)
    length = next((n for n in range(1, longest) if len({parts[-n:] for parts in different}) == len(different)), longest)
    return ["/".join(parts[-length:]).replace("//", "/") if parts else "" for parts in whole]


def _name(name: str, meta: Mapping[str, Any]) -> str:
    return f"({_joined_members(meta)})" if _members(meta) else name


def _members(meta: Mapping[str, Any]) -> list[dict[str, Any]]:
    return meta.get("members") or []


def _joined_members(meta: Mapping[str, Any]) -> str:
    members = [(one, one.get("meta") or {}) for one in _members(meta)]
    known = [{**own, "name": _name(one.get("name"), own), "path": one.get("path")} for one, own in members]
    return joined(labels([read(one) for one in known]))
