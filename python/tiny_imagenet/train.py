"""The training loop: solver steps, validation after each epoch, a rate that drops on plateaus, checkpoints."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2
from tensorboardX import SummaryWriter

import tiny_imagenet
from tiny_imagenet import cli, files, fit, metrics, nets, runs, zoo
from tiny_imagenet.errors import NetError, RunError
from tiny_imagenet.predict import Predictor, predict
from tiny_imagenet.runs import Run

DISPLAY = 20  # iterations from one record of the training loss to the next


@dataclass(frozen=True)
class Options:
    """How a net is trained beside what its files say.

    Attributes:
        data: the converted data folder.
        run: the run folder to make.
        seed: of weights, order, crops and dropout.
        epochs, max_iter: how long; at most one of them, None for the solver's max_iter.
        batch, base_lr: None for the files' own.
        init: a .caffemodel whose layers of the same name give their weights.
        keep: how many of the newest checkpoints to keep, beside the best.
        prototxt: the folder with model1 ... model9.
    """

    data: Path
    run: Path
    seed: int = 1
    epochs: int | None = None
    max_iter: int | None = None
    batch: int | None = None
    base_lr: float | None = None
    init: Path | None = None
    keep: int = 2
    prototxt: Path = Path("prototxt")


@dataclass
class Plateau:
    """Divides the rate when validation top-1 has not improved for `patience` epochs; ends after `drops` such times.

    Section 5.2.1; open points e and l.
    """

    factor: float
    patience: int
    drops: int
    best: float = -math.inf
    waited: int = 0
    dropped: int = 0

    def update(self, top1: float) -> str:
        """Take the top-1 of an epoch; what to do now: "best", "wait", "drop" or "stop"."""
        if top1 > self.best:
            self.best, self.waited = top1, 0
            return "best"
        self.waited += 1
        if self.waited < self.patience:
            return "wait"
        self.waited = 0
        self.dropped += 1
        return "stop" if self.dropped >= self.drops else "drop"


@dataclass
class Trainer:
    """One training under way: its net, where it is written, how far it is."""

    run: Run
    plan: fit.Plan
    solver: Any
    predictor: Predictor
    plateau: Plateau
    options: Options
    events: SummaryWriter
    losses: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.monotonic)
    clock_iteration: int = 0

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.solver.iter

    def step(self) -> None:
        """One iteration; a loss that is not finite ends the training."""
        caffe.set_random_seed(_seed(self.options.seed, self.iteration))
        try:
            self.solver.step(1)
        except caffe.CaffeError as error:
            raise RunError(f"iteration {self.iteration}: {error}") from error
        loss = sum(float(np.sum(blob.data)) * weight for blob, weight in _losses(self.solver.net))
        self.check_finite(loss, "loss")
        self.losses.append(loss)

    def check_finite(self, loss: float, what: str) -> None:
        """End the training where it has diverged; what was written before stays."""
        if math.isfinite(loss):
            return
        good = f"; the last good checkpoint is {self.run.iterations()[-1]}" if self.run.iterations() else ""
        rate = f"--base-lr below {_decimal(self.solver.lr):g}"
        raise RunError(f"the {what} is {loss} at iteration {self.iteration}: train anew with a {rate}{good}")

    def record(self, **values: Any) -> dict[str, Any]:
        """Write a record of now to metrics.jsonl and the events."""
        now = time.monotonic()
        images = (self.iteration - self.clock_iteration) * self.plan.batch
        record = {
            "iteration": self.iteration,
            "epoch": round(self.iteration / self.plan.epoch, 4),
            "learning_rate": _decimal(self.solver.lr),
            "train_loss": float(np.mean(self.losses)) if self.losses else None,
            "images_per_second": round(images / (now - self.clock), 2) if images else None,
            **values,
        }
        self.losses.clear()
        self.run.log(record)
        for name, value in record.items():
            if name not in ("iteration", "epoch") and value is not None:
                self.events.add_scalar(name, value, self.iteration)
        self.restart_clock()
        return record

    def restart_clock(self) -> None:
        """Count images a second from here: validation and checkpoints are not training."""
        self.clock, self.clock_iteration = time.monotonic(), self.iteration

    def validate(self) -> str:
        """Validate, write a checkpoint, and say what the plateau rule makes of it."""
        given = predict(self.predictor, self.plan.data / "val.lmdb")
        self.check_finite(float(given.probabilities.sum()), "sum of the validation probabilities")
        summary = metrics.summary(given)
        verdict = self.plateau.update(summary["top1"])
        if verdict in ("drop", "stop") and self.plan.solver.lr_policy != "fixed":
            verdict = "wait"  # another lr_policy has its own schedule and ends at max_iter
        record = self.record(validation_loss=summary["loss"], top1=summary["top1"], top5=summary["top5"])
        if verdict == "drop":
            self.solver.param.base_lr *= self.plateau.factor
        self.checkpoint({**record, "best": self.plateau.best})
        if verdict == "best":
            self.run.link("best", self.iteration)
        self.run.prune(self.options.keep)
        loss = "" if record["train_loss"] is None else f"training loss {record['train_loss']:.4f}, "
        speed = f", {record['images_per_second']:.1f} images a second" if record["images_per_second"] else ""
        cli.note(
            f"iteration {self.iteration} (epoch {record['epoch']:g}): {loss}validation loss {summary['loss']:.4f}, "
            f"top-1 {100 * summary['top1']:.2f} %{' (best)' if verdict == 'best' else ''}{speed}"
        )
        if verdict == "drop":
            cli.note(
                f"no better for {self.plateau.patience} epochs: learning rate {self.solver.param.base_lr:g} from here"
            )
        self.restart_clock()
        return verdict

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write weights, solver state and `state` as one checkpoint."""
        with self.run.checkpoint(self.iteration) as folder:
            self.solver.param.snapshot_prefix = str(folder / "snapshot")
            self.solver.snapshot()
            weights = folder / "weights.caffemodel"
            next(folder.glob("snapshot*.caffemodel")).rename(weights)
            snapshot = next(folder.glob("snapshot*.solverstate"))
            message = caffe_pb2.SolverState.FromString(snapshot.read_bytes())
            message.learned_net = weights.name
            (folder / "solver.solverstate").write_bytes(message.SerializeToString())
            snapshot.unlink()
            files.write_json(folder / "state.json", state)


def train(source: str, options: Options, argv: list[str] | None = None) -> dict[str, Any]:
    """Train a model of the zoo or a solver file.

    Args:
        source: model1 ... model9 (its files in `options.prototxt` are read as they stand) or a solver prototxt; the
            solver of such a model means the model.
        options: where and how.
        argv: the command to keep in run.json.

    Returns:
        {"iterations", "epochs", "top1" (the best), "seconds", "run"}.

    Raises:
        NetError: a file is missing, does not parse, does not build or does not fit the data.
        DatasetError: the data folder is missing or incomplete.
        RunError: the run folder is in use or not empty, or the loss is no longer finite.
    """
    model = _model(source, options.prototxt)
    solver_file = options.prototxt / model.name / "solver.prototxt" if model else Path(source)
    plan = fit.load(solver_file, options.data)
    fit.fit_data(plan, options.batch)
    fit.fit_classes(plan, adapt=model is not None)
    max_iter = options.epochs * plan.epoch if options.epochs else options.max_iter
    fit.fit_solver(plan, options.run, options.seed, max_iter, options.base_lr)
    row = model or zoo.MODELS["model1"]
    with runs.create(options.run) as run:
        trainer = _prepare(run, plan, options, Plateau(row.lr_factor, row.patience, row.lr_drops))
        cli.note(f"{plan.train_val.name}: {fit.describe_data(plan)}, {plan.epoch} iterations of {plan.batch} an epoch")
        cli.note(f"  net: {plan.path}")
        for change in plan.changes:
            cli.note(f"  {change}")
        with trainer.events:
            return _loop(trainer, _info(source if model else str(solver_file), trainer, argv))


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


def _loop(trainer: Trainer, info: dict[str, Any]) -> dict[str, Any]:
    run, plan, verdict = trainer.run, trainer.plan, ""
    iterations = range(plan.solver.max_iter)
    try:
        for iteration in cli.track(iterations, len(iterations), f"train {plan.train_val.name}"):
            trainer.step()
            if iteration == 0:  # it works: what fails before leaves no run folder behind
                run.start(info)
            done = iteration + 1
            if done % plan.epoch == 0 or done == len(iterations):
                verdict = trainer.validate()
            elif done % DISPLAY == 0:
                trainer.record()
            if verdict == "stop":
                break
    except KeyboardInterrupt:
        if trainer.iteration:
            if trainer.iteration not in run.iterations():
                trainer.checkpoint({"iteration": trainer.iteration, "interrupted": True})
            cli.note(f"checkpoint {trainer.iteration} is in {run.path}/checkpoints")
        raise
    return {
        "iterations": trainer.iteration,
        "epochs": trainer.iteration / plan.epoch,
        "top1": trainer.plateau.best,
        "seconds": time.monotonic() - trainer.started,
        "run": str(trainer.run.path),
    }


def _prepare(run: Run, plan: fit.Plan, options: Options, plateau: Plateau) -> Trainer:
    files.write_text(run.train_val, nets.to_text(plan.train_val))
    files.write_text(run.deploy, nets.to_text(plan.deploy))
    files.write_text(run.solver, nets.to_text(plan.solver))
    with files.atomic_file(run.mean) as temporary:
        temporary.write_bytes(plan.mean.read_bytes())
    caffe.set_mode_cpu()
    try:
        solver = caffe.get_solver(str(run.solver))
        float(solver.lr)  # an lr_policy that does not hold together shows here
    except caffe.CaffeError as error:
        raise NetError(f"{plan.path} with its solver does not build: {error}") from error
    if options.init:
        taken = nets.copy_weights(solver.net, options.init)
        plan.changes.append(f"weights of {', '.join(taken)}: from {options.init} (the file fills them at random)")
    try:
        predictor = Predictor(run.deploy, run.mean, solver.net)
    except NetError as error:
        raise NetError(str(error).replace(str(run.deploy), str(plan.path.with_name("deploy.prototxt")))) from error
    events = SummaryWriter(str(run.events))
    return Trainer(run, plan, solver, predictor, plateau, options, events)


def _decimal(value: float) -> float:
    """The number a person wrote where the message holds its float32."""
    return float(f"{value:.7g}")


def _losses(net) -> list[tuple[Any, float]]:
    weights = zip(net.blobs.values(), net._blob_loss_weights)
    return [(blob, weight) for blob, weight in weights if weight]


def _seed(seed: int, iteration: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{iteration}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def _info(source: str, trainer: Trainer, argv: list[str] | None) -> dict[str, Any]:
    plan, options = trainer.plan, trainer.options
    return {
        "model": plan.train_val.name or source,
        "source": source,
        "argv": argv or sys.argv,
        "seed": options.seed,
        "batch": plan.batch,
        "max_iter": plan.solver.max_iter,
        "base_lr": _decimal(plan.solver.base_lr),
        "weight_decay": _decimal(plan.solver.weight_decay),
        "data": str(options.data.resolve()),
        "classes": plan.classes,
        "wnids": [entry["wnid"] for entry in plan.manifest["classes"]],
        "train_images": plan.train_images,
        "changes": plan.changes,
        "nonlinearity": nets.nonlinearity(plan.train_val),
        "screened": any("screened" in nets.data_param(layer).source for layer in plan.train_val.layer),
        "parameters": sum(blob.count for blobs in trainer.solver.net.params.values() for blob in blobs),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "caffe": caffe.__version__,
            "tiny_imagenet": tiny_imagenet.__version__,
        },
        "commit": _commit(options.prototxt),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _commit(folder: Path) -> str | None:
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
