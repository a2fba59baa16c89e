"""What made predictions: model, run, iteration, split and crops; whether that still stands; what to call them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import LINKS, Run

CENTRE = "centre"  # what a predictions file's meta says of one centre crop
MOST_NAMED = 4  # members that an average's name names
MIXED = "mixed"  # `split` or `crops` of an average whose members differ in it


@dataclass(frozen=True)
class Pedigree:
    """What made predictions; None is what nobody knows.

    Attributes:
        name: what they are called in tables.
        path: their file, "" where there is none.
        model: of the net.
        run: the run folder.
        checkpoint: best, last or an iteration, as it was asked for.
        iteration: that of the weights.
        split: train, train_screened, val, test or mixed.
        crops: what a predictions file's meta says of them, or mixed.
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
    def usual(self) -> bool:
        """Whether they are of what the paper's figures are of: the validation split, a centre crop."""
        return self.split == "val" and self.crops == CENTRE


def of(given: Predictions) -> Pedigree:
    """The pedigree of predictions, as their meta says; of an average, what its members have in common."""
    meta = {**_shared(given.meta), **given.meta}
    beside = Path(given.path).parent
    if _says(meta.get("run")) and given.path and not Run(meta["run"]).started and Run(beside).started:
        meta["run"] = os.fspath(beside)  # it was moved
    return read({**meta, "name": _name(given.name, given.meta), "path": given.path})


def of_run(folder: Path, info: Mapping[str, Any]) -> Pedigree:
    """What to call a run by its folder and run.json: its model's name, the folder's where that does not say."""
    name = info.get("model")
    return Pedigree(name if _says(name) else folder.resolve().name, run=os.fspath(folder))


def by_name(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Run]:
    """Runs by their `labels`.

    Raises:
        RunError: a folder is no run.
    """
    runs = [Run(path) for path in paths]
    return dict(zip(labels([of_run(run.path, run.info) for run in runs]), runs))


def read(values: Mapping[str, Any]) -> Pedigree:
    """A pedigree from a JSON object; a value of another kind than it should be is unknown."""
    known = {key: values[key] for key in ("model", "run", "checkpoint", "split", "crops") if _says(values.get(key))}
    iteration = values.get("iteration")
    if isinstance(iteration, int) and not isinstance(iteration, bool):
        known["iteration"] = iteration
    return Pedigree(str(values.get("name")), str(values.get("path") or ""), **known)


def common(values: Iterable[str | None]) -> str | None:
    """What all say alike; None where one does not say, `MIXED` where two differ."""
    said = list(values)
    return None if None in said or not said else said[0] if len(set(said)) == 1 else MIXED


def records(given: Predictions) -> str:
    """The sha256 of the images' keys and labels: the manifest's of the LMDB that was predicted."""
    order = np.argsort(given.keys)
    lines = (f"{key} {label}\n" for key, label in zip(given.keys[order].tolist(), given.labels[order].tolist()))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def moved(one: Pedigree) -> str:
    """That the `best` or `last` of a run is another iteration by now; "" where it is not, or where nobody can tell."""
    if one.run is None or one.checkpoint not in LINKS or one.iteration is None:
        return ""
    try:
        now = int(Run(one.run).weights(one.checkpoint).parent.name)
    except (RunError, ValueError):  # the folder is gone, or its checkpoints are
        return ""
    return "" if now == one.iteration else f"of iteration {one.iteration}, {one.checkpoint} is {now} by now"


def say(split: str | None, crops: str | None) -> str:
    """Split and crops as a few words."""
    if split is None and crops is None:
        return "unknown split and crops"
    images = "unknown split" if split is None else f"{split} split"
    return f"{images}, {say_crops(crops)}"


def say_crops(crops: str | None) -> str:
    """Crops as two words."""
    if crops is None:
        return "unknown crops"
    first = crops.partition(":")[0]
    return f"{first} crop" if first == CENTRE else f"{first} crops"


def called(given: Predictions) -> str:
    """What a figure's title calls predictions: their name or, where they are an average, its members'."""
    members = _members(given.meta)
    return f"{given.name} of {members}" if members else given.name


def joined(names: Sequence[str]) -> str:
    """The names of an average's members or, of many, how many they are."""
    return " + ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} members"


def labels(several: Sequence[Pedigree]) -> list[str]:
    """What to call each in a table: its name, with what tells it from others of that name."""
    return [f"{one.name} ({detail})" if detail else one.name for one, detail in zip(several, details(several))]


def details(several: Sequence[Pedigree]) -> list[str]:
    """What tells each from others of its name, "" where no other has it.

    It is as much of the end of the run's folder as is needed; where that is the same, the iteration, the crops, and as
    much of the end of the file's path.
    """
    found = [""] * len(several)
    for name in {one.name for one in several}:
        places = [index for index, one in enumerate(several) if one.name == name]
        if len(places) > 1:
            for index, detail in zip(places, _apart([several[index] for index in places])):
                found[index] = detail
    return found


def _apart(same: Sequence[Pedigree]) -> list[str]:
    parts: list[list[str]] = [[] for _ in same]
    for texts in (
        tails([one.run for one in same]),
        ["" if one.iteration is None else f"iteration {one.iteration}" for one in same],
        [say_crops(one.crops) for one in same],
        tails([one.path for one in same]),
    ):
        longer = [[*part, text] if text else part for part, text in zip(parts, texts)]
        if len(set(map(tuple, longer))) > len(set(map(tuple, parts))):
            parts = longer
    return [", ".join(part) for part in parts]


def tails(paths: Sequence[str | None]) -> list[str]:
    """As much of each path's end as tells it from the others that differ from it; "" for none."""
    whole = [Path(os.path.abspath(path)).parts if path else () for path in paths]
    different = set(whole) - {()}
    longest = max(map(len, different), default=0)
    length = next((n for n in range(1, longest) if len({parts[-n:] for parts in different}) == len(different)), longest)
    return ["/".join(parts[-length:]).replace("//", "/") if parts else "" for parts in whole]


def _shared(meta: Mapping[str, Any]) -> dict[str, str]:
    """Split and crops of an average's members, members of members included, where they say them."""
    members = meta.get("members")
    if not isinstance(members, list) or not members:
        return {}
    metas = [one["meta"] if isinstance(one, dict) and isinstance(one.get("meta"), dict) else {} for one in members]
    metas = [{**_shared(one), **one} for one in metas]
    found = {key: common(one.get(key) for one in metas) for key in ("split", "crops")}
    return {key: value for key, value in found.items() if value is not None}


def _name(name: object, meta: Mapping[str, Any]) -> str:
    """What a member of an average is called: as it says or, where it is an average itself, by its own members."""
    members = _members(meta)
    return f"({members})" if members else str(name)


def _members(meta: Mapping[str, Any]) -> str:
    """The members of an average by their names; "" where `meta` is that of no average."""
    members = meta.get("members")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        return ""
    metas = [member["meta"] if isinstance(member.get("meta"), dict) else {} for member in members]
    names = [_name(member.get("name"), meta) for member, meta in zip(members, metas)]
    known = [{**meta, "name": name, "path": one.get("path")} for one, meta, name in zip(members, metas, names)]
    return joined(labels([read(one) for one in known]))


def _says(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
