"""The run folder: the inputs and outputs of a training.

run.json            arguments, seed, versions, commit, machine
*.prototxt          train_val, deploy and solver as used
mean.binaryproto    the mean image
metrics.jsonl       one record per line
events/             the same for TensorBoard
train.log           the printed lines
checkpoints/<iteration>/{weights.caffemodel,solver.solverstate,state.json}, links best and last
stages/<number>/    run folders of the nets trained first
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiny_imagenet import files
from tiny_imagenet.errors import RunError

LINKS = ("best", "last")
WEIGHTS, SOLVERSTATE, STATE = CHECKPOINT = ("weights.caffemodel", "solver.solverstate", "state.json")
_LOCK = ".lock"
_OWNER = "change its owner (chown -R) or name another folder"
# Content of a run folder before it is a run.
_BEFORE_START = frozenset(
    (
        _LOCK,
        "train_val.prototxt",
        "deploy.prototxt",
        "solver.prototxt",
        "mean.binaryproto",
        "events",
        "train.log",
        "stages",
    )
)


class Run:
    """A run folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    train_val = property(lambda self: self.path / "train_val.prototxt")
    deploy = property(lambda self: self.path / "deploy.prototxt")
    solver = property(lambda self: self.path / "solver.prototxt")
    mean = property(lambda self: self.path / "mean.binaryproto")
    events = property(lambda self: self.path / "events")
    log_file = property(lambda self: self.path / "train.log")
    predictions = property(lambda self: self.path / "predictions.npz")
    evaluation = property(lambda self: self.path / "evaluation.json")
    _checkpoints = property(lambda self: self.path / "checkpoints")
    _info = property(lambda self: self.path / "run.json")
    _metrics = property(lambda self: self.path / "metrics.jsonl")

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            RunError: the folder contains no run, or the file is not JSON.
        """
        if not self.path.is_dir():
            raise RunError(
                f"{self.path} does not exist: create it with tools/train.py MODEL --data DIR --run {self.path}"
            )
        if not self._info.is_file():
            raise RunError(f"{self.path} is not a run folder (run.json is missing): name one created by tools/train.py")
        return _read_object(self._info, "restore the file or train again")

    @property
    def scores(self) -> dict[str, Any]:
        """The content of evaluation.json; {} if it does not exist.

        Raises:
            RunError: the file is not JSON.
        """
        if not self.evaluation.is_file():
            return {}
        return _read_object(self.evaluation, f"write it again with tools/evaluate.py {self.path}")

    @property
    def started(self) -> bool:
        """Whether the folder contains a run."""
        return self._info.is_file()

    def stage(self, number: int) -> Run:
        """The run of a training stage, counted from 1."""
        return Run(self.path / "stages" / str(number))

    def start(self, info: dict[str, Any]) -> None:
        """Write run.json, which makes the folder a run."""
        files.write_json(self._info, info)

    def discard(self) -> None:
        """Remove run.json: the folder is not a run any more."""
        self._info.unlink(missing_ok=True)

    def update(self, **values: Any) -> None:
        """Update values in run.json; None removes one."""
        info = {**self.info, **values}
        files.write_json(
            self._info, {name: value for name, value in info.items() if value is not None or name == "init"}
        )

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to metrics.jsonl.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with open(self._metrics, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self._metrics}: {error.strerror}") from error

    def rewind(self, iteration: int, validated: bool = True) -> None:
        """Remove the records of later iterations from metrics.jsonl, and an incomplete last line.

        Unless `validated`, a validation of that iteration is removed too.
        """
        records = [
            record
            for record in self.metrics()
            if record.get("iteration", 0) <= iteration - (not validated and "top1" in record)
        ]
        if self._metrics.is_file():
            files.write_text(self._metrics, "".join(json.dumps(record) + "\n" for record in records))

    def metrics(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl in order; [] if it does not exist.

        Raises:
            RunError: a line other than the last is not JSON.
        """
        if not self._metrics.is_file():
            return []
        lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line) if line.strip() else {}
            except ValueError as error:
                if number == len(lines):  # of a run in progress, or one that was killed
                    break
                raise RunError(f"{self._metrics}: line {number} is not JSON: remove it") from error
            if isinstance(record, dict):
                records.append(record)
        return records

    @contextlib.contextmanager
    def checkpoint(self, iteration: int) -> Iterator[Path]:
        """Yield a folder for a checkpoint; it becomes checkpoints/<iteration> and `last` when it is complete."""
        with files.atomic_folder(self._folder(str(iteration)), may_replace=lambda _: None) as temporary:
            yield temporary
        self.link("last", iteration)

    def link(self, name: str, iteration: int) -> None:
        """Link `name` (best or last) to checkpoints/<iteration>."""
        temporary = self._checkpoints / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(str(iteration))
        final = self._checkpoints / name
        if final.is_dir() and not final.is_symlink():  # in a copy that followed the link
            shutil.rmtree(final)
        os.replace(temporary, final)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints except the newest `keep` and those linked as best and last."""
        linked = {os.readlink(self._checkpoints / name) for name in LINKS if (self._checkpoints / name).is_symlink()}
        for iteration in self.iterations()[:-keep]:
            if str(iteration) not in linked:  # renamed first, so that half of it is never a checkpoint
                removed = self._checkpoints / f".{iteration}.removed.tmp"
                os.replace(self._checkpoints / str(iteration), removed)
                shutil.rmtree(removed)

    def tidy(self) -> None:
        """Remove temporary files of a killed process."""
        for path in [*self.path.glob(".*"), *self._checkpoints.glob(".*")]:
            if _is_temporary(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def iterations(self) -> list[int]:
        """Iterations of the checkpoints, ascending."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(int(path.name) for path in self._checkpoints.iterdir() if path.name.isdigit())

    def resume_from(self, iteration: int | None = None) -> Path | None:
        """The folder of the newest complete checkpoint, or of that of an iteration; None if there is none yet."""
        found = [n for n in self.iterations() if all((self._folder(str(n)) / name).is_file() for name in CHECKPOINT)]
        if iteration is None:
            return self._folder(str(found[-1])) if found else None
        if iteration not in found:
            raise RunError(f"{self.path} has no checkpoint {iteration}: it has {', '.join(map(str, found)) or 'none'}")
        return self._folder(str(iteration))

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """The content of state.json in a checkpoint's folder.

        Raises:
            RunError: it is not JSON.
        """
        return _read_object(checkpoint / STATE, f"remove {checkpoint} to resume from an earlier checkpoint")

    def weights(self, checkpoint: str = "best") -> Path:
        """The weights file of a checkpoint: best, last or an iteration.

        Raises:
            RunError: it does not exist; the message lists the existing ones.
        """
        path = self._weights(checkpoint)
        if (checkpoint not in LINKS and not checkpoint.isdigit()) or not path.is_file():
            names = [*LINKS, *map(str, self.iterations())]
            there = ", ".join(name for name in names if self._weights(name).is_file())
            raise RunError(f"{self.path} has no checkpoint {checkpoint!r}: it has {there or 'none yet'}")
        return path.resolve()

    def _weights(self, checkpoint: str) -> Path:
        return self._folder(checkpoint) / WEIGHTS

    def _folder(self, checkpoint: str) -> Path:
        return self._checkpoints / checkpoint


@contextlib.contextmanager
def create(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Create a run folder and hold its lock for the block.

    An error before `Run.start` removes the folder. Files of a process that was killed before that are removed first.

    Raises:
        RunError: the folder is in use by another training, or is not empty.
    """
    run = Run(path)
    existed = run.path.is_dir()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create the run folder {path}: {error.strerror}: name another one") from error
    with _locked(run):
        ours = False
        try:
            if run.started:
                raise RunError(f"{path} already contains a run: add --resume to continue it, or name another folder")
            if not all(entry.name in _BEFORE_START or _is_temporary(entry) for entry in run.path.iterdir()):
                raise RunError(f"{path} is not empty: name another folder or remove it first")
            ours = True
            _clear(run)
            yield run
        finally:
            if not run.started:
                if ours:
                    _clear(run)
                (run.path / _LOCK).unlink(missing_ok=True)
                if not existed:
                    run.path.rmdir()


@contextlib.contextmanager
def reopen(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Hold the lock of a run folder for the block, and remove temporary files.

    Raises:
        RunError: it contains no run, or another training uses it.
    """
    run = Run(path)
    _ = run.info
    with _locked(run):
        run.tidy()
        yield run


def in_use(path: str | os.PathLike[str]) -> bool:
    """Whether another process holds the lock of a run folder; False on a file system without locks."""
    try:
        with open(Path(path) / _LOCK, "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextlib.contextmanager
def locked(folder: Path, in_use: str) -> Iterator[None]:
    """Hold the lock of a folder for the block, if the file system has locks.

    Args:
        folder: of a run or an experiment.
        in_use: the error message if another process holds the lock.

    Raises:
        RunError: another process holds the lock, or the folder cannot be written.
    """
    try:
        lock = open(folder / _LOCK, "a")  # noqa: SIM115 (held beyond this block)
    except OSError as error:
        raise RunError(f"cannot write into the run folder {folder}: {error.strerror}: {_OWNER}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(in_use) from error
        except OSError:
            pass  # a file system without locks
        yield


def _locked(run: Run) -> contextlib.AbstractContextManager[None]:
    return locked(run.path, f"another training uses {run.path}: wait for it or name another folder")


def _clear(run: Run) -> None:
    for entry in run.path.iterdir():
        if entry.name != _LOCK:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}): {advice}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object: {advice}")
    return value
