"""What run folders hold, as a page shows it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.evaluation.pedigree import Pedigree
from tiny_imagenet.report.values import NONE, flat, join, number, text
from tiny_imagenet.runs import Run as RunFolder

DETAILS = {
    "data": "Data",
    "classes": "Classes",
    "seed": "Seed",
    "batch": "Batch",
    "base_lr": "Learning rate",
    "weight_decay": "Weight decay",
    "max_iter": "Iterations at most",
    "stages": "Earlier stages",
    "gpus": "GPUs",
    "init": "First weights",
    "changes": "Changed in the files",
    "started": "Started",
    "commit": "Commit",
    "versions": "Versions",
    "machine": "Machine",
}


# what run.json says of how a run was trained; the seed, the machine and the time are not among it
SETTINGS = (
    *("source", "stages", "init", "batch", "iter_size", "max_iter", "base_lr", "weight_decay", "lmdbs", "classes"),
    *("train_images", "nonlinearity", "screened", "parameters", "schedule"),
)


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        path: the folder.
        info: run.json.
        records: metrics.jsonl, in the order written; empty where there is none.
        evaluation: evaluation.json; empty where there is none.
        ten_crops: evaluation_tencrop.json; empty where there is none.
        predictions: the file of predictions that evaluation.json names, where it is there and in the folder.
    """

    path: Path
    info: dict[str, Any]
    records: list[dict[str, Any]]
    evaluation: dict[str, Any]
    ten_crops: dict[str, Any]
    predictions: Path | None

    @property
    def deploy(self) -> Path:
        """The net that predicts."""
        return RunFolder(self.path).deploy

    @property
    def pedigree(self) -> Pedigree:
        """What to call it by."""
        return pedigree.of_run(self.path, self.info)

    @property
    def model(self) -> str:
        """The model's name, the folder's where run.json does not say."""
        return self.pedigree.name

    @property
    def iterations(self) -> float | None:
        """How many iterations it was trained, as far as it has recorded."""
        return max(filter(None, (number(record.get("iteration")) for record in self.records)), default=None)

    @property
    def records_of_data(self) -> str | None:
        """The sha256 of the images that evaluation.json is of, where run.json has it."""
        split, lmdbs = self.evaluation.get("split"), self.info.get("lmdbs")
        same = self.evaluation.get("data", self.info.get("data")) == self.info.get("data")
        entry = lmdbs.get(split) if same and isinstance(lmdbs, dict) and isinstance(split, str) else None
        return text(entry.get("sha256"), "") or None if isinstance(entry, dict) else None

    def data(self, wanted: str | os.PathLike[str] | None) -> str | None:
        """The data folder of its predictions: `wanted`, else that which its files name; None where they name none."""
        said = [text(value, "") for value in (self.evaluation.get("data"), self.info.get("data"))]
        said = [os.fspath(wanted)] if wanted else [folder for folder in said if folder]
        return next(filter(os.path.isdir, said), said[-1] if said else None)


def read(path: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, it has no run.json, or one of its files is not JSON.
    """
    run = RunFolder(path)
    info, scores = run.info, run.scores
    file = _inside(run.path, text(scores.get("predictions"), run.predictions.name))
    return Run(run.path, info, run.metrics(), scores, _ten_crops(run), file)


def _ten_crops(run: RunFolder) -> dict[str, Any]:
    file = run.evaluation.with_name("evaluation_tencrop.json")  # as tools/evaluate.py --ten-crop calls it
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunError(f"{file}: not a JSON object: write it again with tools/evaluate.py {run.path} --ten-crop")
    return found


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """The indexes of runs that differ in nothing but their seed, in the order of each group's first run.

    A run whose seed nobody knows, or that another of its group has already, is a group of its own.
    """
    found: dict[tuple[str, str], dict[Any, int]] = {}
    for index, run in enumerate(runs):
        how = json.dumps([run.info.get(key) for key in SETTINGS], sort_keys=True)
        seeds = found.setdefault((run.model, how), {})
        seed = run.info.get("seed")
        if isinstance(seed, int) and seed not in seeds:
            seeds[seed] = index
        else:
            found[run.model, f"{how} {index}"] = {seed: index}
    return sorted([*seeds.values()] for seeds in found.values() if seeds)


def about(run: Run, name: str) -> dict[str, Any]:
    """How a run was made: `name`, `command`, `sessions` (when each began, of which commit, and its command; none where
    all was done in one) and `details`, pairs of what and how.
    """
    evaluated = (text(run.evaluation.get("split")), f"iteration {flat(run.evaluation.get('checkpoint'))}")
    return {
        "name": name,
        "command": _command(run.info),
        "sessions": _sessions(run.info),
        "details": [
            ("Run folder", str(run.path)),
            *((label, flat(run.info.get(key))) for key, label in DETAILS.items()),
            ("Evaluated", join(evaluated)),
        ],
    }


def _command(info: Mapping[str, Any]) -> str:
    argv = info.get("argv")
    if not isinstance(argv, list):
        return text(argv, "")
    # what stood in the environment
    settings = [f"--{name}" for name in ("tf32", "deterministic") if info.get(name) is True and f"--{name}" not in argv]
    return shlex.join(map(str, argv + settings))


def _sessions(info: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    sessions = info.get("sessions")
    known = [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []
    rows = [(text(one.get("started")), text(one.get("commit")), _command(one) or NONE) for one in known]
    return rows if len(rows) > 1 else []


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file `name` of a folder, None where it is missing or lies elsewhere (an edited name, a link)."""
    file = folder / name
    try:
        return file if file.is_file() and file.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # no name of a file at all
        return None
