"""The run folder: everything that made a training and everything it made.

run.json            arguments, seed, versions, commit, machine
*.prototxt          train_val, deploy and solver as they were used
mean.binaryproto    the mean image that is subtracted
metrics.jsonl       one object a record
events/             the same for TensorBoard
train.log           what people were told
checkpoints/<iteration>/{weights.caffemodel,solver.solverstate,state.json}, links best and last
stages/<number>/    the nets that were trained before, each a run folder of its own
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
CHECKPOINT = ("weights.caffemodel", "solver.solverstate", "state.json")
_LOCK = ".lock"
_MINE = "make it yours (chown -R), or name a folder that is"


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
        """What run.json says.

        Raises:
            RunError: there is no run in the folder, or the file is not JSON.
        """
        if not self.path.is_dir():
            raise RunError(
                f"{self.path}: no such run folder: make it with tools/train.py MODEL --data DIR --run {self.path}"
            )
        if not self._info.is_file():
            raise RunError(f"{self.path}: not a run folder (it has no run.json): name one that tools/train.py made")
        return _read_object(self._info, "put the file back or train again with tools/train.py")

    @property
    def scores(self) -> dict[str, Any]:
        """What evaluation.json says; empty where there is none.

        Raises:
            RunError: the file is not JSON.
        """
        if not self.evaluation.is_file():
            return {}
        return _read_object(self.evaluation, f"write it again with tools/evaluate.py {self.path}")

    @property
    def started(self) -> bool:
        """Whether there is a run in the folder."""
        return self._info.is_file()

    def stage(self, number: int) -> Run:
        """The run of a training stage, counted from 1."""
        return Run(self.path / "stages" / str(number))

    def start(self, info: dict[str, Any]) -> None:
        """Write run.json: from here on the folder is a run and stays."""
        files.write_json(self._info, info)

    def discard(self) -> None:
        """Take run.json away: the folder is no run any more."""
        self._info.unlink(missing_ok=True)

    def update(self, **values: Any) -> None:
        """Write values into run.json; one of None goes."""
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
        """Drop what metrics.jsonl has of later iterations, and half a line at its end.

        Unless `validated`, a validation of that iteration goes too.
        """
        records = [
            record
            for record in self.metrics()
            if record.get("iteration", 0) <= iteration - (not validated and "top1" in record)
        ]
        if self._metrics.is_file():
            files.write_text(self._metrics, "".join(json.dumps(record) + "\n" for record in records))

    def metrics(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl, in the order written; empty where there is none.

        Raises:
            RunError: a line is not JSON; the last one may be half written.
        """
        if not self._metrics.is_file():
            return []
        lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        records = []
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line) if line.strip() else {}
            except ValueError as error:
                if number == len(lines):  # a run that is being written, or was killed, may end in half a line
                    break
                raise RunError(f"{self._metrics}: line {number} is not JSON: remove that line") from error
            if isinstance(record, dict):
                records.append(record)
        return records

    @contextlib.contextmanager
    def checkpoint(self, iteration: int) -> Iterator[Path]:
        """Yield a folder to write a checkpoint into; it becomes checkpoints/<iteration> and `last` when it is whole."""
        with files.atomic_folder(self._folder(str(iteration)), may_replace=lambda _: None) as temporary:
            yield temporary
        self.link("last", iteration)

    def link(self, name: str, iteration: int) -> None:
        """Let `name` (best or last) stand for checkpoints/<iteration>."""
        temporary = self._checkpoints / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(str(iteration))
        final = self._checkpoints / name
        if final.is_dir() and not final.is_symlink():  # of a copy that has followed the link
            shutil.rmtree(final)
        os.replace(temporary, final)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest `keep` and those that best and last stand for."""
        linked = {os.readlink(self._checkpoints / name) for name in LINKS if (self._checkpoints / name).is_symlink()}
        for iteration in self.iterations()[:-keep]:
            if str(iteration) not in linked:  # half removed it must not be taken for one
                gone = self._checkpoints / f".{iteration}.gone.tmp"
                os.replace(self._checkpoints / str(iteration), gone)
                shutil.rmtree(gone)

    def tidy(self) -> None:
        """Remove what a killed process left half written or half removed."""
        for path in [*self.path.glob(".*"), *self._checkpoints.glob(".*")]:
            if _is_temporary(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def iterations(self) -> list[int]:
        """The iterations there are checkpoints of, ascending."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(int(path.name) for path in self._checkpoints.iterdir() if path.name.isdigit())

    def resume_from(self, iteration: int | None = None) -> Path | None:
        """The folder of the newest checkpoint, or of that of an iteration; None where there is none yet."""
        found = [n for n in self.iterations() if all((self._folder(str(n)) / name).is_file() for name in CHECKPOINT)]
        if iteration is None:
            return self._folder(str(found[-1])) if found else None
        if iteration not in found:
            raise RunError(f"{self.path} has no checkpoint {iteration}: it has {', '.join(map(str, found)) or 'none'}")
        return self._folder(str(iteration))

    def state(self, checkpoint: Path) -> dict[str, Any]:
        """What the state.json of a checkpoint's folder says.

        Raises:
            RunError: it is not JSON.
        """
        return _read_object(checkpoint / "state.json", f"remove {checkpoint} and go on from an earlier checkpoint")

    def weights(self, checkpoint: str = "best") -> Path:
        """The weights file of a checkpoint: best, last or an iteration.

        Raises:
            RunError: there is no such checkpoint; the message lists those there are.
        """
        path = self._weights(checkpoint)
        if (checkpoint not in LINKS and not checkpoint.isdigit()) or not path.is_file():
            names = [*LINKS, *map(str, self.iterations())]
            there = ", ".join(name for name in names if self._weights(name).is_file())
            raise RunError(f"{self.path} has no checkpoint {checkpoint!r}: it has {there or 'none yet'}")
        return path.resolve()

    def _weights(self, checkpoint: str) -> Path:
        return self._folder(checkpoint) / "weights.caffemodel"

    def _folder(self, checkpoint: str) -> Path:
        return self._checkpoints / checkpoint


@contextlib.contextmanager
def create(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Make a run folder and hold its lock for the block.

    An error before `Run.start` takes the folder away again. What a process left that was killed before that is cleared.

    Raises:
        RunError: the folder is in use by another training, or is not empty.
    """
    run = Run(path)
    existed = run.path.is_dir()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror}: name another place") from error
    with _locked(run):
        ours = False
        try:
            if run.started:
                raise RunError(
                    f"{path} is not empty: it has a run; --resume goes on with it, or name another folder for this one"
                )
            if not all(entry.name in _BEFORE_START or _is_temporary(entry) for entry in run.path.iterdir()):
                raise RunError(f"{path} is not empty: name another folder for this run, or remove it first")
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
    """Hold the lock of a run folder that has a run, and tidy it.

    Raises:
        RunError: there is no run in it, or it is in use by another training.
    """
    run = Run(path)
    _ = run.info
    with _locked(run):
        run.tidy()
        yield run


def in_use(path: str | os.PathLike[str]) -> bool:
    """Whether somebody holds the lock of a run folder; on a file system without locks it seems that nobody does."""
    try:
        with open(Path(path) / _LOCK, "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


# What is in a run folder before there is a run in it.
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


def _is_temporary(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".tmp")


@contextlib.contextmanager
def _locked(run: Run) -> Iterator[None]:
    try:
        lock = open(run.path / _LOCK, "a")  # noqa: SIM115 (held beyond this block)
    except OSError as error:
        raise RunError(f"cannot write into the run folder {run.path}: {error.strerror}: {_MINE}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{run.path} is in use by another training: wait for it or name another folder") from error
        except OSError:
            pass  # a file system without locks: two at once go unnoticed there
        yield


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
