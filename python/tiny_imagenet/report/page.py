"""A self-contained HTML page about runs: results, training, mistakes, nets, and how to reproduce them.

Runs that are not evaluated or still training are shown too. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from tiny_imagenet import cli
from tiny_imagenet.errors import RunError, TinyImageNetError
from tiny_imagenet.evaluation import metrics
from tiny_imagenet.files import write_text
from tiny_imagenet.models import paper
from tiny_imagenet.report import curves_figure, figures, folders, mistakes, nets, results
from tiny_imagenet.report.curves_figure import Line
from tiny_imagenet.report.folders import Folder


def build(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    ensembles: Sequence[str | os.PathLike[str]] = (),
    data: str | os.PathLike[str] | None = None,
    refresh: int | None = None,
) -> bool:
    """Write the page and return whether one of the runs is still training.

    Args:
        runs: run folders.
        out: the file to write.
        ensembles: files written with `tools/ensemble.py --json`.
        data: the converted data folder with the misclassified images; None for the one that a run's files name.
        refresh: while a run is training, the page reloads itself at this interval in seconds.

    Raises:
        RunError: a run folder cannot be read, or `runs` is empty.
        PredictionsError: an ensemble's file or a run's predictions cannot be read.
        TinyImageNetError: `out` cannot be written.
    """
    if not runs:
        raise RunError("a report needs at least one run folder: make one with tools/train.py")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, **options)
    environment.filters["sha256"] = _sha256
    content = _content(folders.read(runs), ensembles, data)
    problems: dict[str, list[str]] = {}
    for run in content["gallery"]["runs"]:
        problems.setdefault(run["problem"], []).append(run["name"])
    for problem, names in problems.items():
        if problem:
            cli.note(f"note: the misclassified images of {', '.join(names)} are not shown: {problem}")
    running = any(one["state"] == "training" for one in content["training"])
    refresh = refresh if running else None
    write_text(out, environment.get_template("report.html.j2").render(**content, refresh=refresh))
    return running


def _content(
    several: Sequence[Folder], ensembles: Sequence[str | os.PathLike[str]], data: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """The variables of the template."""
    averages = results.ensembles(ensembles)
    rows = [results.of_run(folder) for folder in several]
    groups = folders.groups(several)
    means = results.seeds(rows, groups, several)
    sets = results.images([*rows, *(one.row for one in averages)], means)
    bodies = results.bodies(rows, groups, means, several)
    if averages:
        bodies.append([(row, int(row is one.held_out)) for one in averages for row in (one.row, one.held_out) if row])
    order = results.order(rows, sets)
    columns: dict[int, tuple[results.Row, list[Folder]]] = {}  # runs, with those of a mean over seeds in one
    for index in order:
        row = means.get(index, rows[index])
        columns.setdefault(id(row), (row, []))[1].append(several[index])
    unordered = list(columns.values())
    compared = [unordered[index] for index in results.order([row for row, _ in unordered], sets)]
    shown = [next((folder for folder in own if folder.given), None) for _, own in compared]
    shown = [folder for folder in shown if folder]
    best = next((several[index] for index in order if several[index].given), None)
    return {
        "scores": metrics.SCORES,
        "settings": folders.SETTINGS,
        "bodies": bodies,
        "images": sets,
        "averages": averages,
        "paper_classes": paper.CLASSES,
        "training": [folders.progress(folder) for folder in several],
        "training_columns": [(title, number) for title, _, number in folders.TRAINING],
        "curves": _curves(several),
        "confusion": mistakes.confusion(best) if best else None,
        "worst": mistakes.worst_classes(compared),
        "gallery": mistakes.gallery(shown, data),
        "nets": nets.of(several),
        "about": [folders.about(folder) for folder in several],
    }


def _curves(several: Sequence[Folder]) -> list[Any]:
    """One figure per panel with records."""
    lines = [Line(folder.model, folder.detail, folder.records) for folder in several]
    found = []
    for panel, title in curves_figure.PANELS.items():
        try:
            figure = curves_figure.draw(lines, [panel])
        except TinyImageNetError:  # nothing is recorded yet
            continue
        found.append(figures.inline(figures.svg(figure), panel, f"{title} against the iteration, one line per run"))
    return found


def _sha256(text: str) -> str:
    """The source that a Content-Security-Policy allows for a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
