"""The nets that a run trains, one after the other: its stages and the net itself, of a new or a resumed run."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet import files, gpu
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import data_source
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import derive, nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import plan as plans
from tiny_imagenet.training import provenance, schedule
from tiny_imagenet.training.options import Options, flag
from tiny_imagenet.training.plan import Plan
from tiny_imagenet.training.schedule import Schedule

# Options that a run keeps, with their values in run.json.
_KEPT = {
    "seed": lambda info: info["seed"],
    "batch": lambda info: info["batch"] // info["iter_size"],
    "base_lr": lambda info: info["base_lr"],
    "init": lambda info: info["init"],
    "tf32": lambda info: info.get("tf32", False),
    "deterministic": lambda info: info.get("deterministic", False),
    **{name: lambda info, name=name: _schedule_of(info)[name] for name in zoo.SCHEDULE},
}


@dataclass
class Job:
    """One net to train.

    Attributes:
        run: its run folder.
        plan: the net, its solver and its data.
        schedule: of the learning rate.
        info: the content of run.json.
        stage: number of the stage, from 1; 0 for the net itself.
        notes: further lines to print.
    """

    run: Run
    plan: Plan
    schedule: Schedule
    info: dict[str, Any]
    stage: int
    notes: list[str] = field(default_factory=list)

    def write_files(self) -> None:
        """Write the prototxt files and the mean into the run folder."""
        files.write_text(self.run.train_val, nets.to_text(self.plan.net))
        files.write_text(self.run.deploy, nets.to_text(derive.deploy(self.plan.net)))
        files.write_text(self.run.solver, nets.to_text(self.plan.solver))
        files.write_bytes(self.run.mean, self.plan.mean.read_bytes())

    def why_finished(self) -> str:
        """Why training has finished, and which flag makes it longer; "" if it has not finished."""
        finished = self.run.info.get("finished")
        if not finished:
            return ""
        if finished["iterations"] >= self.plan.solver.max_iter:
            return (
                f"finished all {finished['iterations']} iterations: --resume with more --epochs or --max-iter continues"
            )
        if finished["verdict"] == "stop":  # of a Plateau
            drops = self.schedule.drops
            if drops <= _schedule_of(self.run.info)["lr_drops"]:
                return f"stopped at plateau {drops}: --resume --lr-drops {drops + 1} continues"
        return ""


def new(run: Run, source: str, options: Options, argv: list[str]) -> list[Job]:
    """Return the jobs of a new run: the stages of the solver `source`, and its net.

    Raises:
        NetError, DatasetError: a file is missing or invalid, or does not fit the data.
    """
    model = _model(source, options.prototxt)
    solver = options.prototxt / model.name / "solver.prototxt" if model else Path(source)
    settings = options.schedule(model or next(iter(zoo.MODELS.values())))
    stages = _stages(solver) if options.staged and not options.init else []
    seed = 1 if options.seed is None else options.seed
    jobs = []
    for number, file in enumerate([*stages, solver], 1):
        own = run if file == solver else run.stage(number)
        plan = plans.read(file, options.data)
        file_iterations, file_batch = plan.solver.max_iter, _batch(plan)
        plans.fit_data(plan, options.batch)
        plans.fit_classes(plan, adapt=model is not None)
        length = _length(plan, options)
        if length is None and options.batch:  # the same number of epochs with another batch
            length = max(1, round(file_iterations * file_batch / options.batch))
        plans.fit_solver(plan, seed, length, options.base_lr, options.gpus or ())
        session = _session(options, argv)
        info = {
            "model": plan.net.name or source,
            "source": _named(source, options.prototxt),
            "stages": len(stages) if own is run else 0,
            "init": options.init and os.path.abspath(options.init),
            **_describe(plan, seed),
            "max_iter_of_file": file_iterations,
            "schedule": settings,
            "tf32": bool(options.tf32),
            "deterministic": bool(options.deterministic),
            **session,
            "sessions": [session],
        }
        jobs.append(Job(own, plan, _schedule(plan, settings, options, file), info, 0 if own is run else number))
    return jobs


def resumed(run: Run, source: str | None, options: Options, argv: list[str]) -> list[Job]:
    """Return the jobs of a run to resume, from the files in its folder.

    Raises:
        RunError: the run was started with other options.
        NetError, DatasetError: a file is missing or invalid, or the data differs from that of the run.
    """
    info = run.info
    if source is not None and _named(source, options.prototxt) != info["source"]:
        raise RunError(f"{run.path} is a run of {info['source']}, not of {source}: name another run folder")
    _check_same(run, options)
    jobs, notes = [], []
    stages = info["stages"]
    for number in (*range(1, stages + 1), 0):
        own = run.stage(number) if number else run
        info = own.info
        plan = plans.read(own.solver, options.data or data_source.trained_on(own), own.train_val)
        _check_data(own, plan.data)
        plans.fit_data(plan)
        plans.fit_classes(plan, adapt=False)
        taken = number and (run.stage(number + 1) if number < stages else run).resume_from()
        longer = _length(plan, options) or options.lr_drops
        if taken and longer:
            notes.append(f"stage {number} keeps its length: its weights are already in use")
        settings = _schedule_of(info)
        if options.lr_drops and not taken:
            settings = info["schedule"] = {**settings, "lr_drops": options.lr_drops}
        plans.fit_solver(plan, info["seed"], None if taken else _length(plan, options), None, options.gpus or ())
        session = _session(options, argv)
        info = {**info, **_describe(plan, info["seed"]), "changes": info["changes"], "gpus": session["gpus"]}
        info["sessions"] = [*info["sessions"], session]
        jobs.append(Job(own, plan, _schedule(plan, settings, options, own.solver), info, number))
    jobs[-1].notes = notes
    return jobs


def solver_in(source: str) -> str:
    """Return the solver of a folder if `source` is one and not a model's name; else `source`."""
    folder = source not in {**zoo.MODELS, **zoo.VARIANTS} and os.path.isdir(source)
    return os.path.join(source, "solver.prototxt") if folder else source


def _batch(plan: Plan) -> int:
    return next(
        (nets.data_param(layer).batch_size for layer in nets.lmdb_layers(plan.net) if nets.is_training(layer)), 0
    )


def _length(plan: Plan, options: Options) -> int | None:
    return options.epochs * plan.epoch if options.epochs else options.max_iter


def _schedule(plan: Plan, settings: dict[str, Any], options: Options, file: Path) -> Schedule:
    given = [name for name in zoo.SCHEDULE if getattr(options, name) is not None]
    if plan.solver.lr_policy != "fixed" and given:
        raise NetError(f'{file}: {flag(given[0])} needs lr_policy: "fixed", got "{plan.solver.lr_policy}"')
    return schedule.make(settings, plan.solver.lr_policy, decimal(plan.solver.base_lr), plan.solver.max_iter)


def _schedule_of(info: dict[str, Any]) -> dict[str, Any]:
    """The schedule fields in a run.json; of earlier versions, which lack some, with the defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(zoo.Model) if f.name in zoo.SCHEDULE}
    return {**defaults, **info["schedule"]}


def _session(options: Options, argv: list[str]) -> dict[str, Any]:
    made_by, numbers = provenance.made_by(options.prototxt), list(options.gpus or ())
    if numbers:
        names = gpu.names()
        made_by["machine"]["gpus"] = [names[number] for number in numbers]
        made_by["versions"] |= gpu.versions()
    return {"argv": argv, "gpus": numbers, **made_by}


def _check_same(run: Run, options: Options) -> None:
    """Raise RunError if an option that a run keeps is given with another value; lr_drops may be raised."""
    for name, value_in in _KEPT.items():
        given, kept = getattr(options, name), value_in(run.info)
        given = os.path.abspath(given) if name == "init" and given else given
        raised = name == "lr_drops" and given is not None and given > kept
        if given is not None and given != kept and not raised:
            raise RunError(f"{run.path} was started with {flag(name)} {kept}, got {given}: omit it or name another run")
    if not options.staged and not options.init and run.info["stages"]:
        raise RunError(f"{run.path} has {run.info['stages']} stages: omit --no-stages or name another run")


def _check_data(run: Run, data: Path) -> None:
    """Raise DatasetError unless a data folder has the records and the mean that a run was trained on."""
    manifest = lmdb_reader.read_manifest(data)
    advice = f"pass --data with the folder that {run.path} was started with ({run.info['data']})"
    records = [
        {name: (about["count"], about["sha256"]) for name, about in of["lmdbs"].items()} for of in (manifest, run.info)
    ]
    if records[0] != records[1]:
        raise DatasetError(f"{data} has other records than the data of {run.path}: {advice}")
    if run.mean.is_file() and (data / manifest["mean"]).read_bytes() != run.mean.read_bytes():
        raise DatasetError(f"{data} has a mean image different from that of {run.path}: {advice}")


def _stages(solver: Path) -> list[Path]:
    """The solvers of the nets to train first, in stages/1, stages/2, ... next to the solver."""
    folders = [folder for folder in solver.parent.glob("stages/*") if folder.name.isdigit()]
    return [folder / "solver.prototxt" for folder in sorted(folders, key=lambda folder: int(folder.name))]


def _model(source: str, prototxt: Path) -> zoo.Model | None:
    """The model of the zoo that `source` names, by its name or the path of its solver; None for another solver."""
    if not source.endswith(".prototxt") and os.sep not in source:
        model = zoo.get(source)
        if not (prototxt / model.name).is_dir():
            raise NetError(f"{prototxt / model.name} is missing: create it with tools/generate.py {model.name}")
        return model
    path = Path(source).resolve()
    own = path.name == "solver.prototxt" and path.parent.parent == prototxt.resolve()
    return {**zoo.MODELS, **zoo.VARIANTS}.get(path.parent.name) if own else None


def _named(source: str, prototxt: Path) -> str:
    """The name of `source` in run.json: a model's name, or the absolute path of a solver."""
    model = _model(source, prototxt)
    return model.name if model else os.path.abspath(source)


def _describe(plan: Plan, seed: int) -> dict[str, Any]:
    """The part of run.json about the net and its data."""
    return {
        "seed": seed,
        "batch": plan.batch,
        "iter_size": plan.solver.iter_size,
        "max_iter": plan.solver.max_iter,
        "base_lr": decimal(plan.solver.base_lr),
        "weight_decay": decimal(plan.solver.weight_decay),
        "data": str(plan.data.resolve()),
        "lmdbs": plan.manifest["lmdbs"],
        "classes": plan.classes,
        "wnids": [entry["wnid"] for entry in plan.manifest["classes"]],
        "train_images": plan.train_images,
        "changes": plan.changes,
        "nonlinearity": nets.nonlinearity(plan.net),
        "screened": any("screened" in nets.data_param(layer).source for layer in plan.net.layer),
        "parameters": outline.outline(derive.deploy(plan.net), "TEST").parameter_count,
    }


def decimal(value: float) -> float:
    """The decimal number that a float32 of a message was written as."""
    return float(f"{value:.7g}")
