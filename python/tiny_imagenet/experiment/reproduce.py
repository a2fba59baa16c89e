"""The paper's experiment: every model with its stages, several seeds, the ensembles, and Table 2 beside ours.

    OUT/<model>/seed<seed>/         a run folder, evaluated
    OUT/ensembles/seed<seed>/       the predictions of each ensemble, and what tools/report.py --ensemble reads
    OUT/table2.{md,csv,json}        what came out, beside the paper's column

What is there is not made again: the same call goes on where the last one ended.
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tiny_imagenet import cli, files
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import RunError, Stopped
from tiny_imagenet.evaluation import ensemble, evaluate, metrics, predictions
from tiny_imagenet.experiment import graph, table2
from tiny_imagenet.experiment.graph import Step
from tiny_imagenet.models import paper, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import jobs, train

Runner = Callable[[list[Step], StopRequest], Iterator[tuple[Step, Any]]]
_KNOWN = {**zoo.MODELS, **zoo.VARIANTS}


def reproduce(
    out: Path,
    options: train.Options,
    models: Sequence[str] = tuple(zoo.MODELS),
    seeds: Iterable[int] = (1,),
    elsewhere: Runner | None = None,
) -> list[table2.Row]:
    """Train, evaluate and average what is not done, and write the table after each model.

    Models and seeds that an earlier call has made in `out` are in the table too.

    Args:
        out: the folder of the experiment.
        options: how to train; `run`, `seed` and `resume` are set here.
        models: names of the zoo.
        seeds: each model is trained once with each.
        elsewhere: takes the steps on other machines, as `graph.run` does here; GPUs of `options` are theirs then.

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
    if elsewhere:  # in another working folder
        out, gpus = Path(os.path.abspath(out)), tuple(options.gpus or ())
        paths = {name: Path(os.path.abspath(getattr(options, name))) for name in ("data", "prototxt")}
        options = dataclasses.replace(options, **paths)
    else:
        gpus = train.settled(dataclasses.replace(options, resume=False)).gpus
    wanted = {(zoo.get(name).name, seed) for seed in seeds for name in models}
    there = {(run.parent.name, int(run.name[4:])) for run in out.glob("*/seed[0-9]*") if run.parent.name in _KNOWN}
    for name, seed in sorted(wanted & there):
        _check(_run(out, name, seed), options)
    steps = _steps(out, options, wanted, there, gpus[0] if gpus else None)
    names = {name for name, _ in wanted | there}
    table = table2.Table(out, [name for name in _KNOWN if name in names])
    with StopRequest() as stop:
        try:
            for step, result in (elsewhere or graph.run)(steps, stop):
                _add(table, step, result)
                if stop.signal:
                    raise Stopped(f"stopped by {stop.signal}: the same command goes on", signal.Signals[stop.signal])
        except Stopped as error:
            text = str(error).replace("the same command with --resume", "the same command")
            raise Stopped(text, error.status - 128) from error
    table.write()
    return table.rows


def inputs(options: train.Options, models: Iterable[str]) -> list[Path]:
    """The files that trainings of so many models read, but for the records, which manifest.json has the sha256 of."""
    nets = [path for name in models for path in sorted((options.prototxt / name).rglob("*.prototxt"))]
    return [Path(os.path.abspath(path)) for path in (options.data / lmdb_reader.MANIFEST, *nets)]


def _add(table: table2.Table, step: Step, result: Any) -> None:
    """Take in what a step gave, and write the table."""
    row, seed = step.arguments["row"], step.arguments["seed"]
    if isinstance(result, Exception):
        cli.note(f"{row}, seed {seed}: {result}")
        table.fail(row, seed, str(result))
    elif result:
        table.add(row, seed, **result)
    table.write()


def _run(out: Path, name: str, seed: int) -> Run:
    return Run(out / name / f"seed{seed}")


def _steps(
    out: Path, options: train.Options, wanted: set[tuple[str, int]], there: set[tuple[str, int]], device: int | None
) -> list[Step]:
    """What is to be done, in order; for the models and seeds that are wanted, and for the finished ones there are."""
    steps = []
    scored: dict[tuple[str, int], str] = {}  # the step that evaluates it
    for name, seed in sorted(wanted | there, key=lambda key: (key[1], list(_KNOWN).index(key[0]))):
        run = _run(out, name, seed)
        arguments, needs = {"row": name, "seed": seed}, ()
        if (name, seed) in wanted:
            own = dataclasses.replace(options, run=run.path, seed=seed, resume=True)
            if not _is_trained(run, own):
                steps.append(Step(f"train {name}, seed {seed}", _train, {**arguments, "options": own}, run=run.path))
                needs = (steps[-1].name,)
        elif not (run.started and "finished" in run.info):
            continue
        scored[name, seed] = f"evaluate {name}, seed {seed}"
        evaluation = {**arguments, "path": run.path, "device": device}
        quick = not needs and _is_evaluated(run)
        steps.append(Step(scored[name, seed], _evaluate, evaluation, needs, run.path, quick))
    for wanted_ensemble in paper.ENSEMBLES:
        name, members = wanted_ensemble.name, wanted_ensemble.members
        for seed in sorted({seed for _, seed in scored}):
            needs = tuple(scored[member, seed] for member in members if (member, seed) in scored)
            if len(needs) == len(members):
                arguments = {"row": name, "seed": seed, "out": out, "members": members}
                quick = all(step.quick for step in steps if step.name in needs)
                steps.append(Step(f"average {name}, seed {seed}", _average, arguments, needs, quick=quick))
    return steps


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


def _is_trained(run: Run, options: train.Options) -> bool:
    done = run.info.get("finished") if run.started else None
    return bool(done) and (done["verdict"] == "stop" or done["iterations"] >= _length(run, options))


def _train(row: str, seed: int, options: train.Options, stop: StopRequest) -> None:
    run = Run(options.run)
    if _is_trained(run, options):
        return
    if run.started:
        options = dataclasses.replace(options, epochs=None, max_iter=_length(run, options))
    if not options.quiet:
        cli.note(f"==> {row}, seed {seed}: {run.path}")
    train.train(row, options, stop=stop)


def _evaluate(row: str, seed: int, path: Path, device: int | None, stop: StopRequest) -> dict[str, Any]:
    """The parameters of a run and the scores of its best checkpoint, which is evaluated where they are not there."""
    run = Run(path)
    scores = run.scores if _is_evaluated(run) else evaluate.evaluate_run(run, gpu=device)
    finished = run.info["finished"]
    scores = {**_per_cent(scores), "epochs": finished["epochs"], "seconds": finished["seconds"]}
    return {"parameters": run.info["parameters"], "scores": scores}


def _is_evaluated(run: Run) -> bool:
    """Whether the scores are those of the best checkpoint, and the predictions there."""
    try:
        best = int(run.weights("best").parent.name)
    except RunError:  # which evaluating it says
        return False
    return run.scores.get("checkpoint") == best and run.predictions.is_file()


def _per_cent(scores: dict[str, Any]) -> dict[str, float | None]:
    shares = {name: None if scores[name] is None else 100 * scores[name] for name in ("top1", "top5")}
    return {**shares, "classes": scores.get("classes")}


def _average(row: str, seed: int, out: Path, members: Sequence[str], stop: StopRequest) -> dict[str, Any]:
    """Average the members' predictions, and save that and its scores."""
    loaded = [predictions.load(_run(out, name, seed).predictions) for name in members]
    combined = ensemble.average(loaded)
    name = "all" if len(members) == len(paper.PAPER) else "-".join(members)
    file = out / "ensembles" / f"seed{seed}" / f"{name}.npz"
    predictions.save(file, combined)
    files.write_json(file.with_suffix(".json"), ensemble.describe(loaded, combined))
    return {"parameters": None, "scores": _per_cent(metrics.summary(combined))}
