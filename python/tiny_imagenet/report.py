"""One self-contained HTML page about runs: results beside the paper's, curves, confusion and how to make them again.

Whatever is missing from a run's files is shown as "-", so that a run still training, or one whose files somebody
edited, has its place on the page. The same files give the same bytes.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from tiny_imagenet import figures, metrics, paper, predictions
from tiny_imagenet.errors import PredictionsError, RunError, TinyImageNetError
from tiny_imagenet.files import write_text
from tiny_imagenet.runs import Run as RunFolder

TEMPLATES = Path(__file__).parent / "templates"
NONE = "-"
DETAILS = {
    "data": "Data",
    "classes": "Classes",
    "seed": "Seed",
    "batch": "Batch",
    "started": "Started",
    "commit": "Commit",
    "versions": "Versions",
    "machine": "Machine",
}
PAIRS = 8  # the most confused pairs of classes that are listed


@dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
        path: the folder.
        info: run.json.
        records: metrics.jsonl, in the order written; empty where there is none.
        evaluation: evaluation.json; empty where there is none.
        predictions: the file of predictions that evaluation.json names, where it is there and in the folder.
    """

    path: Path
    info: dict[str, Any]
    records: list[dict[str, Any]]
    evaluation: dict[str, Any]
    predictions: Path | None

    @property
    def model(self) -> str:
        """The model's name, the folder's where run.json does not say."""
        return _text(self.info.get("model"), self.path.resolve().name)


def read(path: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, it has no run.json, or one of its files is not JSON.
    """
    run = RunFolder(path)
    info, scores = run.info, run.scores
    file = _inside(run.path, _text(scores.get("predictions"), run.predictions.name))
    return Run(run.path, info, run.metrics(), scores, file)


def curves(runs: Sequence[Run]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs' records by name, as `figures.curves` takes them."""
    return {name: run.records for name, run in zip(_names(runs), runs)}


def class_names(given: predictions.Predictions) -> list[str] | None:
    """Return one name a class, or None where there is not one for each.

    They are the meta's `class_names` (an average has its first member's), else the words in the manifest.json of the
    data that the run beside the file was trained on.
    """
    meta = given.meta
    while "class_names" not in meta and isinstance(meta.get("members"), list) and meta["members"]:
        first = meta["members"][0]
        meta = first["meta"] if isinstance(first, dict) and isinstance(first.get("meta"), dict) else {}
    names = meta.get("class_names")
    if names is None and given.path:
        try:
            data = json.loads((Path(given.path).parent / "run.json").read_text(encoding="utf-8"))["data"]
            manifest = json.loads((Path(data) / "manifest.json").read_text(encoding="utf-8"))
            names = [entry["words"] or entry["wnid"] for entry in manifest["classes"]]
        except (OSError, ValueError, KeyError, TypeError):  # numbers will do
            return None
    fits = isinstance(names, list) and len(names) == given.classes and all(isinstance(name, str) for name in names)
    return names if fits else None


def build(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    ensembles: Sequence[str | os.PathLike[str]] = (),
) -> None:
    """Write the page about `runs`, run folders, and `ensembles`, files of `tools/ensemble.py --json`, to `out`.

    Raises:
        RunError: a run folder cannot be read, or there is none.
        PredictionsError: an ensemble's file or a run's predictions cannot be read.
        TinyImageNetError: `out` cannot be written.
    """
    if not runs:
        raise RunError("a report needs at least one run folder: make one with tools/train.py")
    read_runs = [read(run) for run in runs]
    rows = [_run_row(run, name) for run, name in zip(read_runs, _names(read_runs))]
    averages = [_ensemble_row(path) for path in ensembles]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    scored = [row for row in rows if row["scores"]["value"] is not None]
    page = environment.get_template("report.html.j2").render(
        rows=rows,
        ensembles=averages,
        best=max(scored, key=lambda row: row["scores"]["value"], default=None),
        incomparable=[row for row in rows + averages if not row["comparable"]],
        paper_classes=paper.CLASSES,
        curves=_curve_figures(read_runs),
        confusion=_confusion_section(read_runs, rows),
    )
    write_text(out, page)


def _run_row(run: Run, name: str) -> dict[str, Any]:
    info, known = run.info, paper.MODELS.get(run.model)
    classes = _number(run.evaluation.get("classes", info.get("classes")))
    iterations = [value for value in (_number(record.get("iteration")) for record in run.records) if value is not None]
    argv = info.get("argv")
    command = shlex.join(map(str, argv)) if isinstance(argv, list) else _text(argv, "")
    return {
        "name": name,
        "folder": str(run.path),
        "nonlinearity": _text(info.get("nonlinearity")),
        "screened": "yes" if info.get("screened") is True else "no" if info.get("screened") is False else NONE,
        "parameters": _integer(info.get("parameters")),
        "iterations": _integer(max(iterations, default=None)),
        "images": _integer(info.get("train_images")),
        "scores": _scores(run.evaluation),
        "evaluated": bool(run.evaluation),
        "split": _text(run.evaluation.get("split")),
        "classes": _integer(classes),
        "comparable": classes == paper.CLASSES,
        "paper": f"{known.validation_accuracy:.2f}" if known else NONE,
        "paper_at": known.validation_accuracy if known else None,
        "command": command,
        "details": [
            ("Run folder", str(run.path)),
            *((label, _flat(info.get(key))) for key, label in DETAILS.items()),
            ("Evaluated", _join(_text(run.evaluation.get(key)) for key in ("split", "checkpoint"))),
        ],
    }


def _ensemble_row(path: str | os.PathLike[str]) -> dict[str, Any]:
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
        "scores": _scores(scores),
        "comparable": _number(scores.get("classes")) == paper.CLASSES,
        "classes": _integer(scores.get("classes")),
        "paper": f"{known.validation_accuracy:g}" if known else NONE,
        "paper_at": known.validation_accuracy if known else None,
    }


def _scores(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores as text in per cent, and the numbers that place the interval's mark."""
    interval = summary.get("top1_interval")
    ends = [_share(end) for end in interval] if isinstance(interval, list) and len(interval) == 2 else [None, None]
    value = _share(summary.get("top1"))
    return {
        "value": value,
        "top1": _percent(value),
        "interval": NONE if None in ends else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}",
        "mark": None if value is None or None in ends else [round(100 * x, 3) for x in (ends[0], value, ends[1])],
        "top5": _percent(_share(summary.get("top5"))),
        "error": _percent(_share(summary.get("error"))),
        "count": _integer(summary.get("count")),
    }


def _uneven(weights: Any) -> bool:
    numbers = [_number(weight) for weight in weights] if isinstance(weights, list) else []
    return None not in numbers and len(set(numbers)) > 1


def _curve_figures(runs: Sequence[Run]) -> list[Markup]:
    drawn = []
    for panel, title in figures.PANELS.items():
        try:
            figure = figures.curves(curves(runs), [panel])
        except TinyImageNetError:  # nothing was recorded, which the page says
            continue
        drawn.append(_inline(figures.svg(figure), panel, f"{title} against the iteration, a line a run"))
    return drawn


def _confusion_section(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the figure of the best run that has predictions with labels, and its most confused pairs of classes."""
    order = sorted(zip(runs, rows), key=lambda pair: -(pair[1]["scores"]["value"] or 0))
    for run, row in order:
        if run.predictions is None:
            continue
        loaded = predictions.load(run.predictions)
        if not (loaded.labels >= 0).any():
            continue
        counts = metrics.confusion(loaded)
        names = class_names(loaded) or [str(index) for index in range(loaded.classes)]
        totals, mistakes = counts.sum(axis=1), counts - np.diag(counts.diagonal())
        flat = np.argsort(-mistakes, axis=None, kind="stable")[:PAIRS]
        pairs = [divmod(int(place), len(counts)) for place in flat]
        label = f"Confusion matrix of {row['name']}, true classes down, predicted classes across"
        return {
            "name": row["name"],
            "figure": _inline(figures.svg(figures.confusion(loaded, names)), "confusion", label),
            "pairs": [
                (names[true], names[other], _integer(mistakes[true, other]), _integer(totals[true]))
                for true, other in pairs
                if mistakes[true, other]
            ],
        }
    return None


def _inline(svg: str, prefix: str, label: str) -> Markup:
    """Make a figure part of the page: its ids its own, as wide as its place, in the page's text colour."""
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2).replace(figures.INK, "currentColor")
    return Markup('<svg role="img" aria-label="{}"').format(label) + Markup(svg[len("<svg") :])


def _names(runs: Sequence[Run]) -> list[str]:
    """Return each run's model, with the folder where several runs share it."""
    models = [run.model for run in runs]
    return [run.model if models.count(run.model) == 1 else f"{run.model} ({run.path})" for run in runs]


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file `name` of a folder, None where it is missing or lies elsewhere (an edited name, a link)."""
    file = folder / name
    try:
        return file if file.is_file() and file.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # no name of a file at all
        return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value


def _share(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.2f}"


def _integer(value: Any) -> str:
    number = _number(int(value) if isinstance(value, np.integer) else value)
    return NONE if number is None else f"{number:,.0f}"


def _text(value: Any, otherwise: str = NONE) -> str:
    return value if isinstance(value, str) and value.strip() else otherwise


def _flat(value: Any) -> str:
    """Return any JSON value as a line of text."""
    if isinstance(value, Mapping):
        return _join(f"{key} {_flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return _join(_flat(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return NONE if value is None or value == "" else str(value)


def _join(parts: Iterable[str]) -> str:
    return " · ".join(parts) or NONE
