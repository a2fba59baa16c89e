"""What tools/ensemble.py --json printed, as rows of a page's table and the command that prints it again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tiny_imagenet import metrics, paper, pedigree, predictions
from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.pedigree import Pedigree
from tiny_imagenet.report_scores import Row, of
from tiny_imagenet.report_values import NONE, number

_ADVICE = "write it with tools/ensemble.py PRED.npz PRED.npz --json > FILE.json"
MOST_NAMED = 4  # members that a row names


@dataclass(frozen=True)
class Ensemble:
    """An average.

    Attributes:
        row: of its scores.
        held_out: the row of a search's scores on images that it did not choose on; None where there are none.
        members: their names and weights.
        command: what prints it again.
    """

    row: Row
    held_out: Row | None
    members: list[tuple[str, str]]
    command: str


def read(paths: Sequence[str | os.PathLike[str]]) -> list[Ensemble]:
    """The averages that files of `tools/ensemble.py --json` tell of; equal ones are told apart by their paths.

    Raises:
        PredictionsError: one is no such file.
    """
    found = [_read(Path(path)) for path in paths]
    called = [Pedigree(" ".join([one.row.name, *one.row.about]), os.fspath(path)) for one, path in zip(found, paths)]
    for one, detail in zip(found, pedigree.details(called)):
        one.row.name += f" ({detail})" if detail else ""
    return found


def _read(path: Path) -> Ensemble:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        members, scores = value["members"], value["ensemble"]
        made_by = [pedigree.read(member) for member in members if member["name"]]
        if not isinstance(scores, dict) or not members:
            raise TypeError("scores")
    except FileNotFoundError as error:
        raise PredictionsError(f"{path}: no such file: {_ADVICE}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PredictionsError(f"{path}: not what tools/ensemble.py --json prints: {_ADVICE}") from error
    if "split" not in value:  # an earlier version's
        made_by = [_from_file(one, member, path.parent) for one, member in zip(made_by, members)]
        value = {
            **value,
            "split": pedigree.common(one.split for one in made_by),
            "crops": pedigree.common(one.crops for one in made_by),
        }
    return _rows(value, made_by)


def _from_file(one: Pedigree, member: Mapping[str, Any], folder: Path) -> Pedigree:
    """What made a member, from its file where that is still there and gives the scores that the member has."""
    for path in (Path(one.path), folder / one.path):
        if one.path and path.is_file():
            try:
                given = predictions.load(path)
            except PredictionsError:  # another file by now
                continue
            scored = (given.labels >= 0).any() and metrics.summary(given)
            if scored and (scored["top1"], scored["count"]) == (member.get("top1"), member.get("count")):
                return replace(pedigree.of(given), name=one.name, path=one.path)
    return one


def _rows(value: Mapping[str, Any], made_by: Sequence[Pedigree]) -> Ensemble:
    labels, scores = pedigree.labels(made_by), value["ensemble"]
    known = paper.ensemble(one.name for one in made_by)
    weights = [number(weight) for weight in value["weights"]] if isinstance(value.get("weights"), list) else []
    uneven = None not in weights and len(set(weights)) > 1
    searched, held = isinstance(value.get("search"), dict), value.get("held_out")
    held = held if searched and isinstance(held, dict) else None
    name = " + ".join(labels) if len(labels) <= MOST_NAMED else f"{len(labels)} members"
    name = "all nine models" if known is paper.FULL_ENSEMBLE else name
    own = pedigree.read({"name": name, "split": value.get("split"), "crops": value.get("crops")})
    moved = [f"{label} is {text}" for label, one in zip(labels, made_by) if (text := pedigree.moved(one))]
    records, classes = value.get("records"), number(scores.get("classes"))
    row = Row(
        name,
        "ensemble",
        of(scores),
        own,
        records if isinstance(records, str) else None,
        classes,
        known.validation_accuracy if known and not uneven else None,
        said=_weights(weights) if uneven else "equal weights",
        moved=moved and f"In the ensemble of {name} {', '.join(moved)}: evaluate that and average again",
        searched=searched,
    )
    command = ["tools/ensemble.py", *(one.path or "-" for one in made_by)]
    if searched:
        command += ["--search", *(_folds(held) if held else [])]
    elif uneven:
        command += ["--weights", *(f"{weight:.6g}" for weight in weights)]
    shares = [f"{weight:.3g}" if weight is not None else NONE for weight in weights] or [NONE] * len(labels)
    return Ensemble(
        row, _held_out(held, own) if held else None, list(zip(labels, shares)), shlex.join([*command, "--json"])
    )


def _weights(weights: Sequence[float]) -> str:
    if len(weights) > MOST_NAMED:
        return f"unequal weights, {sum(map(bool, weights))} of {len(weights)} above 0"
    return "weights " + ", ".join(f"{weight:.3g}" for weight in weights)


def _folds(held: Mapping[str, Any]) -> list[str]:
    folds, seed = held.get("folds"), number(held.get("seed"))
    return ["--folds", str(len(folds)), *(["--seed", f"{seed:.0f}"] if seed else [])] if isinstance(folds, list) else []


def _held_out(held: Mapping[str, Any], made_by: Pedigree) -> Row:
    folds = f", {len(held['folds'])} folds" if isinstance(held.get("folds"), list) else ""
    said = "each image by weights that were chosen without it"
    return Row(f"the same held out{folds}", "held out", of(held), made_by, said=said)
