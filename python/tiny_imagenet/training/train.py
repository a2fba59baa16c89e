"""Train a model of the zoo or any solver, stage by stage, or resume a run.

tools/train.py -> train -> train_rank -> train_net -> loop.Loop.run -> solver.step

A Plan is a net and its solver, fitted to the data; a Job is a Plan with its run folder and schedule; a Task contains
what every rank needs of a Job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import caffe

from tiny_imagenet import files, gpu, runs
from tiny_imagenet.errors import GpuError, NetError, RunError, from_caffe
from tiny_imagenet.evaluation.evaluator import Evaluator
from tiny_imagenet.models import nets
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import jobs, loop, rank_consistency, solving
from tiny_imagenet.training import plan as plans
from tiny_imagenet.training.jobs import Job
from tiny_imagenet.training.loop import Checkpointing, Loop, Task
from tiny_imagenet.training.options import Options
from tiny_imagenet.training.progress import Progress, RunProgress
from tiny_imagenet.training.ranks import Alone, Ranks


def train(source: str | None, options: Options, argv: list[str] | None = None) -> dict[str, Any]:
    """Train a model or a solver in this process or, on several GPUs, in one process each.

    Args:
        source: a model's name (its files in `options.prototxt` are read as they are), a solver prototxt or its
            folder. None to resume.
        options: where and how.
        argv: the command to record in run.json.

    Returns:
        {"iterations", "epochs", "top1" (the best), "best" (its iteration), "verdict", "seconds", "run", "already"
        (whether it had finished before), "longer" (how to make it longer)}.

    Raises:
        NetError: a file is missing or invalid, or does not fit the data.
        DatasetError: the data folder is missing, incomplete or different from that of the run.
        RunError: the run folder is in use or not empty, there is nothing to resume, the run was started with other
            options, or training diverged.
        GpuError: a GPU is missing or cannot be used.
        Stopped: a signal ended training; there is a checkpoint.
    """
    argv, options = argv or sys.argv, resolve_options(options)
    if len(options.gpus) > 1:
        from tiny_imagenet.training import spawn

        names = [f"GPU {number}" for number in options.gpus]
        return spawn.run(names, train_rank, source, options, argv)
    try:
        return train_rank(Alone(), source, options, argv)
    finally:
        caffe.set_mode_cpu()


def train_launched(source: str | None, options: Options, argv: list[str]) -> dict[str, Any]:
    """`train` as one of the processes that mpirun or srun started; the result is {} in all ranks but 0."""
    from tiny_imagenet.training import mpi

    if launch := mpi.launched():
        argv = [launch.launcher, "-n", str(launch.size), *argv]
    return mpi.run(_train_launched, source, options, argv, timeout=options.timeout) or {}


def _train_launched(ranks: Ranks, source: str | None, options: Options, argv: list[str]) -> dict[str, Any]:
    """Check that all ranks have the same code, options and data, take over rank 0's settings, and train."""
    rank_consistency.check(ranks, rank_consistency.process_facts(source, options))
    first = None
    if ranks.rank == 0:
        run, given = Run(options.run), resolve_options(options)
        data = options.data or (run.info["data"] if options.resume and run.started else None)
        first = (given.gpus, given.tf32, given.deterministic, data)
    gpus, tf32, deterministic, data = ranks.broadcast(first)
    if data is not None:
        rank_consistency.check(ranks, rank_consistency.data_facts(Path(options.data or data)))
    gpus = gpu.choose(gpus if options.gpus is None else options.gpus)
    if gpus and not caffe.has_nccl():
        raise GpuError("this build of Caffe has no NCCL: install it (libnccl-dev) and run tools/setup.sh --gpu")
    options = dataclasses.replace(options, gpus=gpus, tf32=tf32, deterministic=deterministic)
    try:
        return train_rank(ranks, source, options, argv)
    finally:
        caffe.set_mode_cpu()


def resolve_options(options: Options) -> Options:
    """Replace "all" GPUs by their numbers, and options left open by those of the run to resume.

    Raises:
        GpuError: a GPU is missing or cannot be used.
        RunError: run.json cannot be read.
    """
    run = Run(options.run)
    info = run.info if options.resume and run.started else {}
    gpus = options.gpus
    if gpus is None and info:
        try:
            gpus = gpu.choose(info.get("gpus", []))
        except GpuError as error:
            raise GpuError(f"{run.path} was trained on {error}") from error
    values: dict[str, Any] = {"gpus": gpu.choose(gpus or ())}
    defaults = gpu.settings() if values["gpus"] else {"tf32": False, "deterministic": False}
    for name, default in defaults.items():
        if getattr(options, name) is None:
            values[name] = info.get(name, False) if info else default
        elif not values["gpus"]:
            raise GpuError(f"--{name} is a setting of GPUs, but this training is on the CPU: add --gpu")
    return dataclasses.replace(options, **values)


def train_rank(ranks: Ranks, source: str | None, options: Options, argv: list[str]) -> dict[str, Any]:
    """`train` as one of the ranks, which all call this with the same arguments; the result is {} in all ranks but 0."""
    gpu.take(ranks.device(options.gpus))
    result: dict[str, Any] = {}
    with StopRequest() as stop, _open_jobs(ranks, source, options, argv) as made:
        count = ranks.broadcast(len(made))
        for number, job in enumerate(made or [None] * count):
            finished = ranks.broadcast(job.why_finished() if job else "")
            if job:
                result = {**(job.run.info.get("finished") or {}), "run": str(job.run.path), "already": bool(finished)}
            if not finished:
                init = job and _initial_weights(made, number)
                result |= train_net(job, init, ranks, options, stop) or {}
            if job:
                result["longer"] = finished or job.why_finished()
    return result


def _initial_weights(made: list[Job], number: int) -> str | Path | None:
    """The caffemodel that a job starts from: the best one of the stage before, or that of --init."""
    return made[number - 1].run.weights("best") if number else made[0].info["init"]


@contextlib.contextmanager
def _open_jobs(ranks: Ranks, source: str | None, options: Options, argv: list[str]) -> Iterator[list[Job]]:
    """Yield the jobs in rank 0, which holds the lock of the run folder, and none in the others."""
    if ranks.rank:
        yield []
        return
    source = source and jobs.solver_in(source)
    resumes = options.resume and Run(options.run).started
    if not resumes and (source is None or options.data is None):
        missing = " and ".join([*([] if source else ["a model or solver"]), *([] if options.data else ["--data"])])
        raise RunError(f"{options.run} contains no run to resume: pass {missing} to start one")
    with runs.reopen(options.run) if resumes else runs.create(options.run) as run:
        made = (jobs.resumed if resumes else jobs.new)(run, source, options, argv)
        for job in made:
            plans.check_shares(job.plan, ranks.names, resumes)
            if ranks.count > 1:
                job.info["sessions"][-1]["ranks"] = ranks.names
        try:
            if not resumes:
                for job in made:
                    job.write_files()
                    job.run.start(job.info)
            yield made
        finally:
            if not resumes and not any(job.run.iterations() or job.run.metrics() for job in made):
                run.discard()  # it failed before there was anything to keep


def train_net(
    job: Job | None, init: str | Path | None, ranks: Ranks, options: Options, stop: StopRequest
) -> dict[str, Any] | None:
    """Train one net and return the result of `Loop.run` in rank 0; `job` and the result are None in the others.

    Args:
        job: what to train.
        init: caffemodel that initializes the layers of the same names, unless there is a checkpoint.
        ranks: the ranks that train together.
        options: as for `train`.
        stop: entered.
    """
    checkpoint = job.run.resume_from() if job else None
    task = ranks.broadcast(_prepare(job, checkpoint, ranks.count) if job else None)
    data = (options.data or task.data).resolve()
    solving.relocate(task.solver.net_param, data)
    device = ranks.device(options.gpus)
    gpu.compute_on(device, options.tf32, options.deterministic)
    with _progress(job, task, options) as progress:
        if job:
            _announce(job, checkpoint, progress, options, ranks)
        solver = _build(job, task, ranks)
        loop.restore(solver, task, checkpoint)
        if init and not checkpoint:
            _initialize(solver.net, init, progress)
        ranks.join(solver)
        net, lmdb = task.solver.net_param, data / task.validation
        evaluator = Evaluator(net, lmdb, data / task.mean, solver.net, gpu=device)
        checkpointing = job and Checkpointing(job.run, options.keep, 60 * options.save_every, job.stage)
        result = Loop(task, solver, evaluator, ranks, progress, stop, checkpointing).run()
        if job:
            job.run.update(finished=result, gradients=_traffic(ranks))
    ranks.broadcast()  # NCCL needs all ranks to leave together
    return result if job else None


def _prepare(job: Job, checkpoint: Path | None, count: int) -> Task:
    """Write a job's files, rewind its records to the checkpoint, and return its task for `count` ranks."""
    job.run.tidy()
    job.write_files()
    info = {**job.info, "finished": None}
    job.run.update(**info)
    plan, run = job.plan, job.run
    state = None
    if checkpoint:
        state = run.state(checkpoint)
        run.rewind(state["iteration"], state["validated"])
        run.link("last", state["iteration"])
        if state["best"] in run.iterations():
            run.link("best", state["best"])
    else:
        run.rewind(0)  # records of a run that was killed before its first checkpoint
    return Task(
        solver=solving.message(plan.solver, plan.net, count),
        validation=plans.validation_lmdb(plan.net, plan.data).name,
        data=plan.data,
        mean=plan.mean.name,
        seed=job.info["seed"],
        epoch=plan.epoch,
        schedule=job.schedule,
        state=state,
        checkpoint=solving.read_checkpoint(checkpoint) if checkpoint and count > 1 else None,
    )


def _progress(job: Job | None, task: Task, options: Options) -> Progress:
    if not job:
        return Progress()
    start = task.state["iteration"] if task.state else 0
    return RunProgress(job.run, start, task.solver.max_iter, task.epoch, job.plan.batch, options.quiet)


def _announce(job: Job, checkpoint: Path | None, progress: Progress, options: Options, ranks: Ranks) -> None:
    """Print the net, its data, its changes and its schedule."""
    plan = job.plan
    length = f"{plan.epoch} iterations of {plan.batch} images per epoch"
    progress.note(f"{plan.net.name}: {plan.describe_data()}, {length}")
    for line in (f"net: {files.shown(plan.path)}", *plan.changes, f"learning rate: {job.schedule.describe()}"):
        progress.note(f"  {line}")
    if options.gpus or ranks.count > 1:
        progress.note(f"  on {_devices(options, ranks)}")
    for layer in plan.net.layer:
        if layer.type == "Data" and nets.is_training(layer):
            note = "starts again at its first record when the run resumes; use CropData to resume exactly"
            progress.note(f"  layer {layer.name} (Data) {note}", warning=True)
    for note in job.notes:
        progress.note(f"  {note}")
    if checkpoint:
        progress.note(f"resume from iteration {checkpoint.name} of {plan.solver.max_iter} ({files.shown(checkpoint)})")


def _devices(options: Options, ranks: Ranks) -> str:
    if len(options.gpus) != max(1, ranks.count):  # the CPU, or several machines
        return ", ".join(ranks.names)
    names = gpu.names()
    devices = ", ".join(f"GPU {number} ({names[number]})" for number in options.gpus)
    precision = "TF32" if options.tf32 else "float32"
    return f"{devices}: {precision}" + (", deterministic" if options.deterministic else "")


def _traffic(ranks: Ranks) -> dict[str, Any] | None:
    """Averages per iteration of what averaging gradients took, for run.json."""
    traffic = ranks.traffic
    if not traffic or not traffic.iterations:
        return None
    values = {name: round(value / traffic.iterations, 6) for name, value in dataclasses.asdict(traffic).items()}
    del values["iterations"]
    return {"ranks": ranks.count, **values, "hidden": round(traffic.hidden, 4)}


def _build(job: Job | None, task: Task, ranks: Ranks) -> Any:
    ranks.prepare()
    try:
        solver = caffe.get_solver(task.solver)
        float(solver.lr)  # raises for an invalid lr_policy
    except caffe.CaffeError as error:
        path = job.plan.path if job else "the net"
        raise NetError(
            f"{path} with its solver does not build: {from_caffe(str(error))} (tools/describe.py {path} --check)"
        ) from error
    return solver


def _initialize(net: caffe.Net, weights: str, progress: Progress) -> None:
    """Initialize the layers that a caffemodel contains, and print which."""
    names = nets.copy_weights(net, weights)
    filled = ", ".join(name for name in net.params if name not in names)
    progress.note(f"weights from {files.shown(weights)}: {', '.join(names)}")
    progress.note(f"random weights: {filled or 'no layer'}")
