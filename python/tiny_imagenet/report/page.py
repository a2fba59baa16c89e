"""One self-contained HTML page about runs: results beside the paper's, curves, confusion and how to make them again.

Whatever is missing from a run's files is shown as "-", so that a run still training, or one whose files somebody
edited, has its place on the page. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tiny_imagenet import cli
from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import pedigree
from tiny_imagenet.files import write_text
from tiny_imagenet.models import paper
from tiny_imagenet.report import curves, folders, nets, predictions, results, scores
from tiny_imagenet.report import ensembles as report_ensembles
from tiny_imagenet.report.curves_figure import Line
from tiny_imagenet.report.folders import Run, read

TEMPLATES = Path(__file__).parent / "templates"


def build(
    runs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    ensembles: Sequence[str | os.PathLike[str]] = (),
    data: str | os.PathLike[str] | None = None,
) -> None:
    """Write the page about `runs`, run folders, and `ensembles`, files of `tools/ensemble.py --json`, to `out`.

    Images that runs get wrong are read from the converted data folder `data`, or from that which a run's files name.

    Raises:
        RunError: a run folder cannot be read, or there is none.
        PredictionsError: an ensemble's file or a run's predictions cannot be read.
        TinyImageNetError: `out` cannot be written.
    """
    if not runs:
        raise RunError("a report needs at least one run folder: make one with tools/train.py")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    content = _content([read(path) for path in _once(runs)], ensembles, data)
    problems: dict[str, list[str]] = {}
    for section in content["gallery"]:
        problems.setdefault(section["problem"], []).append(section["name"])
    for problem, names in problems.items():
        if problem:
            cli.note(f"note: the errors of {', '.join(names)} are not shown: {problem}")
    write_text(out, environment.get_template("report.html.j2").render(content))


def _once(runs: Sequence[str | os.PathLike[str]]) -> list[str | os.PathLike[str]]:
    """The run folders, each under the name that it has first."""
    found: dict[str, str | os.PathLike[str]] = {}
    for path in runs:
        if os.path.realpath(path) in found:
            cli.note(f"note: {path} is given twice and shown once")
        found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def _content(
    runs: Sequence[Run], ensembles: Sequence[str | os.PathLike[str]], data: str | os.PathLike[str] | None
) -> dict[str, Any]:
    """What the template shows."""
    known = [run.pedigree for run in runs]
    averages = report_ensembles.read(ensembles, known)
    names, details = pedigree.labels(known), pedigree.details(known)
    looks = [predictions.look(run) for run in runs]
    rows = [
        scores.of_run(name, run.path, run.model, run.info, run.evaluation, run.iterations, look.records)
        for name, run, look in zip(names, runs, looks)
    ]
    groups = folders.groups(runs)
    means = results.means(rows, groups, [run.model for run in runs], [run.evaluation for run in runs])
    images = results.images([*rows, *(one.row for one in averages)], means)
    ten_crops = {
        index: [scores.of_ten_crops(names[index], run.path, run.ten_crops)]
        for index, run in enumerate(runs)
        if run.ten_crops
    }
    bodies = results.bodies(rows, groups, means, ten_crops)
    if averages:
        bodies.append(
            [(row, level) for one in averages for level, row in enumerate(filter(None, (one.row, one.held_out)))]
        )
    order = results.order(rows, images)
    lines = [Line(run.model, detail, run.records) for run, detail in zip(runs, details)]
    models = [runs[index].model for index in order]
    ordered = sorted(lines, key=lambda line: models.index(line.model))
    return {
        "bodies": bodies,
        "images": images,
        "averages": averages,
        "paper_classes": paper.CLASSES,
        "curves": curves.draw(ordered, lines[order[0]]),
        "nets": nets.of((name, run.deploy) for name, run in zip(names, runs)),
        "about": [folders.about(run, name) for name, run in zip(names, runs)],
        "script": _script(),
        **predictions.sections(runs, looks, rows, results.columns(rows, means, images), data),
    }


def _script() -> dict[str, Markup]:
    """Return the page's script, and what its policy calls it by."""
    code = (TEMPLATES / "report.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return {"code": Markup(code), "source": Markup("'sha256-{}'").format(digest)}
