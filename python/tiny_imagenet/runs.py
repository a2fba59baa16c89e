"""The run folder: everything that made a training and everything it made.

run.json            arguments, seed, versions, commit, machine
*.prototxt          train_val, deploy and solver as they were used
mean.binaryproto    the mean image that is subtracted
metrics.jsonl       one object a record
events/             the same for TensorBoard
checkpoints/<iteration>/{weights.caffemodel,solver.solverstate,state.json}, links best and last
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
_LOCK = ".lock"


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

    def start(self, info: dict[str, Any]) -> None:
        """Write run.json: from here on the folder is a run and stays."""
        files.write_json(self._info, info)

    def log(self, record: dict[str, Any]) -> None:
        """Add a record to metrics.jsonl."""
        with open(self._metrics, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

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
        final = self._checkpoints / str(iteration)
        if final.exists():
            shutil.rmtree(final)
        with files.atomic_folder(final) as temporary:
            yield temporary
        self.link("last", iteration)

    def link(self, name: str, iteration: int) -> None:
        """Let `name` (best or last) stand for checkpoints/<iteration>."""
        temporary = self._checkpoints / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(str(iteration))
        os.replace(temporary, self._checkpoints / name)

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the newest `keep` and those that best and last stand for."""
        linked = {os.readlink(self._checkpoints / name) for name in LINKS if (self._checkpoints / name).is_symlink()}
        for iteration in self.iterations()[:-keep]:
            if str(iteration) not in linked:
                shutil.rmtree(self._checkpoints / str(iteration))

    def iterations(self) -> list[int]:
        """The iterations there are checkpoints of, ascending."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(int(path.name) for path in self._checkpoints.iterdir() if path.name.isdigit())

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
        return self._checkpoints / checkpoint / "weights.caffemodel"


@contextlib.contextmanager
def create(path: str | os.PathLike[str]) -> Iterator[Run]:
    """Make a run folder and hold its lock for the block.

    An error before `Run.start` takes the folder away again.

    Raises:
        RunError: the folder is in use by another training, or is not empty.
    """
    run = Run(path)
    existed = run.path.is_dir()
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        lock = open(run.path / _LOCK, "a")  # noqa: SIM115 (held beyond this block)
    except OSError as error:
        raise RunError(f"cannot make the run folder {path}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{path} is in use by another training: wait for it or name another folder") from error
        ours = not any(entry.name != _LOCK for entry in run.path.iterdir())
        try:
            if not ours:
                raise RunError(f"{path} is not empty: name another folder for this run, or remove it first")
            yield run
        finally:
            (run.path / _LOCK).unlink(missing_ok=True)
            if ours and not run._info.exists():
                for entry in run.path.iterdir():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                if not existed:
                    run.path.rmdir()


def _read_object(path: Path, advice: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}): {advice}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object: {advice}")
    return value
