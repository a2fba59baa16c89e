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
import math
import signal
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet import cli, ensemble, evaluate, files, jobs, lmdb_reader, metrics, paper, predictions, train, zoo
from tiny_imagenet.errors import RunError, Stopped, TinyImageNetError
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest


@dataclass
class Row:
    """A model's or an ensemble's line of Table 2.

    Attributes:
        name: of the model, or of the members with " + " between them.
        paper: the paper's validation top-1 in per cent.
        parameters: of the net; None for an ensemble.
        scores: by seed: top1, top5 (per cent; None with five classes or fewer), and for a model epochs and seconds.
        failed: what went wrong, by seed.
    """

    name: str
    paper: float
    parameters: int | None = None
    scores: dict[int, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def values(self, name: str) -> list[float]:
        """One of the scores, over the seeds."""
        return [scores[name] for scores in self.scores.values() if scores.get(name) is not None]


def reproduce(
    out: Path, options: train.Options, models: Sequence[str] = tuple(zoo.MODELS), seeds: Iterable[int] = (1,)
) -> list[Row]:
    """Train, evaluate and average what is not done, and write the table after each model.

    Models and seeds that an earlier call has made in `out` are in the table too.

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
        DatasetError: the data folder cannot be read, or a run in `out` was made with another.
        GpuError: a GPU of `options` is not there or cannot be used.
        RunError: a run in `out` was made in another way than `options` say.
        Stopped: Ctrl-C or SIGTERM ended it.
    """
    lmdb_reader.read_manifest(options.data)
    gpus = train.settled(dataclasses.replace(options, resume=False)).gpus
    models = [zoo.get(name).name for name in dict.fromkeys(models)]
    seeds = list(seeds)
    wanted = {(name, seed) for name in models for seed in seeds}
    known = {**zoo.MODELS, **zoo.VARIANTS}
    there = {(run.parent.name, int(run.name[4:])) for run in out.glob("*/seed[0-9]*") if run.parent.name in known}
    for name, seed in sorted(wanted & there):
        _check(Run(out / name / f"seed{seed}"), options)
    rows: dict[str, Row] = {}
    with StopRequest() as stop:
        for name, seed in sorted(wanted | there, key=lambda key: (key[1], list(known).index(key[0]))):
            run = Run(out / name / f"seed{seed}")
            row = rows.setdefault(name, Row(name, paper.MODELS[name.split("_")[0]].validation_accuracy))
            own = dataclasses.replace(options, run=run.path, seed=seed, resume=True)
            try:
                if (name, seed) in wanted:
                    _train(run, name, own, stop)
                elif not (run.started and "finished" in run.info):
                    continue
                _add(row, seed, run, gpus[0] if gpus else None)
            except Stopped as error:
                text = str(error).replace("the same command with --resume", "the same command")
                raise Stopped(text, error.status - 128) from error
            except TinyImageNetError as error:
                cli.note(f"{name}, seed {seed}: {error}")
                row.failed[seed] = str(error)
            if stop.signal:
                raise Stopped(f"stopped by {stop.signal}: the same command goes on", signal.Signals[stop.signal])
            _write(out, [*rows.values()])
    result = [rows[name] for name in known if name in rows]
    result += [row for members in paper.ENSEMBLES if (row := _ensemble(out, members, rows)).scores]
    _write(out, result)
    return result


def _check(run: Run, options: train.Options) -> None:
    """Raises RunError or DatasetError where a run was made in another way than the experiment's."""
    if not run.started:
        return
    jobs.check_same(run, dataclasses.replace(options, seed=None))
    jobs.check_data(run, options.data)
    done = run.info.get("finished")
    if done and done["iterations"] > _length(run, options):
        raise RunError(
            f"{run.path} has been trained for {done['iterations']} iterations, this experiment has "
            f"{_length(run, options)}: name another --out, or remove that run"
        )


def _length(run: Run, options: train.Options) -> int:
    """The iterations that a run of the experiment has."""
    info = run.info
    if options.epochs:
        return options.epochs * math.ceil(info["train_images"] / info["batch"])
    return options.max_iter or info["max_iter_of_file"]


def _train(run: Run, name: str, options: train.Options, stop: StopRequest) -> None:
    if run.started:
        done = run.info.get("finished")
        if done and (done["verdict"] == "stop" or done["iterations"] >= _length(run, options)):
            return
        options = dataclasses.replace(options, epochs=None, max_iter=_length(run, options))
    cli.note(f"==> {name}, seed {options.seed}: {run.path}")
    train.train(name, options, stop=stop)


def _add(row: Row, seed: int, run: Run, device: int | None) -> None:
    """The scores of the run's best checkpoint, evaluated where they are not there."""
    best = int(run.weights("best").parent.name)
    scores = run.scores
    if scores.get("checkpoint") != best or not run.predictions.is_file():
        scores = evaluate.evaluate_run(run, gpu=device)
    row.scores[seed] = {**_per_cent(scores), "epochs": run.info["finished"]["epochs"]}
    row.scores[seed]["seconds"] = run.info["finished"]["seconds"]
    row.parameters = run.info["parameters"]


def _per_cent(scores: dict[str, Any]) -> dict[str, float | None]:
    return {name: None if scores[name] is None else 100 * scores[name] for name in ("top1", "top5")}


def _ensemble(out: Path, wanted: paper.Ensemble, rows: dict[str, Row]) -> Row:
    """The row of one of the paper's ensembles, with the seeds that have all of its members."""
    every = len(wanted.members) == len(zoo.MODELS)
    row = Row("all nine" if every else " + ".join(wanted.members), wanted.validation_accuracy)
    members = [rows[name].scores if name in rows else {} for name in wanted.members]
    for seed in sorted(set.intersection(*map(set, members))):
        loaded = [predictions.load(Run(out / name / f"seed{seed}").predictions) for name in wanted.members]
        combined = ensemble.average(loaded)
        file = "all.npz" if every else f"{'-'.join(wanted.members)}.npz"
        predictions.save(out / "ensembles" / f"seed{seed}" / file, combined)
        row.scores[seed] = _per_cent(metrics.summary(combined))
    return row


def _write(out: Path, rows: list[Row]) -> None:
    table = [{**dataclasses.asdict(row), **_spread(row.values("top1"))} for row in rows]
    files.write_json(out / "table2.json", table)
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
        top1, epochs = row.values("top1"), row.values("epochs")
        cells = [
            row.name,
            f"{row.paper:.2f}",
            _with_spread(top1) or ("failed" if row.failed else ""),
            f"{statistics.fmean(top1) - row.paper:+.2f}" if top1 else "",
            _with_spread(row.values("top5")),
            f"{row.parameters:,}" if row.parameters else "",
            f"{statistics.fmean(epochs):g}" if epochs else "",
            ", ".join(map(str, row.scores)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    failed = [f"- {row.name}, seed {seed}: {why}" for row in rows for seed, why in row.failed.items()]
    return "\n".join(lines) + "\n" + ("\nFailed:\n\n" + "\n".join(failed) + "\n" if failed else "")


def _with_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = _spread(values)
    return f"{spread['mean']:.2f}" + (f" ± {spread['standard_deviation']:.2f}" if len(values) > 1 else "")


def _csv(rows: list[Row]) -> str:
    """One line a model and seed."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "seed", "paper_top1", "top1", "top5", "epochs", "seconds"])
    for row in rows:
        for seed, scores in row.scores.items():
            rest = [scores.get(name) for name in ("top1", "top5", "epochs", "seconds")]
            writer.writerow([row.name, seed, row.paper, *("" if v is None else f"{v:.4f}" for v in rest)])
    return stream.getvalue()
