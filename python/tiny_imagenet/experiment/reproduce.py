"""The paper's experiment: every model with its stages and each seed, evaluated; the ensembles; Table 2.

    OUT/<model>/seed<seed>/         run folder with its evaluation
    OUT/ensembles/seed<seed>/       predictions and scores of each ensemble
    OUT/table2.{md,csv,json}        results, next to the paper's
    OUT/experiment.json             data and options that all runs in OUT share

Finished steps are skipped, so the same call resumes an experiment.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_imagenet import cli, files, gpu, runs
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import RunError, Stopped, TinyImageNetError
from tiny_imagenet.evaluation import evaluate
from tiny_imagenet.experiment import table2
from tiny_imagenet.models import paper, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.options import Options

EXPERIMENT = "experiment.json"


@dataclass(frozen=True)
class Step:
    """Training and evaluation of one model with one seed; can be pickled, and called again without harm.

    Attributes:
        model: name of the model.
        options: options of its training, with its run folder and seed.
    """

    model: str
    options: Options

    @property
    def name(self) -> str:
        """Name in messages."""
        return f"{self.model}, seed {self.options.seed}"

    @property
    def run(self) -> Run:
        """The run folder."""
        return Run(self.options.run)

    def __call__(self) -> None:
        """Train and evaluate the model, or resume an earlier call.

        Raises:
            Stopped: a signal ended the training; there is a checkpoint.
            TinyImageNetError: training or evaluation failed.
        """
        options = self.options
        if self.run.started:
            length, done = self._length(), self.run.info.get("finished", {}).get("iterations", 0)
            if done > length:
                raise RunError(
                    f"{self.run.path} was trained for {done} iterations, but this experiment trains for {length}: name "
                    "another --out, or remove that run"
                )
            options = dataclasses.replace(options, epochs=None, max_iter=length)
        if not self._is_trained():
            if not options.quiet:
                cli.note(f"==> {self.name}: {files.shown(self.run.path)}")
            train.train(self.model, options)
        if not table2.is_evaluated(self.run):
            evaluate.evaluate_run(self.run, gpu=next(iter(gpu.choose(options.gpus or ())), None))

    def is_finished(self) -> bool:
        """Whether there is nothing to do."""
        return self._is_trained() and table2.is_evaluated(self.run)

    def _is_trained(self) -> bool:
        done = self.run.info.get("finished") if self.run.started else None
        if not done or done["iterations"] > self._length():
            return False
        return done["verdict"] == "stop" or done["iterations"] == self._length()

    def _length(self) -> int:
        """Iterations of the run, which has started."""
        info = self.run.info
        if self.options.epochs:
            return self.options.epochs * math.ceil(info["train_images"] / info["batch"])
        return self.options.max_iter or info["max_iter_of_file"]


Runner = Callable[[list[Step]], Iterator[tuple[Step, str]]]


def run_here(steps: list[Step]) -> Iterator[tuple[Step, str]]:
    """Run steps one after the other; yield each with the error that it ended with, "" for none.

    Raises:
        GpuError: a GPU is missing or cannot be used.
        Stopped: a signal ended a training; there is a checkpoint.
    """
    for step in steps:
        gpu.choose(step.options.gpus or ())
        try:
            step()
        except Stopped:
            raise
        except TinyImageNetError as error:
            yield step, str(error)
        else:
            yield step, ""


def reproduce(
    out: str | os.PathLike[str],
    options: Options,
    models: Sequence[str] = tuple(zoo.MODELS),
    seeds: Iterable[int] = (1,),
    run_steps: Runner = run_here,
) -> list[table2.Row]:
    """Run the steps that are not finished, and write the table after each.

    The table includes models and seeds of earlier calls with the same `out`.

    Args:
        out: folder of the experiment.
        options: options of every training; `run`, `seed` and `resume` are set here.
        models: names of the zoo.
        seeds: each model is trained once per seed.
        run_steps: runs steps: `run_here`, or `dask_steps.run` with its other arguments bound.

    Returns:
        The rows of the table. `failed` of a row contains the errors; a failed step does not stop the others.

    Raises:
        NetError: a model is unknown.
        DatasetError: the data folder cannot be read.
        RunError: `out` is in use by another experiment, or was started with other data or options.
        GpuError, ClusterError: the GPUs or the cluster cannot be used.
        Stopped: Ctrl-C or SIGTERM ended it; each training has a checkpoint.
    """
    manifest = lmdb_reader.read_manifest(options.data)
    names = [zoo.get(name).name for name in dict.fromkeys(models)]
    out = Path(os.path.abspath(out))
    paths = {name: Path(os.path.abspath(getattr(options, name))) for name in ("data", "prototxt")}
    steps = []
    for seed in seeds:
        for name in names:
            own = {"run": out / name / f"seed{seed}", "seed": seed, "resume": True, **paths}
            steps.append(Step(name, dataclasses.replace(options, **own)))
    table = table2.Table(out, names, len(manifest["classes"]) == paper.CLASSES)
    out.mkdir(parents=True, exist_ok=True)
    with runs.locked(out, f"{out} is in use by another experiment: wait for it, or name another --out"):
        _check_same(out, options, manifest)
        try:
            for step, error in run_steps([step for step in steps if not step.is_finished()]):
                if error:
                    cli.note(f"{step.name}: {error}")
                    table.failed[step.model, step.options.seed] = error
                table.write()
        except Stopped as error:
            text = str(error).replace("the same command with --resume", "the same command")
            raise Stopped(text, error.status - 128) from error
        return table.write()


def _check_same(out: Path, options: Options, manifest: dict[str, Any]) -> None:
    """Write experiment.json, or raise RunError if it was written with other data or options."""
    fields = ("batch", "base_lr", "staged", "tf32", "deterministic", *zoo.SCHEDULE)
    found = {name: getattr(options, name) for name in fields}
    found["data"] = {name: lmdb["sha256"] for name, lmdb in manifest["lmdbs"].items()}
    file = out / EXPERIMENT
    if not file.is_file():
        files.write_json(file, found)
    before = json.loads(file.read_text(encoding="utf-8"))
    for name, value in found.items():
        if before.get(name) != value:
            what = "other data" if name == "data" else f"{name} {before.get(name)}, not {value}"
            raise RunError(f"{out} was started with {what}: name another --out for this experiment")
