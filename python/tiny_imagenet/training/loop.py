"""The training loop: iterations, validation after each epoch, the schedule, checkpoints.

All ranks run it alike. Rank 0 alone asks for signals and the time, and its answers are broadcast; rank 0 alone writes.
An iteration depends only on the seed, its number, the weights and the solver's history (`solving.Iterations`), so a
checkpoint contains all that is needed to resume exactly.
"""

from __future__ import annotations

import copyreg
import math
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from tiny_imagenet import files
from tiny_imagenet.errors import RunError, Stopped, TinyImageNetError, from_caffe
from tiny_imagenet.evaluation import metrics
from tiny_imagenet.evaluation.evaluator import Evaluator
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import STATE, Run
from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import jobs, solving
from tiny_imagenet.training.progress import Progress
from tiny_imagenet.training.ranks import Ranks
from tiny_imagenet.training.schedule import Schedule

DISPLAY = 20  # iterations between two records of the training loss


def _solver_parameter(data: bytes) -> caffe_pb2.SolverParameter:
    return caffe_pb2.SolverParameter.FromString(data)


# Its class names a module "caffe_pb2" that does not exist, so pickle needs help to send a Task to another rank.
copyreg.pickle(caffe_pb2.SolverParameter, lambda message: (_solver_parameter, (message.SerializeToString(),)))


@dataclass
class Task:
    """One net to train, as rank 0 broadcasts it.

    Attributes:
        solver: the solver with its net inside.
        validation: name of the LMDB in the data folder that validates.
        data, mean: the data folder of rank 0, and the name of the mean image in it.
        seed: of the dropout masks.
        epoch: iterations per epoch.
        schedule: of the learning rate.
        state: state.json of the checkpoint to resume from; None to start.
        checkpoint: that checkpoint's files for the other ranks (`solving.read_checkpoint`).
    """

    solver: caffe_pb2.SolverParameter
    validation: str
    data: Path
    mean: str
    seed: int
    epoch: int
    schedule: Schedule
    state: dict[str, Any] | None = None
    checkpoint: dict[str, bytes] | None = None


@dataclass
class Checkpointing:
    """Checkpoints of a net; there is one after each validation, too.

    Attributes:
        run: the run folder.
        keep: number of the newest ones to keep; the best is kept as well.
        save_every: seconds between checkpoints within an epoch.
        stage: number of the stage that trains, for messages; 0 for the net itself.
    """

    run: Run
    keep: int
    save_every: float
    stage: int = 0


class Loop:
    """One rank's training of one net.

    Args:
        task: the net, its data and its schedule.
        solver: built from the task, with the weights to start from.
        evaluator: the net that validates; it shares the solver's weights.
        ranks: the ranks that train together.
        progress: console, metrics and events; silent in all ranks but 0.
        stop: asked by rank 0 whether to end early.
        checkpointing: of rank 0; None in the others, which write nothing.
    """

    def __init__(
        self,
        task: Task,
        solver: Any,
        evaluator: Evaluator,
        ranks: Ranks,
        progress: Progress,
        stop: StopRequest,
        checkpointing: Checkpointing | None,
    ):
        self.task, self.solver, self.evaluator, self.ranks = task, solver, evaluator, ranks
        self.progress, self.stop, self.checkpointing = progress, stop, checkpointing
        self.schedule, self.last = task.schedule, task.solver.max_iter
        self.best: int | None = None  # iteration of the best validation
        self.verdict = ""  # of the schedule on the last validation
        self._losses: list[float] = []  # since the last record
        self._validated = True  # whether this epoch's end has been validated
        self._earlier, self._started = 0.0, time.monotonic()  # seconds of earlier sessions; start of this one
        self._saved = self._started
        self._iterations = solving.Iterations(solver, task.seed, ranks)
        if task.state:
            self._load_state(task.state)
            solver.param.base_lr = self.schedule.rate(self.iteration - 1)  # for the record of a validation to repeat

    iteration = property(lambda self: self.solver.iter)
    seconds = property(lambda self: self._earlier + time.monotonic() - self._started)

    @property
    def done(self) -> bool:
        """Whether training has finished."""
        return self._validated and (self.iteration >= self.last or self.verdict == "stop")

    def run(self) -> dict[str, Any]:
        """Train to the end and return how it went.

        Raises:
            RunError: a loss or a weight is not finite, or an iteration fails.
            Stopped: a signal ended training early; there is a checkpoint.
            TinyImageNetError: a file cannot be written; the last checkpoint is intact.
        """
        if not self._validated:
            self._validate()
        while not self.done:
            self._step()
            if self.iteration % self.task.epoch == 0 or self.iteration == self.last:
                self._validate()
            elif self.iteration % DISPLAY == 0:
                self._record()
            stop, due = self.ranks.broadcast((self.stop.signal, self._checkpoint_due()))
            if stop and not self.done:
                self._end_early(stop)
            if due:
                self._checkpoint()
        best = self.schedule.best
        return {
            "iterations": self.iteration,
            "epochs": self.iteration / self.task.epoch,
            "top1": best if math.isfinite(best) else None,
            "best": self.best,
            "verdict": self.verdict,
            "seconds": self.seconds,
        }

    def _step(self) -> None:
        rate = self.schedule.rate(self.iteration)
        try:
            loss = self._iterations.step(rate)
        except caffe.CaffeError as error:
            raise RunError(f"iteration {self.iteration + 1}: {error}{self._last_good()}") from error
        self._check_finite(loss, "loss")
        self._losses.append(loss)
        self.progress.step(self.iteration, loss, jobs.decimal(self.solver.lr))

    def _validate(self) -> None:
        """Validate, let the schedule decide, and write a checkpoint."""
        self._validated = False
        summary = self.ranks.broadcast(self._scores())
        self._check_finite(summary["loss"], "validation loss")
        self._validated = True
        self.verdict = self.schedule.update(summary["top1"])
        if self.verdict == "best":
            self.best = self.iteration
        record = self._record(validation_loss=summary["loss"], top1=summary["top1"], top5=summary["top5"])
        self._checkpoint()
        self.progress.validated(record, self.verdict, self.seconds)
        if self.verdict in ("drop", "stop"):
            now = (
                f"learning rate {self.schedule.rate(self.iteration):g}" if self.verdict == "drop" else "training stops"
            )
            self.progress.note(f"{self.schedule.plateau}: {now}")
        self.progress.restart_clock(self.iteration)

    def _scores(self) -> dict[str, Any] | None:
        """Scores of the validation split, of which each rank computes some batches; None in all ranks but 0."""
        solving.share_statistics(self.solver.net, self.ranks)
        count, ranks = self.evaluator.batches, self.ranks
        share = range(count * ranks.rank // ranks.count, count * (ranks.rank + 1) // ranks.count)
        own = self.evaluator(share, self._stop_between if ranks.count == 1 else None)
        parts = ranks.gather((own.keys, own.labels, own.probabilities) if len(share) else None)
        if not parts:
            return None
        keys, labels, probabilities = (np.concatenate(arrays) for arrays in zip(*filter(None, parts)))
        return metrics.summary(Predictions(keys, labels, probabilities, {}))

    def _stop_between(self) -> None:
        if self.stop.signal:
            self._end_early(self.stop.signal)

    def _record(self, **values: Any) -> dict[str, Any]:
        """Record the iterations since the last record in metrics.jsonl and the TensorBoard events."""
        loss = float(np.mean(self._losses)) if self._losses else None
        self._losses.clear()
        return self.progress.record(self.iteration, jobs.decimal(self.solver.lr), loss, values)

    def _checkpoint_due(self) -> bool:
        return bool(self.checkpointing) and time.monotonic() - self._saved > self.checkpointing.save_every

    def _checkpoint(self) -> None:
        """Write weights, solver state and loop state as one checkpoint."""
        self._check_ranks_agree()
        if not self.checkpointing:
            return
        for name, blobs in self.solver.net.params.items():
            if not all(np.isfinite(blob.data).all() for blob in blobs):
                self._check_finite(math.nan, f"weights of layer {name}")
        run = self.checkpointing.run
        try:
            with run.checkpoint(self.iteration) as folder:
                solving.save(self.solver, folder)
                files.write_json(folder / STATE, self._state())
        except TinyImageNetError as error:
            raise RunError(f"{error}{self._last_good()}: when there is room, run again with --resume") from error
        if self.best == self.iteration:
            run.link("best", self.iteration)
        run.prune(self.checkpointing.keep)
        self._saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "epoch": round(self.iteration / self.task.epoch, 4),
            "schedule": self.schedule.state(),
            "losses": self._losses,
            "best": self.best,
            "verdict": self.verdict,
            "validated": self._validated,
            "seconds": round(self.seconds, 3),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self.schedule.load_state(state.get("schedule") or state["plateau"])  # "plateau" in earlier versions
        self.verdict, self.best, self._validated = state["verdict"], state["best"], state["validated"]
        self._losses, self._earlier = list(state["losses"]), state["seconds"]
        if self.verdict == "stop" and self.schedule.dropped < self.schedule.drops:
            self.verdict = "drop"  # --lr-drops was raised
            self.progress.note(
                f"learning rate {self.schedule.rate(self.iteration):g} after plateau {self.schedule.dropped}"
            )

    def _check_ranks_agree(self) -> None:
        """Check that all ranks have the same weights, as they made the same updates to the same weights."""
        if self.ranks.count == 1:
            return
        for name, other in zip(self.ranks.names, digests := self.ranks.gather(solving.digest(self.solver.net))):
            if other != digests[0]:
                raise RunError(
                    f"the weights of {name} differ from those of {self.ranks.names[0]} after iteration "
                    f"{self.iteration}: resume without the machine that computes wrongly{self._last_good()}"
                )

    def _check_finite(self, value: float, name: str) -> None:
        if not math.isfinite(value):
            advice = f"try --base-lr {self.solver.lr / 10:.2g} and a new --run{self._last_good()}"
            raise RunError(f"training diverged: {name} is {value} at iteration {self.iteration}; {advice}")

    def _last_good(self) -> str:
        folder = self.checkpointing.run.resume_from() if self.checkpointing else None
        return f"; the last good checkpoint is {folder}" if folder else ""

    def _end_early(self, name: str) -> None:
        if not self.checkpointing or self.iteration not in self.checkpointing.run.iterations():
            self._checkpoint()
        stage = f" of stage {self.checkpointing.stage}" if self.checkpointing and self.checkpointing.stage else ""
        raise Stopped(
            f"stopped by {name} at iteration {self.iteration}{stage}, with a checkpoint: --resume continues",
            signal.Signals[name],
        )


def restore(solver: Any, task: Task, checkpoint: Path | None) -> None:
    """Restore a solver from the task's checkpoint: from its folder in rank 0, from its bytes in other ranks.

    Raises:
        RunError: a file does not fit the net.
    """
    try:
        if checkpoint:
            solving.restore(solver, checkpoint)
        elif task.checkpoint:
            solving.restore_bytes(solver, task.checkpoint)
    except (caffe.CaffeError, OSError) as error:
        text = from_caffe(str(error)) if isinstance(error, caffe.CaffeError) else str(error)
        raise RunError(f"cannot resume from {checkpoint}: {text}: remove it to resume from an earlier one") from error
