"""One self-contained HTML page about runs: results beside the paper's, curves, confusion and how to make them again.

Whatever is missing from a run's files is shown as "-", so that a run still training, or one whose files somebody
edited, has its place on the page. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tiny_imagenet import (
    figures,
    metrics,
    paper,
    predictions,
    report_classes,
    report_gallery,
    report_nets,
    report_scores,
)
from tiny_imagenet.errors import RunError, TinyImageNetError
from tiny_imagenet.files import write_text
from tiny_imagenet.report_values import NONE, flat, inline, integer, join, number, text
from tiny_imagenet.runs import Run as RunFolder

TEMPLATES = Path(__file__).parent / "templates"
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
    def deploy(self) -> Path:
        """The net that predicts."""
        return RunFolder(self.path).deploy

    @property
    def model(self) -> str:
        """The model's name, the folder's where run.json does not say."""
        return text(self.info.get("model"), self.path.resolve().name)


def read(path: str | os.PathLike[str]) -> Run:
    """Read a run folder.

    Raises:
        RunError: there is no such folder, it has no run.json, or one of its files is not JSON.
    """
    run = RunFolder(path)
    info, scores = run.info, run.scores
    file = _inside(run.path, text(scores.get("predictions"), run.predictions.name))
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
    averages = [report_scores.ensemble(path) for path in ensembles]
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
        nets=report_nets.of((row["name"], run.deploy) for row, run in zip(rows, read_runs)),
        script=_script(),
        **_looked_into(read_runs, rows),
    )
    write_text(out, page)


def _run_row(run: Run, name: str) -> dict[str, Any]:
    info, known = run.info, paper.MODELS.get(run.model)
    classes = number(run.evaluation.get("classes", info.get("classes")))
    iterations = [value for value in (number(record.get("iteration")) for record in run.records) if value is not None]
    return {
        "name": name,
        "folder": str(run.path),
        "nonlinearity": text(info.get("nonlinearity")),
        "screened": "yes" if info.get("screened") is True else "no" if info.get("screened") is False else NONE,
        "parameters": integer(info.get("parameters")),
        "iterations": integer(max(iterations, default=None)),
        "images": integer(info.get("train_images")),
        "scores": report_scores.of(run.evaluation),
        "evaluated": bool(run.evaluation),
        "split": text(run.evaluation.get("split")),
        "classes": integer(classes),
        "comparable": classes == paper.CLASSES,
        "paper": f"{known.validation_accuracy:.2f}" if known else NONE,
        "paper_at": known.validation_accuracy if known else None,
        "command": _command(info),
        "sessions": _sessions(info),
        "details": [
            ("Run folder", str(run.path)),
            *((label, flat(info.get(key))) for key, label in DETAILS.items()),
            (
                "Evaluated",
                join((text(run.evaluation.get("split")), f"iteration {flat(run.evaluation.get('checkpoint'))}")),
            ),
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
    """Return when each session began, of which commit, and its command; none where all was done in one."""
    sessions = info.get("sessions")
    known = [session for session in sessions if isinstance(session, dict)] if isinstance(sessions, list) else []
    rows = [(text(one.get("started")), text(one.get("commit")), _command(one) or NONE) for one in known]
    return rows if len(rows) > 1 else []


def _curve_figures(runs: Sequence[Run]) -> list[Markup]:
    drawn = []
    for panel, title in figures.PANELS.items():
        try:
            figure = figures.curves(curves(runs), [panel])
        except TinyImageNetError:  # nothing was recorded, which the page says
            continue
        drawn.append(_figure(figures.svg(figure), panel, f"{title} against the iteration, a line a run"))
    return drawn


def _looked_into(runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what single predictions say of the runs: the confusion of the best, the worst classes and the errors."""
    order = sorted(range(len(runs)), key=lambda index: -(rows[index]["scores"]["value"] or 0))
    found: dict[str, Any] = {"confusion": None, "worst": None}
    galleries, classes = {}, {}
    for index in order:
        run, row = runs[index], rows[index]
        given = predictions.load(run.predictions) if run.predictions else None
        if given is not None and not (given.labels >= 0).any():
            given = None
        names = given and class_names(given)
        classes[index] = report_classes.of(run.evaluation, given, names)
        if given is None:
            continue
        names = names or [str(label) for label in range(given.classes)]
        found["confusion"] = found["confusion"] or _confusion_section(row["name"], given, names)
        data = text(run.evaluation.get("data"), text(run.info.get("data"), "")) or None
        shown = report_gallery.of(given, data, names, report_gallery.share(len(runs)))
        galleries[index] = {"name": row["name"], **shown}
    compared = [index for index in range(len(runs)) if classes[index]]
    first = next((index for index in order if classes[index]), None)
    if first is not None:
        found["worst"] = {
            "name": rows[first]["name"],
            "columns": [rows[index]["name"] for index in compared],
            "rows": report_classes.worst([classes[index] for index in compared], compared.index(first)),
        }
    found["gallery"] = [galleries[index] for index in sorted(galleries)]
    found["gallery_classes"] = report_gallery.classes(found["gallery"])
    return found


def _confusion_section(name: str, given: predictions.Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Return the figure of predictions with labels, and their most confused pairs of classes."""
    label = f"Confusion matrix of {name}, true classes down, predicted classes across"
    pairs = metrics.confused(given, PAIRS)
    return {
        "name": name,
        "figure": _figure(figures.svg(figures.confusion(given, names)), "confusion", label),
        "pairs": [
            (names[pair["true"]], names[pair["predicted"]], integer(pair["count"]), integer(pair["of"]))
            for pair in pairs
        ],
    }


def _figure(svg: str, prefix: str, label: str) -> Markup:
    """Make a figure part of the page, in the page's text colour."""
    return inline(svg.replace(figures.INK, "currentColor"), prefix, label)


def _script() -> dict[str, Markup]:
    """Return the page's script, and what its policy calls it by."""
    code = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return {"code": Markup(code), "source": Markup("'sha256-{}'").format(digest)}


def _names(runs: Sequence[Run]) -> list[str]:
    """Return each run's model, with as much of the folder's end as tells it from others where several share it."""
    models = [run.model for run in runs]
    names = []
    for run in runs:
        same = [other.path.parts for other in runs if other.model == run.model]
        tails = (["/".join(parts[-length:]) for parts in same] for length in range(1, len(run.path.parts) + 1))
        length = next((number for number, found in enumerate(tails, 1) if len(set(found)) == len(same)), 0)
        folder = "/".join(run.path.parts[-length:]) if length else str(run.path)
        names.append(run.model if models.count(run.model) == 1 else f"{run.model} ({folder})")
    return names


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file `name` of a folder, None where it is missing or lies elsewhere (an edited name, a link)."""
    file = folder / name
    try:
        return file if file.is_file() and file.resolve().is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # no name of a file at all
        return None
