"""Trains a model of the zoo or a solver of one's own, its stages one after the other, and goes on where it ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe

from tiny_imagenet import files, fit, nets, runs
from tiny_imagenet.console import Console
from tiny_imagenet.errors import NetError, RunError
from tiny_imagenet.jobs import Job, Options, jobs_of, new_jobs
from tiny_imagenet.predict import Predictor
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.trainer import Trainer


def train(
    source: str | None, options: Options, argv: list[str] | None = None, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Train a model of the zoo or a solver file, or go on with a run.

    Args:
        source: model1 ... model9 (its files in `options.prototxt` are read as they stand) or a solver prototxt; the
            solver of such a model means the model. None when a run goes on.
        options: where and how.
        argv: the command to keep in run.json.
        stop: entered already, where several trainings share it.

    Returns:
        {"iterations", "epochs", "top1" (the best), "best" (its iteration), "verdict", "seconds", "run", "already"
        (whether there was nothing left to do)}.

    Raises:
        NetError: a file is missing, does not parse, does not build or does not fit the data.
        DatasetError: the data folder is missing, incomplete, or another than the run was begun with.
        RunError: the run folder is in use or not empty, there is nothing to go on with, the run was begun in another
            way than `options` say, or a loss is no longer finite.
        Stopped: Ctrl-C or SIGTERM ended it; there is a checkpoint.
    """
    with StopRequest() if stop is None else contextlib.nullcontext(stop) as stop:
        if options.resume and Run(options.run).started:
            with runs.reopen(options.run) as run:
                return _train_all(jobs_of(run, source, options, argv), options, stop, lambda: None)
        if source is None or options.data is None:
            raise RunError(f"{options.run} has no run to go on with: name a model or solver and --data to begin one")
        with runs.create(options.run) as run:
            jobs = new_jobs(run, source, options, argv)
            worked: list[int] = []
            try:
                for job in jobs:
                    _write_files(job)
                    job.run.start(job.info)
                return _train_all(jobs, options, stop, lambda: worked.append(1))
            finally:
                if not worked:  # what fails before the first iteration has worked leaves no run folder behind
                    run.discard()


def _train_all(jobs: list[Job], options: Options, stop: StopRequest, worked: Callable[[], None]) -> dict[str, Any]:
    """Train what is not done: the stages, each from the weights of the one before it, and then the net itself."""
    before: Run | None = None
    for job in jobs:
        finished = job.run.info.get("finished")
        already = bool(finished) and (
            finished["verdict"] == "stop" or finished["iterations"] >= job.plan.solver.max_iter
        )
        if not already:
            init = before.weights("best") if before else job.info["init"] and Path(job.info["init"])
            try:
                with runs.reopen(job.run.path) if job.stage else contextlib.nullcontext():
                    finished = _train(job, init, options, stop, worked)
            except OSError as error:
                raise RunError(f"cannot write into {job.run.path}: {error.strerror or error}") from error
        before = job.run
    return {**finished, "run": str(jobs[-1].run.path), "already": already}


def _train(
    job: Job, init: Path | None, options: Options, stop: StopRequest, worked: Callable[[], None]
) -> dict[str, Any]:
    run, plan = job.run, job.plan
    _write_files(job)
    run.update(**{**job.info, "finished": None})
    with Console(run.log_file, run.info["model"], plan.solver.max_iter, options.quiet) as console:
        length = f"{plan.epoch} iterations of {plan.batch} an epoch"
        console.say(f"{plan.train_val.name}: {fit.describe_data(plan)}, {length}")
        console.say(f"  net: {files.shown(plan.path)}")
        for change in plan.changes:
            console.say(f"  {change}")
        console.say(f"  {_schedule(job)}")
        for layer in plan.train_val.layer:
            if layer.type == "Data" and not any(rule.phase == caffe.TEST for rule in layer.include):
                note = "reads from its first record again where a run goes on; CropData goes on where it was"
                console.say(f"  layer {layer.name} (Data) {note}", warning=True)
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
            stage=job.stage,
        )
        if checkpoint:
            trainer.go_on(checkpoint)
            console.say(f"going on from iteration {trainer.iteration} of {trainer.last} ({files.shown(checkpoint)})")
        result = trainer.train(worked)
        run.update(finished=result)
        return result


def _schedule(job: Job) -> str:
    """What becomes of the learning rate, in a line."""
    solver, plateau = job.plan.solver, job.plateau
    rate = f"rate: {solver.base_lr:g}"
    if solver.lr_policy != "fixed":
        return f"{rate}, lr_policy {solver.lr_policy}, to iteration {solver.max_iter}"
    if not plateau.patience:
        return f"{rate}, to iteration {solver.max_iter}"
    epochs = "an epoch" if plateau.patience == 1 else f"{plateau.patience} epochs"
    times = "at the first such time" if plateau.drops == 1 else f"at the {plateau.drops}. such time"
    return (
        f"{rate}, times {plateau.factor:g} when top-1 has not improved for {epochs}; ends {times} or at iteration "
        f"{solver.max_iter}"
    )


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


def _write_files(job: Job) -> None:
    run, plan = job.run, job.plan
    files.write_text(run.train_val, nets.to_text(plan.train_val))
    files.write_text(run.deploy, nets.to_text(plan.deploy))
    files.write_text(run.solver, nets.to_text(plan.solver))
    with files.atomic_file(run.mean) as temporary:
        temporary.write_bytes(plan.mean.read_bytes())
