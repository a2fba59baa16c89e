"""Trains a model of the zoo or a solver of one's own, its stages one after the other, and goes on where it ended."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe
from caffe.proto import caffe_pb2

from tiny_imagenet import files, gpu, runs
from tiny_imagenet.errors import GpuError, NetError, RunError, from_caffe
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import fit, follower, mpi_train, snapshots, solving, supervisor
from tiny_imagenet.training.console import Console
from tiny_imagenet.training.jobs import Job, Options, jobs_of, new_jobs, solver_in
from tiny_imagenet.training.launch import Launch
from tiny_imagenet.training.ranks import Alone, Ranks
from tiny_imagenet.training.trainer import Trainer


def train(
    source: str | None,
    options: Options,
    argv: list[str] | None = None,
    stop: StopRequest | None = None,
    launch: Launch | None = None,
) -> dict[str, Any]:
    """Train a model of the zoo or a solver file, or go on with a run.

    Args:
        source: a model of the zoo (its files in `options.prototxt` are read as they stand), a solver prototxt or its
            folder; the solver of such a model means the model. None when a run goes on.
        options: where and how.
        argv: the command to keep in run.json.
        stop: entered already, where several trainings share it.
        launch: how a launcher has started this process, where it trains together with the others (`launch.launched`).

    Returns:
        {"iterations", "epochs", "top1" (the best), "best" (its iteration), "verdict", "seconds", "run", "already"
        (whether there was nothing left to do), "longer" (what would make it longer)}; {} in the ranks beside rank 0,
        where a launcher has started several.

    Raises:
        NetError: a file is missing, does not parse, does not build or does not fit the data.
        DatasetError: the data folder is missing, incomplete, or another than the run was begun with.
        RunError: the run folder is in use or not empty, there is nothing to go on with, the run was begun in another
            way than `options` say, or a loss is no longer finite.
        GpuError: a GPU is not there or cannot be used.
        Stopped: Ctrl-C or SIGTERM ended it; there is a checkpoint.
        ClusterError: a launcher has started several processes, and MPI does not bring them together.
    """
    argv = argv or sys.argv
    if launch:
        return mpi_train.train(launch, source, options, argv, settled, take_part)
    with StopRequest() if stop is None else contextlib.nullcontext(stop) as stop:
        options = settled(options)
        if len(options.gpus) > 1:
            names = [f"GPU {number}" for number in options.gpus]
            return supervisor.train("tiny_imagenet.training.gpu_ranks:connect", names, source, options, argv, stop)
        try:
            return take_part(Alone(), source, options, argv, stop)
        finally:
            caffe.set_mode_cpu()


def settled(options: Options) -> Options:
    """The options with GPUs that are there, and with what a run that goes on was begun with where they leave it open.

    Raises:
        GpuError: a GPU is not there or cannot be used.
        RunError: the run's run.json cannot be read.
    """
    run = Run(options.run)
    info = run.info if options.resume and run.started else None
    gpus = options.gpus
    if gpus is None and info:
        try:
            gpus = gpu.choose(info.get("gpus", []))
        except GpuError as error:
            raise GpuError(f"{run.path} has been trained on {error}") from error
    gpus = gpu.choose(gpus or ())
    values = {"gpus": gpus}
    for name, default in gpu.settings().items() if gpus else (("tf32", False), ("deterministic", False)):
        if getattr(options, name) is None:
            values[name] = info.get(name, False) if info else default
        elif not gpus:
            raise GpuError(f"--{name} is a setting of GPUs, and this training is on the CPU: name one with --gpu")
    return dataclasses.replace(options, **values)


def take_part(ranks: Ranks, source: str | None, options: Options, argv: list[str], stop: StopRequest) -> dict[str, Any]:
    """Train as one of the ranks, all of which call this.

    Args:
        ranks: those that train together.
        source: as `train`.
        argv: as `train`.
        options: as `train`, and `settled`.
        stop: whether people want it to end; rank 0 asks.

    Returns:
        As `train` in rank 0, {} in the others.

    Raises:
        RankLostError: another rank has gone.
        TinyImageNetError: as `train`.
        caffe.CaffeError: something fails in a rank beside rank 0.
    """
    gpu.take(_compute(options, ranks)["device"])
    if ranks.rank:
        follower.follow(ranks, _compute(options, ranks), options.data)
        return {}
    result = _train_run(ranks, source, options, argv, stop)
    ranks.broadcast(follower.Done())
    return result


def _compute(options: Options, ranks: Ranks) -> dict[str, Any]:
    """What `gpu.compute_on` takes, for this rank."""
    device = ranks.device(options.gpus)
    return {"device": device, "tf32": options.tf32, "deterministic": options.deterministic}


def _train_run(
    ranks: Ranks, source: str | None, options: Options, argv: list[str], stop: StopRequest
) -> dict[str, Any]:
    source = source and solver_in(source)
    if options.resume and Run(options.run).started:
        with runs.reopen(options.run) as run:
            jobs = jobs_of(run, source, options, argv)
            _check_shares(jobs, ranks, resumes=True)
            return _train_all(jobs, ranks, options, stop, lambda: None)
    if source is None or options.data is None:
        raise RunError(f"{options.run} has no run to go on with: name a model or solver and --data to begin one")
    with runs.create(options.run) as run:
        jobs = new_jobs(run, source, options, argv)
        _check_shares(jobs, ranks, resumes=False)
        worked: list[int] = []
        try:
            for job in jobs:
                _write_files(job)
                job.run.start(job.info)
            return _train_all(jobs, ranks, options, stop, lambda: worked.append(1))
        finally:
            if not worked:  # what fails before the first iteration has worked leaves no run folder behind
                run.discard()


def _check_shares(jobs: list[Job], ranks: Ranks, resumes: bool) -> None:
    for job in jobs:
        fit.check_shares(job.plan, ranks.names, resumes)


def _train_all(
    jobs: list[Job], ranks: Ranks, options: Options, stop: StopRequest, worked: Callable[[], None]
) -> dict[str, Any]:
    """Train what is not done: the stages, each from the weights of the one before it, and then the net itself."""
    before: Run | None = None
    for job in jobs:
        finished, longer = job.run.info.get("finished"), _longer(job)
        already = bool(longer)
        if not already:
            init = before.weights("best") if before else job.info["init"] and Path(job.info["init"])
            try:
                with runs.reopen(job.run.path) if job.stage else contextlib.nullcontext():
                    finished = _train(job, ranks, init, options, stop, worked)
            except OSError as error:
                raise RunError(f"cannot write into {job.run.path}: {error.strerror or error}") from error
        before = job.run
    return {**finished, "run": str(jobs[-1].run.path), "already": already, "longer": longer or _longer(jobs[-1])}


def _longer(job: Job) -> str:
    """Why a training has ended, and what makes it longer; "" for one that has not."""
    finished, plateau = job.run.info.get("finished"), job.plateau
    if not finished:
        return ""
    if finished["iterations"] >= job.plan.solver.max_iter:
        return (
            f"it has all of its {finished['iterations']} iterations: --resume with more --epochs or --max-iter goes on"
        )
    if finished["verdict"] == "stop" and plateau.drops <= job.run.info["schedule"]["lr_drops"]:
        why = f"top-1 was no better for {plateau.epochs}, {plateau.times}"
        return f"{why}: --resume --lr-drops {plateau.drops + 1} goes on"
    return ""


def _train(
    job: Job, ranks: Ranks, init: Path | None, options: Options, stop: StopRequest, worked: Callable[[], None]
) -> dict[str, Any]:
    run, plan = job.run, job.plan
    _write_files(job)
    if ranks.count > 1:
        job.info["sessions"][-1]["ranks"] = ranks.names
    run.update(**{**job.info, "finished": None})
    with Console(run.log_file, run.info["model"], plan.solver.max_iter, options.quiet) as console:
        length = f"{plan.epoch} iterations of {plan.batch} an epoch"
        console.say(f"{plan.train_val.name}: {fit.describe_data(plan)}, {length}")
        console.say(f"  net: {files.shown(plan.path)}")
        for change in plan.changes:
            console.say(f"  {change}")
        console.say(f"  {_schedule(job)}")
        if options.gpus or ranks.count > 1:
            console.say(f"  on {_devices(options, ranks)}")
        for layer in plan.train_val.layer:
            if layer.type == "Data" and not any(rule.phase == caffe.TEST for rule in layer.include):
                note = "reads from its first record again where a run goes on; CropData goes on where it was"
                console.say(f"  layer {layer.name} (Data) {note}", warning=True)
        checkpoint = run.resume_from()
        message = solving.message(run, ranks.count)
        if ranks.count > 1:
            ranks.broadcast(_begin(job, message, checkpoint))
        compute = _compute(options, ranks)
        gpu.compute_on(**compute)
        solver = _solver(plan, message, ranks)
        if init and not checkpoint:
            _carry(solver.net, init, console)
        trainer = Trainer(
            run=run,
            plan=plan,
            solver=solver,
            predictor=_predictor(plan, run, solver.net, compute["device"]),
            plateau=job.plateau,
            seed=job.info["seed"],
            keep=options.keep,
            save_every=60 * options.save_every,
            console=console,
            stop=stop,
            stage=job.stage,
            ranks=ranks,
        )
        for note in job.notes:
            console.say(f"  {note}")
        if checkpoint:
            trainer.go_on(checkpoint)
            console.say(f"going on from iteration {trainer.iteration} of {trainer.last} ({files.shown(checkpoint)})")
        follower.join(ranks, solver)
        result = trainer.train(worked)
        run.update(finished=result, **_traffic(ranks))
        ranks.broadcast(follower.Part())
        return result


def _begin(job: Job, message: caffe_pb2.SolverParameter, checkpoint: Path | None) -> follower.Begin:
    run = job.run
    given = {follower.DEPLOY: run.deploy.read_bytes(), follower.MEAN: run.mean.read_bytes()}
    if checkpoint:
        given |= snapshots.read(checkpoint)
    return follower.Begin(
        message.SerializeToString(), given, bool(checkpoint), job.info["seed"], job.plan.data.resolve()
    )


def _traffic(ranks: Ranks) -> dict[str, Any]:
    """What run.json says of the gradients' travels in this session."""
    traffic = ranks.traffic
    if not traffic or not traffic.iterations:
        return {"gradients": None}
    values = {name: round(value / traffic.iterations, 6) for name, value in dataclasses.asdict(traffic).items()}
    del values["iterations"]
    return {"gradients": {"ranks": ranks.count, **values, "hidden": round(traffic.hidden, 4)}}


def _devices(options: Options, ranks: Ranks) -> str:
    """What computes, in a line."""
    if len(options.gpus) != max(1, ranks.count):  # the CPU, or several machines
        return ", ".join(ranks.names)
    there = gpu.names()
    names = ", ".join(f"GPU {number} ({there[number]})" for number in options.gpus)
    how = "TF32" if options.tf32 else "float32"
    return f"{names}: {how}" + (", the same bits in every run" if options.deterministic else "")


def _schedule(job: Job) -> str:
    """What becomes of the learning rate, in a line."""
    solver, plateau = job.plan.solver, job.plateau
    rate = f"rate: {solver.base_lr:g}"
    if solver.lr_policy != "fixed":
        return f"{rate}, lr_policy {solver.lr_policy}, to iteration {solver.max_iter}"
    if not plateau.patience:
        return f"{rate}, to iteration {solver.max_iter}"
    drop = f"times {plateau.factor:g} when top-1 has not improved for {plateau.epochs}"
    return f"{rate}, {drop}; ends when that has happened {plateau.times}, or at iteration {solver.max_iter}"


def _carry(net: caffe.Net, weights: Path, console: Console) -> None:
    """Let the layers take the weights that a caffemodel has under their names, and say which did."""
    carried = nets.copy_weights(net, weights)
    filled = [name for name in net.params if name not in carried]
    console.say(f"weights from {files.shown(weights)}: {', '.join(carried)}")
    console.say(f"filled at random: {', '.join(filled) or 'no layer'}")


def _solver(plan: fit.Plan, message: caffe_pb2.SolverParameter, ranks: Ranks) -> Any:
    try:
        solver = solving.build(message, ranks)
        float(solver.lr)  # an lr_policy that does not hold together shows here
    except caffe.CaffeError as error:
        what = f"{plan.path} with its solver does not build: {from_caffe(str(error))}"
        raise NetError(f"{what} (tools/describe.py {plan.path} --check says where)") from error
    return solver


def _predictor(plan: fit.Plan, run: Run, net: caffe.Net, device: int | None) -> Predictor:
    try:
        return Predictor(run.deploy, run.mean, net, gpu=device)
    except NetError as error:
        raise NetError(str(error).replace(str(run.deploy), str(plan.path.with_name("deploy.prototxt")))) from error


def _write_files(job: Job) -> None:
    run, plan = job.run, job.plan
    files.write_text(run.train_val, nets.to_text(plan.train_val))
    files.write_text(run.deploy, nets.to_text(plan.deploy))
    files.write_text(run.solver, nets.to_text(plan.solver))
    with files.atomic_file(run.mean) as temporary:
        temporary.write_bytes(plan.mean.read_bytes())
