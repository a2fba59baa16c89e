"""What there is to train: a net and its stages, each fitted to the data, of a new run or of one that goes on."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiny_imagenet import gpu
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import origin
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import nets, zoo
from tiny_imagenet.models.zoo import SCHEDULE
from tiny_imagenet.runs import Run
from tiny_imagenet.training import fit, provenance
from tiny_imagenet.training.schedule import Plateau
from tiny_imagenet.training.trainer import decimal


@dataclass(frozen=True)
class Options:
    """How a net is trained beside what its files say.

    Attributes:
        data: the converted data folder; None when a run goes on with its own.
        run: the run folder to make, or to go on with.
        seed: of weights, order, crops and dropout; None for 1, or that of the run that goes on.
        epochs, max_iter: how long; at most one of them, None for the solver's max_iter.
        batch, base_lr: None for the files' own.
        init: a .caffemodel whose layers of the same name give their weights; there are no stages then.
        staged: whether the nets in stages/ beside the solver are trained before it, where there are any.
        lr_factor, patience, lr_drops: of the rate's schedule (`schedule.Plateau`); None for those of the model's row.
        keep: how many of the newest checkpoints to keep, beside the best.
        save_every: minutes after which a checkpoint is due within an epoch.
        resume: go on with the run in the folder; if there is none yet, it begins.
        quiet: say nothing but warnings.
        gpus: the numbers of those that train, "all", or () for the CPU; None for those of a run that goes on, else ().
        tf32: whether a GPU's products may round their factors to TF32; None for what a run was begun with, or Caffe's.
        deterministic: whether a GPU may only take what gives the same bits in every run; None as of `tf32`.
        prototxt: the folder of the models.
        answer_within: seconds without a sign of life after which one of several machines is lost.
    """

    data: Path | None
    run: Path
    seed: int | None = None
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
    gpus: tuple[int, ...] | str | None = None
    tf32: bool | None = None
    deterministic: bool | None = None
    prototxt: Path = Path("prototxt")
    answer_within: float = 60


@dataclass
class Job:
    """One net to train: a stage of a training, or in the end the whole net.

    Attributes:
        run, plan, plateau: where, what, and for how long.
        info: what run.json is going to say.
        stage: its number from 1; 0 for the whole net.
        notes: what else people are told.
    """

    run: Run
    plan: fit.Plan
    plateau: Plateau
    info: dict[str, Any]
    stage: int
    notes: list[str] = field(default_factory=list)


def new_jobs(run: Run, source: str, options: Options, argv: list[str] | None) -> list[Job]:
    """The jobs of a new run: the stages of the solver that `source` names, and its net.

    Raises:
        NetError, DatasetError: a file is missing, does not parse, does not fit the others or the data.
    """
    model = _model(source, options.prototxt)
    solver = options.prototxt / model.name / "solver.prototxt" if model else Path(source)
    row = model or zoo.MODELS["model1"]
    schedule = {
        name: getattr(row, name) if getattr(options, name) is None else getattr(options, name) for name in SCHEDULE
    }
    stages = _stages(solver) if options.staged and not options.init else []
    seed = 1 if options.seed is None else options.seed
    jobs = []
    for number, file in enumerate([*stages, solver], 1):
        own = run if file == solver else run.stage(number)
        plan = fit.load(file, options.data)
        of_file = plan.solver.max_iter
        fit.fit_data(plan, options.batch)
        fit.fit_classes(plan, adapt=model is not None)
        fit.check_deploy(plan)
        _check_policy(plan, file, options)
        fit.fit_solver(plan, own.path, seed, _length(plan, options), options.base_lr, options.gpus or ())
        info = {
            "model": plan.train_val.name or source,
            "source": _named(source, options.prototxt),
            "stages": len(stages) if own is run else 0,
            "init": options.init and os.path.abspath(options.init),
            **_about(plan, seed),
            "max_iter_of_file": of_file,
            "schedule": schedule,
            "tf32": bool(options.tf32),
            "deterministic": bool(options.deterministic),
            **_session(options, argv),
            "sessions": [_session(options, argv)],
        }
        jobs.append(Job(own, plan, _plateau(schedule), info, number if own is not run else 0))
    return jobs


def jobs_of(run: Run, source: str | None, options: Options, argv: list[str] | None) -> list[Job]:
    """The jobs of a run that goes on, from the files in its folder."""
    info = run.info
    if source is not None and _named(source, options.prototxt) != info["source"]:
        raise RunError(f"{run.path} is a run of {info['source']}, not of {source}: name another run folder")
    check_same(run, options)
    jobs, kept = [], []
    stages = info["stages"]
    for number in (*range(1, stages + 1), 0):
        own = run.stage(number) if number else run
        info = own.info
        # Its own net, not that of the folder that this one was copied from, which the solver may name.
        plan = fit.load(own.solver, options.data or origin.trained_on(own), own.train_val)
        check_data(own, plan.data)
        fit.fit_data(plan)
        fit.fit_classes(plan, adapt=False)
        fit.check_deploy(plan)
        _check_policy(plan, own.solver, options)
        taken = number and (run.stage(number + 1) if number < stages else run).resume_from()
        length = None if taken else _length(plan, options)
        if not taken and options.lr_drops:
            info["schedule"] = {**info["schedule"], "lr_drops": options.lr_drops}
        if taken and (_length(plan, options) or options.lr_drops):
            kept.append(f"stage {number} stays as long as it was: its weights have been taken over")
        fit.fit_solver(plan, own.path, info["seed"], length, None, options.gpus or ())
        about = {**_about(plan, info["seed"]), "changes": info["changes"]}
        session = _session(options, argv)
        info = {**info, **about, "gpus": session["gpus"], "sessions": [*info["sessions"], session]}
        jobs.append(Job(own, plan, _plateau(info["schedule"]), info, number, [] if number else kept))
    return jobs


def check_data(run: Run, data: str | os.PathLike[str]) -> None:
    """See that a data folder has what a run was begun with: the records, and the mean.

    Raises:
        DatasetError: it has not, or there is none.
    """
    manifest = lmdb_reader.read_manifest(data)
    advice = f"name the folder that {run.path} was begun with ({run.info['data']})"
    if {n: (lm["count"], lm["sha256"]) for n, lm in manifest["lmdbs"].items()} != {
        n: (lm["count"], lm["sha256"]) for n, lm in run.info["lmdbs"].items()
    }:
        raise DatasetError(f"{data} has not the records that {run.path} was begun with: {advice}")
    if run.mean.is_file() and (Path(data) / manifest["mean"]).read_bytes() != run.mean.read_bytes():
        raise DatasetError(f"{data} has another mean image than {run.path} was begun with: {advice}")


def _check_policy(plan: fit.Plan, file: Path, options: Options) -> None:
    if plan.solver.lr_policy != "fixed" and any(getattr(options, name) is not None for name in SCHEDULE):
        raise NetError(f'{file}: --patience, --lr-factor and --lr-drops go with lr_policy "fixed" alone')


def _length(plan: fit.Plan, options: Options) -> int | None:
    return options.epochs * plan.epoch if options.epochs else options.max_iter


def _plateau(schedule: dict[str, Any]) -> Plateau:
    return Plateau(schedule["lr_factor"], schedule["patience"], schedule["lr_drops"])


def _session(options: Options, argv: list[str] | None) -> dict[str, Any]:
    made_by, numbers = provenance.made_by(options.prototxt), list(options.gpus or ())
    if numbers:
        names = gpu.names()
        made_by["machine"]["gpus"] = [names[number] for number in numbers]
        made_by["versions"] |= gpu.versions()
    return {"argv": argv or sys.argv, "gpus": numbers, **made_by}


def check_same(run: Run, options: Options) -> None:
    """See that a run was begun as `options` say, where they say something; its rate may drop more often.

    Raises:
        RunError: it was not; the message names both values.
    """
    info = run.info
    given = {
        "--seed": (options.seed, info["seed"]),
        "--batch": (options.batch, info["batch"] // info["iter_size"]),
        "--base-lr": (options.base_lr, info["base_lr"]),
        "--init": (options.init and os.path.abspath(options.init), info["init"]),
        "--tf32": (options.tf32, info.get("tf32", False)),
        "--deterministic": (options.deterministic, info.get("deterministic", False)),
        "--no-stages": (0 if not options.staged and not options.init else None, info["stages"]),
        **{f"--{name.replace('_', '-')}": (getattr(options, name), info["schedule"][name]) for name in SCHEDULE},
    }
    if options.lr_drops is not None and options.lr_drops > info["schedule"]["lr_drops"]:
        del given["--lr-drops"]
    for flag, (wanted, was) in given.items():
        if wanted is not None and wanted != was:
            raise RunError(
                f"{run.path} was begun with another {flag} ({was}, not {wanted}): leave the flag out to go on with it, "
                "or name another run folder"
            )


def _stages(solver: Path) -> list[Path]:
    """The solvers of the nets that are trained before, in stages/1, stages/2 and so on beside the solver."""
    folders = [folder for folder in solver.parent.glob("stages/*") if folder.name.isdigit()]
    return [folder / "solver.prototxt" for folder in sorted(folders, key=lambda folder: int(folder.name))]


def solver_in(source: str) -> str:
    """The solver of a folder, where `source` is one and no model of the zoo; else as it is."""
    folder = source not in {**zoo.MODELS, **zoo.VARIANTS} and os.path.isdir(source)
    return os.path.join(source, "solver.prototxt") if folder else source


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


def _about(plan: fit.Plan, seed: int) -> dict[str, Any]:
    """The part of run.json that says what is trained on what."""
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
        "nonlinearity": nets.nonlinearity(plan.train_val),
        "screened": any("screened" in nets.data_param(layer).source for layer in plan.train_val.layer),
        "parameters": outline.outline(plan.deploy, "TEST").parameter_count,
    }
