"""The training loop: solver steps, validation after each epoch, a rate that drops on plateaus, checkpoints.

An iteration is a function of seed, weights, history and its number alone (`solving.Iterations`). A checkpoint therefore
holds all there is to go on from. With several ranks this is rank 0's loop: it decides and writes, and tells the others.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import caffe
import numpy as np

from tiny_imagenet import files
from tiny_imagenet.errors import RunError, Stopped, TinyImageNetError, from_caffe
from tiny_imagenet.evaluation import metrics
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import fit, follower, snapshots, solving, validation
from tiny_imagenet.training.console import Console, duration
from tiny_imagenet.training.events import Events
from tiny_imagenet.training.ranks import Alone, Ranks
from tiny_imagenet.training.schedule import Plateau

DISPLAY = 20  # iterations from one record of the training loss to the next


@dataclass
class Trainer:
    """One training under way.

    Attributes:
        run: where it is written.
        plan: the net, its solver and its data as they were fitted.
        solver: caffe's, of that net.
        predictor: the deploy net, with the solver's weights.
        plateau: when the rate drops.
        seed: of the dropout masks.
        keep: how many of the newest checkpoints to keep, beside the best.
        save_every: seconds after which a checkpoint is due, validated or not.
        console: where people look.
        stop: whether people want it to end.
        stage: which training stage this is, from 1; 0 for the net itself.
        ranks: those that train together; this one is rank 0.
        best: the iteration of the best validation; None before the first.
        verdict: what the plateau rule made of the last validation.
    """

    run: Run
    plan: fit.Plan
    solver: Any
    predictor: Predictor
    plateau: Plateau
    seed: int
    keep: int
    save_every: float
    console: Console
    stop: StopRequest
    stage: int = 0
    ranks: Ranks = field(default_factory=Alone)
    best: int | None = None
    verdict: str = ""
    _losses: list[float] = field(default_factory=list)  # since the last record
    _lately: collections.deque = field(default_factory=lambda: collections.deque(maxlen=DISPLAY))
    _earlier: float = 0.0  # seconds of the sessions before this one
    _validated: bool = True  # whether there is a record of this epoch's end
    _events: Any = None

    def __post_init__(self):
        self._started = self._saved = time.monotonic()
        self._first = 0
        self._iterations = solving.Iterations(self.solver, self.seed, self.ranks)
        self._restart_clock()

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return self.solver.iter

    @property
    def last(self) -> int:
        """The iteration at which training ends, should the rate not end it before."""
        return self.plan.solver.max_iter

    @property
    def done(self) -> bool:
        """Whether there is nothing left to train."""
        return self._validated and (self.iteration >= self.last or self.verdict == "stop")

    @property
    def seconds(self) -> float:
        """How long it has been trained, in all sessions."""
        return self._earlier + time.monotonic() - self._started

    def go_on(self, checkpoint: Path) -> None:
        """Take everything from a checkpoint's folder.

        Raises:
            RunError: a file of it does not fit the net.
        """
        state = self.run.state(checkpoint)
        try:
            snapshots.restore(self.solver, checkpoint)
            self.plateau = dataclasses.replace(Plateau.of(state["plateau"]), drops=self.plateau.drops)
            self.verdict, self.solver.param.base_lr = state["verdict"], state["base_lr"]
            longer = self.verdict == "stop" and self.plateau.dropped < self.plateau.drops  # --lr-drops was raised
            if longer:
                self.verdict = "drop"
                self.solver.param.base_lr *= self.plateau.factor
            self._losses = state["losses"]
            self.best, self._validated = state["best"], state["validated"]
            self._earlier = state["seconds"]
        except (caffe.CaffeError, KeyError, TypeError, OSError) as error:
            caffes = isinstance(error, caffe.CaffeError)
            what = from_caffe(str(error)) if caffes else f"{type(error).__name__}: {error}"
            raise RunError(f"cannot go on from {checkpoint}: {what}: remove it to go on from an earlier one") from error
        if longer:
            self.console.say(f"--lr-drops {self.plateau.drops}: learning rate {decimal(self.solver.lr):g} from here")
        self._first = self.iteration
        self.run.rewind(self.iteration, self._validated)
        self.run.link("last", self.iteration)
        if self.best in self.run.iterations():
            self.run.link("best", self.best)
        self._restart_clock()

    def train(self, started: Callable[[], None]) -> dict[str, Any]:
        """Train to the end and say how it went; `started` is called once the first iteration has worked.

        Raises:
            RunError: a loss or a weight is no longer finite, or an iteration fails.
            Stopped: it was asked to end; there is a checkpoint.
            TinyImageNetError: something cannot be written; the last checkpoint is as it was.
        """
        try:
            if not self.iteration:
                self.run.rewind(0)  # what a run wrote that was killed before its first checkpoint
            self._events = Events(self.run.events, self.iteration)
            if not self._validated:
                self._validate()
            while not self.done:
                self._step()
                if self.iteration == self._first + 1:
                    started()
                self._show()
                if self._at_epoch_end():
                    self._validate()
                elif self.iteration % DISPLAY == 0:
                    self._record()
                if self.stop.signal and not self.done:
                    self._end_early()
                if time.monotonic() - self._saved > self.save_every:
                    self._checkpoint()
        except OSError as error:
            raise RunError(f"cannot write into {self.run.path}: {error.strerror or error}{self._good()}") from error
        finally:
            if self._events:
                self._events.close()
        return {
            "iterations": self.iteration,
            "epochs": self.iteration / self.plan.epoch,
            "top1": self.plateau.best if math.isfinite(self.plateau.best) else None,
            "best": self.best,
            "verdict": self.verdict,
            "seconds": self.seconds,
        }

    def _step(self) -> None:
        """One iteration; a loss that is not finite ends the training."""
        self.ranks.broadcast(follower.Step(self.iteration, self.solver.param.base_lr))
        try:
            loss = self._iterations.step()
        except caffe.CaffeError as error:
            raise RunError(f"iteration {self.iteration + 1}: {error}{self._good()}") from error
        self._check_finite(loss, "loss")
        self._losses.append(loss)
        self._lately.append(loss)

    def _check_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            rate = f"train anew with a --base-lr below {decimal(self.solver.lr):g}, in another folder"
            raise RunError(f"the {what} is {value} at iteration {self.iteration}: {rate}{self._good()}")

    def _good(self) -> str:
        folder = self.run.resume_from()
        return f"; the last good checkpoint is {folder}" if folder else ""

    def _at_epoch_end(self) -> bool:
        return self.iteration % self.plan.epoch == 0 or self.iteration == self.last

    def _record(self, **values: Any) -> dict[str, Any]:
        """Write a record of now to metrics.jsonl and the events."""
        record = {
            "iteration": self.iteration,
            "epoch": round(self.iteration / self.plan.epoch, 4),
            "learning_rate": decimal(self.solver.lr),
            "train_loss": float(np.mean(self._losses)) if self._losses else None,
            "images_per_second": self._speed(),
            **values,
        }
        self._losses.clear()
        self.run.log(record)
        shown = {name: value for name, value in record.items() if name not in ("iteration", "epoch")}
        self._events.add({name: value for name, value in shown.items() if value is not None}, self.iteration)
        self._restart_clock()
        return record

    def _restart_clock(self) -> None:
        """Count images a second from here: validation and checkpoints are not training."""
        self._clock, self._clock_iteration = time.monotonic(), self.iteration

    def _speed(self) -> float | None:
        """Images a second since the clock was started."""
        images = (self.iteration - self._clock_iteration) * self.plan.batch
        return round(images / (time.monotonic() - self._clock), 2) if images else None

    def _show(self) -> None:
        each = (time.monotonic() - self._started) / (self.iteration - self._first)
        self.console.show(
            self.iteration,
            self.iteration / self.plan.epoch,
            sum(self._lately) / len(self._lately),
            decimal(self.solver.lr),
            self._speed() or 0,
            each * (self.last - self.iteration),
        )

    def _validate(self) -> None:
        """Validate, write a checkpoint, and do what the plateau rule says."""
        self._validated = False
        given = self._predicted()
        self._check_finite(float(given.probabilities.sum()), "sum of the validation probabilities")
        summary = metrics.summary(given)
        self._validated = True
        self.verdict = self.plateau.update(summary["top1"])
        if self.verdict in ("drop", "stop") and self.plan.solver.lr_policy != "fixed":
            self.verdict = "wait"  # another lr_policy has its own schedule and ends at max_iter
        record = self._record(validation_loss=summary["loss"], top1=summary["top1"], top5=summary["top5"])
        if self.verdict == "drop":
            self.solver.param.base_lr *= self.plateau.factor
        if self.verdict == "best":
            self.best = self.iteration
        self._checkpoint()
        self._say(record)
        self._restart_clock()

    def _say(self, record: dict[str, Any]) -> None:
        loss = "" if record["train_loss"] is None else f"training loss {record['train_loss']:.4f}, "
        speed = f", {record['images_per_second']:.1f} images/s" if record["images_per_second"] else ""
        self.console.say(
            f"iteration {self.iteration} (epoch {record['epoch']:g}): {loss}validation loss "
            f"{record['validation_loss']:.4f}, top-1 {100 * record['top1']:.2f} %"
            f"{' (best)' if self.verdict == 'best' else ''}{speed}, {duration(self.seconds)}"
        )
        waited = f"no better for {self.plateau.epochs}"
        if self.verdict == "drop":
            self.console.say(f"{waited}: learning rate {decimal(self.solver.lr):g} from here")
        if self.verdict == "stop":
            self.console.say(f"{waited}, and that {self.plateau.times}: training ends")

    def _predicted(self) -> Predictions:
        """The validation split's probabilities, by all ranks."""
        if self.ranks.count > 1:
            self.ranks.broadcast(follower.Validate(validation.statistics(self.solver.net)))
        try:
            return validation.validate(self.ranks, self.predictor, self.plan.validation, lambda: bool(self.stop.signal))
        except validation.StoppedEarly:
            self._end_early()

    def _end_early(self) -> NoReturn:
        if self.iteration not in self.run.iterations():
            self._checkpoint()
        number = signal.Signals[self.stop.signal]
        where = f"iteration {self.iteration}" + (f" of stage {self.stage}" if self.stage else "")
        how = f"stopped by {self.stop.signal} at {where}, with a checkpoint"
        raise Stopped(f"{how}: the same command with --resume goes on", number)

    def _checkpoint(self) -> None:
        """Write weights, solver state and what the loop knows as one checkpoint."""
        for name, blobs in self.solver.net.params.items():
            if not all(np.isfinite(blob.data).all() for blob in blobs):
                self._check_finite(math.nan, f"weight of layer {name}")
        self._compare()
        state = {
            "iteration": self.iteration,
            "epoch": round(self.iteration / self.plan.epoch, 4),
            "plateau": self.plateau.state(),
            "base_lr": self.solver.param.base_lr,
            "losses": self._losses,
            "best": self.best,
            "verdict": self.verdict,
            "validated": self._validated,
            "seconds": round(self.seconds, 3),
        }
        try:
            with self.run.checkpoint(self.iteration) as folder:
                snapshots.write(self.solver, folder)
                files.write_json(folder / "state.json", state)
        except TinyImageNetError as error:
            again = "once that can be written, the same command with --resume goes on"
            raise RunError(f"{error}{self._good()}: {again}") from error
        if self.best == self.iteration:
            self.run.link("best", self.iteration)
        self.run.prune(self.keep)
        self._saved = time.monotonic()

    def _compare(self) -> None:
        """See that all ranks have the same weights: each has made the same updates to the same weights."""
        if self.ranks.count == 1:
            return
        self.ranks.broadcast(follower.Compare())
        digests = self.ranks.gather(solving.digest(self.solver.net))
        for name, other in zip(self.ranks.names, digests):
            if other != digests[0]:
                raise RunError(
                    f"the weights on {name} are not those on {self.ranks.names[0]} after iteration {self.iteration}: "
                    f"go on without the one that computes wrongly (--resume){self._good()}"
                )


def decimal(value: float) -> float:
    """The number a person wrote where the message holds its float32."""
    return float(f"{value:.7g}")
