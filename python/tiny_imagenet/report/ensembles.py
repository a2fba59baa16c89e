"""What tools/ensemble.py --json printed, as rows of a page's table and the command that prints it again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.evaluation.pedigree import Pedigree
from tiny_imagenet.models import paper
from tiny_imagenet.report.scores import Row, of
from tiny_imagenet.report.values import NONE, number

_ADVICE = "write it with tools/ensemble.py PRED.npz PRED.npz --json > FILE.json"


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


def read(paths: Sequence[str | os.PathLike[str]], known: Sequence[Pedigree] = ()) -> list[Ensemble]:
    """The averages that files of `tools/ensemble.py --json` tell of; equal ones are told apart by their paths.

    Args:
        paths: the files.
        known: the page's runs, whose names the members have that were made by them.

    Raises:
        PredictionsError: one is no such file.
    """
    names = {(run.name, os.path.realpath(str(run.run))): label for run, label in zip(known, pedigree.labels(known))}
    found = [_read(Path(path), names) for path in paths]
    called = [Pedigree(" ".join([one.row.name, *one.row.about]), os.fspath(path)) for one, path in zip(found, paths)]
    for one, detail in zip(found, pedigree.details(called)):
        one.row.name += f" ({detail})" if detail else ""
    return found


def _read(path: Path, names: Mapping[tuple[str, str], str]) -> Ensemble:
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
    return _rows(value, made_by, names)


def _labels(made_by: Sequence[Pedigree], names: Mapping[tuple[str, str], str]) -> list[str]:
    """What to call members: as the page calls their runs, where that tells them apart."""
    labels = pedigree.labels(made_by)
    own = [names.get((one.name, os.path.realpath(str(one.run))), label) for one, label in zip(made_by, labels)]
    return own if len(set(own)) == len(own) else labels


def _rows(value: Mapping[str, Any], made_by: Sequence[Pedigree], names: Mapping[tuple[str, str], str]) -> Ensemble:
    labels, scores = _labels(made_by, names), value["ensemble"]
    known = paper.ensemble(one.name for one in made_by)
    weights = [number(weight) for weight in value["weights"]] if isinstance(value.get("weights"), list) else []
    uneven = None not in weights and len(set(weights)) > 1
    searched, held = isinstance(value.get("search"), dict), value.get("held_out")
    held = held if searched and isinstance(held, dict) else None
    name = f"{known.name} models" if known and known.name.startswith("all") else pedigree.joined(labels)
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
    if len(weights) > pedigree.MOST_NAMED:
        return f"unequal weights, {sum(map(bool, weights))} of {len(weights)} above 0"
    return "weights " + ", ".join(f"{weight:.3g}" for weight in weights)


def _folds(held: Mapping[str, Any]) -> list[str]:
    folds, seed = held.get("folds"), number(held.get("seed"))
    return ["--folds", str(len(folds)), *(["--seed", f"{seed:.0f}"] if seed else [])] if isinstance(folds, list) else []


def _held_out(held: Mapping[str, Any], made_by: Pedigree) -> Row:
    folds = f", {len(held['folds'])} folds" if isinstance(held.get("folds"), list) else ""
    said = "each image by weights that were chosen without it"
    return Row(f"the same held out{folds}", "held out", of(held), made_by, said=said)
