"""Trains a model of the zoo or a solver of one's own, its stages one after the other, and goes on where it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caffe

from tiny_imagenet import files, fit, nets, outline, provenance, runs, zoo
from tiny_imagenet.console import Console
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.predict import Predictor
from tiny_imagenet.runs import Run
from tiny_imagenet.schedule import Plateau
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.trainer import Trainer
from tiny_imagenet.zoo import SCHEDULE


@dataclass(frozen=True)
class Options:
    """How a net is trained beside what its files say.

    Attributes:
        data: the converted data folder; None when a run goes on with its own.
        run: the run folder to make, or to go on with.
        seed: of weights, order, crops and dropout.
        epochs, max_iter: how long; at most one of them, None for the solver's max_iter.
        batch, base_lr: None for the files' own.
        init: a .caffemodel whose layers of the same name give their weights; there are no stages then.
        staged: whether the nets in stages/ beside the solver are trained before it, where there are any.
        lr_factor, patience, lr_drops: of the rate's schedule (`schedule.Plateau`); None for those of the model's row.
        keep: how many of the newest checkpoints to keep, beside the best.
        save_every: minutes after which a checkpoint is due within an epoch.
        resume: go on with the run in the folder; if there is none yet, it begins.
        quiet: say nothing but warnings.
        prototxt: the folder with model1 ... model9.
    """

    data: Path | None
    run: Path
    seed: int = 1
    epochs: int | None = None
    max_iter: int | None = None
    batch: int | None = None
    base_lr: float | None = None
    init: Path | None = None
    staged: bool = True
    lr_factor: float | None = None
    patience: int | None = None
    lr_drops: int | None = None
    keep: int = 2
    save_every: float = 15
    resume: bool = False
    quiet: bool = False
    prototxt: Path = Path("prototxt")


@dataclass
class _Job:
    """One net to train: a stage of a training, or in the end the whole net."""

    run: Run
    plan: fit.Plan
    plateau: Plateau
    info: dict[str, Any]


def train(source: str | None, options: Options, argv: list[str] | None = None) -> dict[str, Any]:
    """Train a model of the zoo or a solver file, or go on with a run.

    Args:
        source: model1 ... model9 (its files in `options.prototxt` are read as they stand) or a solver prototxt; the
            solver of such a model means the model. None when a run goes on.
        options: where and how.
        argv: the command to keep in run.json.

    Returns:
        {"iterations", "epochs", "top1" (the best), "best" (its iteration), "seconds", "run"}.

    Raises:
        NetError: a file is missing, does not parse, does not build or does not fit the data.
        DatasetError: the data folder is missing, incomplete, or another than the run was begun with.
        RunError: the run folder is in use or not empty, there is nothing to go on with, or a loss is no longer finite.
        Stopped: Ctrl-C or SIGTERM ended it; there is a checkpoint.
    """
    with StopRequest() as stop:
        if options.resume and Run(options.run).started:
            with runs.reopen(options.run) as run:
                return _train_all(_jobs_of(run, source, options), options, stop, lambda: None)
        if source is None or options.data is None:
            raise RunError(f"{options.run} has no run to go on with: name a model or solver and --data to begin one")
        with runs.create(options.run) as run:
            jobs = _new_jobs(run, source, options, argv)
            worked: list[int] = []
            try:
                for job in jobs:
                    _write_files(job)
                    job.run.start(job.info)
                return _train_all(jobs, options, stop, lambda: worked.append(1))
            finally:
                if not worked:  # what fails before the first iteration has worked leaves no run folder behind
                    run.discard()


def _new_jobs(run: Run, source: str, options: Options, argv: list[str] | None) -> list[_Job]:
    model = _model(source, options.prototxt)
    solver = options.prototxt / model.name / "solver.prototxt" if model else Path(source)
    row = model or zoo.MODELS["model1"]
    schedule = {
        name: getattr(row, name) if getattr(options, name) is None else getattr(options, name) for name in SCHEDULE
    }
    stages = _stages(solver) if options.staged and not options.init else []
    jobs = []
    for number, file in enumerate([*stages, solver], 1):
        own = run if file == solver else run.stage(number)
        plan = fit.load(file, options.data)
        fit.fit_data(plan, options.batch)
        fit.fit_classes(plan, adapt=model is not None)
        max_iter = options.epochs * plan.epoch if options.epochs else options.max_iter
        fit.fit_solver(plan, own.path, options.seed, max_iter, options.base_lr)
        plateau = Plateau(schedule["lr_factor"], schedule["patience"], schedule["lr_drops"])
        info = {
            "model": plan.train_val.name or source,
            "source": _named(source, options.prototxt),
            "argv": argv or sys.argv,
            "stages": len(stages) if own is run else 0,
            "init": options.init and os.path.abspath(options.init),
            **_about(plan, options),
            "schedule": schedule,
            **provenance.made_by(options.prototxt),
        }
        jobs.append(_Job(own, plan, plateau, info))
    return jobs


def _jobs_of(run: Run, source: str | None, options: Options) -> list[_Job]:
    """The jobs of a run that goes on, from the files in its folder."""
    info = run.info
    if source is not None and _named(source, options.prototxt) != info["source"]:
        raise RunError(f"{run.path} is a run of {info['source']}, not of {source}: name another run folder")
    jobs = []
    for own in (*(run.stage(number) for number in range(1, info["stages"] + 1)), run):
        info = own.info
        plan = fit.load(own.solver, options.data or info["data"])
        if plan.manifest["lmdbs"] != info["lmdbs"]:
            raise DatasetError(f"{plan.data} has not the records that {run.path} was begun with: name that data folder")
        fit.fit_data(plan)
        fit.fit_classes(plan, adapt=False)
        max_iter = options.epochs * plan.epoch if options.epochs else options.max_iter
        fit.fit_solver(plan, own.path, info["seed"], max_iter if own is run else None, None)
        schedule = info["schedule"]
        plateau = Plateau(schedule["lr_factor"], schedule["patience"], schedule["lr_drops"])
        jobs.append(_Job(own, plan, plateau, info))
    return jobs


def _train_all(jobs: list[_Job], options: Options, stop: StopRequest, worked: Callable[[], None]) -> dict[str, Any]:
    """Train what is not done: the stages, each from the weights of the one before it, and then the net itself."""
    before: Run | None = None
    for job in jobs:
        finished = job.run.info.get("finished")
        if not finished or (finished["verdict"] != "stop" and finished["iterations"] < job.plan.solver.max_iter):
            init = before.weights("best") if before else job.info["init"] and Path(job.info["init"])
            try:
                finished = _train(job, init, options, stop, worked)
            except OSError as error:
                raise RunError(f"cannot write into {job.run.path}: {error.strerror or error}") from error
        before = job.run
    return {**finished, "run": str(jobs[-1].run.path)}


def _train(
    job: _Job, init: Path | None, options: Options, stop: StopRequest, worked: Callable[[], None]
) -> dict[str, Any]:
    run, plan = job.run, job.plan
    _write_files(job)
    with Console(run.log_file, run.info["model"], plan.solver.max_iter, options.quiet) as console:
        console.say(
            f"{plan.train_val.name}: {fit.describe_data(plan)}, {plan.epoch} iterations of {plan.batch} an epoch"
        )
        console.say(f"  net: {files.shown(plan.path)}")
        for change in plan.changes:
            console.say(f"  {change}")
        solver = _solver(plan, run)
        checkpoint = run.resume_from()
        if init and not checkpoint:
            _carry(solver.net, init, console)
        trainer = Trainer(
            run=run,
            plan=plan,
            solver=solver,
            predictor=_predictor(plan, run, solver.net),
            plateau=job.plateau,
            seed=job.info["seed"],
            keep=options.keep,
            save_every=60 * options.save_every,
            console=console,
            stop=stop,
        )
        if checkpoint:
            trainer.go_on(checkpoint)
            console.say(f"going on from iteration {trainer.iteration} of {trainer.last} ({files.shown(checkpoint)})")
        result = trainer.train(worked)
        run.finish(result)
        return result


def _carry(net: caffe.Net, weights: Path, console: Console) -> None:
    """Let the layers take the weights that a caffemodel has under their names, and say which did."""
    carried = nets.copy_weights(net, weights)
    filled = [name for name in net.params if name not in carried]
    console.say(f"weights from {files.shown(weights)}: {', '.join(carried)}")
    console.say(f"filled at random: {', '.join(filled) or 'no layer'}")


def _solver(plan: fit.Plan, run: Run) -> Any:
    caffe.set_mode_cpu()
    try:
        solver = caffe.get_solver(str(run.solver))
        float(solver.lr)  # an lr_policy that does not hold together shows here
    except caffe.CaffeError as error:
        raise NetError(f"{plan.path} with its solver does not build: {error}") from error
    return solver


def _predictor(plan: fit.Plan, run: Run, net: caffe.Net) -> Predictor:
    try:
        return Predictor(run.deploy, run.mean, net)
    except NetError as error:
        raise NetError(str(error).replace(str(run.deploy), str(plan.path.with_name("deploy.prototxt")))) from error


def _write_files(job: _Job) -> None:
    run, plan = job.run, job.plan
    files.write_text(run.train_val, nets.to_text(plan.train_val))
    files.write_text(run.deploy, nets.to_text(plan.deploy))
    files.write_text(run.solver, nets.to_text(plan.solver))
    with files.atomic_file(run.mean) as temporary:
        temporary.write_bytes(plan.mean.read_bytes())


def _stages(solver: Path) -> list[Path]:
    """The solvers of the nets that are trained before, in stages/1, stages/2 and so on beside the solver."""
    folders = [folder for folder in solver.parent.glob("stages/*") if folder.name.isdigit()]
    return [folder / "solver.prototxt" for folder in sorted(folders, key=lambda folder: int(folder.name))]


def _model(source: str, prototxt: Path) -> zoo.Model | None:
    """The model of the zoo that `source` names, itself or by its solver's path; None for another solver."""
    if not source.endswith(".prototxt") and os.sep not in source:
        model = zoo.get(source)
        if not (prototxt / model.name).is_dir():
            raise NetError(f"{prototxt / model.name} is not there: make it with tools/generate.py {model.name}")
        return model
    path = Path(source).resolve()
    own = path.name == "solver.prototxt" and path.parent.parent == prototxt.resolve()
    return {**zoo.MODELS, **zoo.VARIANTS}.get(path.parent.name) if own else None


def _named(source: str, prototxt: Path) -> str:
    """What `source` is called in run.json: a model's name, or the whole path of a solver."""
    model = _model(source, prototxt)
    return model.name if model else os.path.abspath(source)


def _about(plan: fit.Plan, options: Options) -> dict[str, Any]:
    """The part of run.json that says what is trained on what."""
    return {
        "seed": options.seed,
        "batch": plan.batch,
        "max_iter": plan.solver.max_iter,
        "base_lr": round(plan.solver.base_lr, 10),
        "weight_decay": round(plan.solver.weight_decay, 10),
        "data": str(plan.data.resolve()),
        "lmdbs": plan.manifest["lmdbs"],
        "classes": plan.classes,
        "wnids": [entry["wnid"] for entry in plan.manifest["classes"]],
        "train_images": plan.train_images,
        "changes": plan.changes,
        "nonlinearity": nets.nonlinearity(plan.train_val),
        "screened": any("screened" in nets.data_param(layer).source for layer in plan.train_val.layer),
        "parameters": outline.outline(plan.deploy, "TEST").parameter_count,
    }
