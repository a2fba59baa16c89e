"""The paper's experiment: every model with its stages, several seeds, the ensembles, and Table 2 beside ours.

    OUT/<model>/seed<seed>/         a run folder, evaluated
    OUT/ensembles/seed<seed>/       the predictions of each ensemble
    OUT/table2.{md,csv,json}        what came out, beside the paper's column

What is there is not made again: the same call goes on where the last one ended.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet import cli, ensemble, evaluate, files, lmdb_reader, metrics, paper, predictions, train, zoo
from tiny_imagenet.errors import Stopped, TinyImageNetError
from tiny_imagenet.predictions import Predictions
from tiny_imagenet.runs import Run


@dataclass
class Row:
    """A model's or an ensemble's line of Table 2.

    Attributes:
        name: of the model, or of the members with " + " between them.
        paper: the paper's validation top-1 in per cent.
        top1, top5: ours in per cent, one a seed.
        parameters: of the net; None for an ensemble.
        epochs, seconds: of training, one a seed; empty for an ensemble.
        failed: what went wrong, by seed.
    """

    name: str
    paper: float
    parameters: int | None = None
    top1: list[float] = field(default_factory=list)
    top5: list[float | None] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)


def reproduce(
    out: Path, options: train.Options, models: Sequence[str] = tuple(zoo.MODELS), seeds: Iterable[int] = (1,)
) -> list[Row]:
    """Train, evaluate and average what is not done, and write the table after each model.

    Args:
        out: the folder of the experiment.
        options: how to train; `run`, `seed` and `resume` are set here.
        models: names of the zoo.
        seeds: each model is trained once with each.

    Returns:
        The rows of the table. A training that fails (a loss that is no longer finite, say) stands in its row's
        `failed`, and the others go on.

    Raises:
        NetError: there is no such model.
        DatasetError: the data folder cannot be read.
        Stopped: Ctrl-C or SIGTERM ended it.
    """
    lmdb_reader.read_manifest(options.data)
    models = [zoo.get(name).name for name in models]
    seeds = list(seeds)
    rows = {name: Row(name, paper.MODELS[name.split("_")[0]].validation_accuracy) for name in models}
    found: dict[int, dict[str, Predictions]] = {seed: {} for seed in seeds}
    for seed in seeds:
        for name in models:
            run = Run(out / name / f"seed{seed}")
            try:
                _train(run, name, dataclasses.replace(options, run=run.path, seed=seed, resume=True))
                scores = _evaluate(run)
            except Stopped:
                raise
            except TinyImageNetError as error:
                cli.note(f"{name}, seed {seed}: {error}")
                rows[name].failed[seed] = str(error)
                continue
            found[seed][name] = predictions.load(run.predictions)
            _add(rows[name], scores)
            rows[name].parameters = run.info["parameters"]
            rows[name].epochs.append(run.info["finished"]["epochs"])
            rows[name].seconds.append(run.info["finished"]["seconds"])
            _write(out, [*rows.values()])
    combined = [row for members in paper.ENSEMBLES if (row := _ensemble(out, members, found)) is not None]
    _write(out, [*rows.values(), *combined])
    return [*rows.values(), *combined]


def _train(run: Run, name: str, options: train.Options) -> None:
    done = run.info.get("finished") if run.started else None
    if done and (options.max_iter or 0) <= done["iterations"] and (options.epochs or 0) <= done["epochs"]:
        return
    cli.note(f"==> {name}, seed {options.seed}: {run.path}")
    train.train(name, options)


def _evaluate(run: Run) -> dict[str, Any]:
    """The scores of the run's best checkpoint, evaluated where they are not those of it."""
    best = int(run.weights("best").parent.name)
    if run.scores.get("checkpoint") != best or not run.predictions.is_file():
        return evaluate.evaluate_run(run)
    return run.scores


def _ensemble(out: Path, wanted: paper.Ensemble, found: dict[int, dict[str, Predictions]]) -> Row | None:
    """The row of one of the paper's ensembles; None where a seed lacks a member."""
    row = Row(
        " + ".join(wanted.members) if len(wanted.members) < len(zoo.MODELS) else "all nine", wanted.validation_accuracy
    )
    for seed, members in found.items():
        if not set(wanted.members) <= set(members):
            continue
        combined = ensemble.average([members[name] for name in wanted.members])
        name = "-".join(wanted.members) if len(wanted.members) < len(zoo.MODELS) else "all"
        predictions.save(out / "ensembles" / f"seed{seed}" / f"{name}.npz", combined)
        _add(row, metrics.summary(combined))
    return row if row.top1 else None


def _add(row: Row, scores: dict[str, Any]) -> None:
    row.top1.append(100 * scores["top1"])
    row.top5.append(None if scores["top5"] is None else 100 * scores["top5"])


def _write(out: Path, rows: list[Row]) -> None:
    files.write_json(out / "table2.json", [{**dataclasses.asdict(row), **_spread(row.top1)} for row in rows])
    files.write_text(out / "table2.csv", _csv(rows))
    files.write_text(out / "table2.md", markdown(rows))


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean, and standard deviation where there are several."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values) if values else None, "standard_deviation": deviation}


def markdown(rows: list[Row]) -> str:
    """The table as Markdown: validation top-1 in per cent, ours as mean and standard deviation over the seeds."""
    lines = [
        "| model | paper, top-1 % | ours, top-1 % | difference | ours, top-5 % | parameters | epochs | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, difference = _with_spread(row.top1), ""
        if row.top1:
            difference = f"{statistics.fmean(row.top1) - row.paper:+.2f}"
        elif row.failed:
            ours = "failed"
        parameters = f"{row.parameters:,}" if row.parameters else ""
        epochs = f"{statistics.fmean(row.epochs):g}" if row.epochs else ""
        top5 = _with_spread([value for value in row.top5 if value is not None])
        cells = [row.name, f"{row.paper:.2f}", ours, difference, top5, parameters, epochs, str(len(row.top1))]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [f"- {row.name}, seed {seed}: {why}" for row in rows for seed, why in row.failed.items()]
    return "\n".join(lines) + "\n" + ("\nFailed:\n" + "\n".join(failed) + "\n" if failed else "")


def _with_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = _spread(values)
    return f"{spread['mean']:.2f}" + (f" ± {spread['standard_deviation']:.2f}" if len(values) > 1 else "")


def _csv(rows: list[Row]) -> str:
    """One line a model and seed."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "run", "paper_top1", "top1", "top5", "epochs", "seconds"])
    for row in rows:
        for i, top1 in enumerate(row.top1):
            rest = [values[i] if i < len(values) else "" for values in (row.top5, row.epochs, row.seconds)]
            writer.writerow([row.name, i + 1, row.paper, f"{top1:.4f}", *("" if v is None else v for v in rest)])
    return stream.getvalue()
