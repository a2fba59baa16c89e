"""Run folders as the page shows them: files, settings, progress, and how to reproduce them."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiny_imagenet import cli, runs
from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import data_source, metrics, predictions, provenance
from tiny_imagenet.evaluation.metrics import NONE
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run

# Columns of the results table: title, key of run.json, whether they are numbers.
SETTINGS = (
    ("Nonlinearity", "nonlinearity", False),
    ("Screened", "screened", False),
    ("Parameters", "parameters", True),
    ("Batch", "batch", True),
    ("Rate", "base_lr", True),
    ("Seed", "seed", True),
)

# Columns of the table of trainings: title, key of `progress`, whether they are numbers.
TRAINING = (
    ("Run", "name", False),
    ("State", "state", False),
    ("Iteration", "iteration", True),
    ("Epoch", "epoch", True),
    ("Rate", "rate", True),
    ("Loss", "loss", True),
    ("Best top-1 %", "top1", True),
    ("Images/s", "speed", True),
    ("Training images", "images", True),
    ("Time", "time", False),
)

# Settings that runs have in common if they differ only in their seeds.
SAME = (
    *("model", "source", "stages", "init", "batch", "iter_size", "max_iter", "base_lr", "weight_decay", "lmdbs"),
    *("classes", "train_images", "nonlinearity", "screened", "parameters", "schedule"),
)

# Keys of run.json that the page does not list: they are long or shown elsewhere.
HIDDEN = ("model", "argv", "sessions", "wnids", "lmdbs", "schedule", "finished", "ranks", "gradients")


@dataclass(frozen=True)
class Folder:
    """The contents of a run folder; missing files are empty.

    Attributes:
        run: the folder.
        model: name of the model.
        detail: distinguishes it from other runs of the model.
        info: run.json.
        records: metrics.jsonl.
        evaluation: evaluation.json.
        ten_crops: evaluation_tencrop.json.
        given: predictions.npz; None if it is missing or has no labels.
    """

    run: Run
    model: str
    detail: str
    info: dict[str, Any]
    records: list[dict[str, Any]]
    evaluation: dict[str, Any]
    ten_crops: dict[str, Any]
    given: Predictions | None

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.model} ({self.detail})" if self.detail else self.model

    @property
    def images(self) -> str | None:
        """The sha256 of the images that were evaluated; None if unknown."""
        if self.given:
            return self.given.records
        if self.evaluation.get("data", self.info.get("data")) != self.info.get("data"):
            return None
        return self.info.get("lmdbs", {}).get(self.evaluation.get("split"), {}).get("sha256")

    @property
    def iterations(self) -> int | None:
        """The iteration of the last record."""
        return max((record["iteration"] for record in self.records if record.get("iteration")), default=None)

    @property
    def classes(self) -> dict[tuple[int, str], dict[str, Any]]:
        """The scores of each class by its number and name, from evaluation.json or the predictions."""
        rows = self.evaluation.get("per_class")
        if rows is None and self.given:
            rows = [{"index": n, **row} for n, row in enumerate(metrics.class_scores(self.given))]
            rows = [{"words": name, **row} for name, row in zip(class_names(self.given), rows)]
        return {(row["index"], row["words"] or row["wnid"]): row for row in rows or [] if row["top1"] is not None}

    def data(self, wanted: str | os.PathLike[str] | None) -> str | None:
        """The data folder of the predictions: `wanted`, or the one in its files; None if unknown."""
        known = [os.fspath(wanted)] if wanted else [self.evaluation.get("data"), self.info.get("data")]
        known = [folder for folder in known if folder]
        return next(filter(os.path.isdir, known), known[-1] if known else None)


def read(paths: Sequence[str | os.PathLike[str]]) -> list[Folder]:
    """Read run folders; a folder that is given twice is read once.

    Raises:
        RunError: a folder is not a run folder, or one of its files is not JSON.
        PredictionsError: its predictions cannot be read.
    """
    found: dict[str, str | os.PathLike[str]] = {}
    for path in paths:
        if os.path.realpath(path) in found:
            cli.note(f"note: {path} is given twice and shown once")
        found.setdefault(os.path.realpath(path), path)
    several = [Run(path) for path in found.values()]
    known = [provenance.of_run(run.path, run.info) for run in several]
    folders = []
    for run, one, detail in zip(several, known, provenance.details(known)):
        given = predictions.load(run.predictions) if run.scores and run.predictions.is_file() else None
        labelled = given if given and (given.labels >= 0).any() else None
        files = run.info, run.metrics(), run.scores, _ten_crops(run)
        folders.append(Folder(run, one.name, detail, *files, labelled))
    return folders


def _ten_crops(run: Run) -> dict[str, Any]:
    file = run.evaluation.with_name("evaluation_tencrop.json")
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{file} is not JSON: repeat tools/evaluate.py {run.path} --ten-crop") from error


def class_names(given: Predictions) -> list[str]:
    """The names of classes; their numbers if unknown."""
    return data_source.class_names(given) or [str(number) for number in range(given.classes)]


def groups(several: Sequence[Folder]) -> list[list[int]]:
    """Indices of runs that differ only in their seeds, in the order of each group's first run."""
    found: dict[str, dict[Any, int]] = {}
    for index, folder in enumerate(several):
        how = json.dumps([folder.model, *(folder.info.get(key) for key in SAME)], sort_keys=True)
        seed = folder.info.get("seed")
        own = found.setdefault(how, {})
        if seed is None or seed in own:
            own = found[f"{how} {index}"] = {}
        own[seed] = index
    return sorted([*seeds.values()] for seeds in found.values() if seeds)


def settings(info: Mapping[str, Any]) -> list[str]:
    """The cells of the results table that show how a run was made."""
    return [str(info[key]) if key == "seed" and key in info else text(info.get(key)) for _, key, _ in SETTINGS]


def text(value: Any) -> str:
    """A value of a JSON file on one line; "-" if it is missing."""
    if isinstance(value, Mapping):
        return join(f"{key} {text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return join(map(text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return NONE if value in (None, "") else str(value)


def join(parts: Any) -> str:
    """Parts on one line."""
    return " · ".join(parts) or NONE


def progress(folder: Folder) -> dict[str, Any]:
    """State and last records of a training, by the keys of `TRAINING`, and `cells`, a list of them."""
    finished = folder.info.get("finished")
    running = runs.in_use(folder.run.path)
    last: dict[str, Any] = {}
    for record in folder.records:
        last.update({key: value for key, value in record.items() if value is not None})
    best = max((record["top1"] for record in folder.records if record.get("top1") is not None), default=None)
    iteration, most, speed = folder.iterations or 0, folder.info.get("max_iter"), last.get("images_per_second")
    time = duration(finished["seconds"]) if finished and "seconds" in finished else NONE
    if running and most and speed:
        time = f"about {duration((most - iteration) * folder.info['batch'] / speed)} left"
    found = {
        "name": folder.name,
        "state": "training" if running else "finished" if finished else "not finished",
        "iteration": f"{iteration:,}" + (f" of {most:,}" if most else ""),
        "epoch": text(last.get("epoch")),
        "rate": text(last.get("learning_rate")),
        "loss": text(last.get("train_loss")),
        "top1": metrics.percent(best),
        "speed": f"{speed:,.0f}" if speed else NONE,
        "images": text(folder.info.get("train_images")),
        "time": time,
    }
    return {**found, "cells": [found[key] for _, key, _ in TRAINING]}


def duration(seconds: float) -> str:
    """A duration in words, such as "2 h 05 min"."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def about(folder: Folder) -> dict[str, Any]:
    """How to reproduce a run: `name`, `command`, `sessions` (start, commit and command of each) and `details`."""
    sessions = folder.info.get("sessions", [])
    evaluated = f"{folder.evaluation.get('split')} · iteration {folder.evaluation.get('checkpoint')}"
    return {
        "name": folder.name,
        "command": command(folder.info),
        "sessions": [(text(one.get("started")), text(one.get("commit")), command(one)) for one in sessions],
        "details": [
            ("Run folder", str(folder.run.path)),
            *(
                (key.replace("_", " ").capitalize(), text(value))
                for key, value in folder.info.items()
                if key not in HIDDEN
            ),
            ("Evaluated", evaluated if folder.evaluation else NONE),
        ],
    }


def command(info: Mapping[str, Any]) -> str:
    """The command that started a run or session, with the settings that came from environment variables."""
    argv = info.get("argv") or []
    extra = [f"--{name}" for name in ("tf32", "deterministic") if info.get(name) is True and f"--{name}" not in argv]
    return shlex.join([*map(str, argv), *extra]) if argv else ""
