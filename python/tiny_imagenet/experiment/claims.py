"""Who works on what, in an experiment that several machines share: small files in its folder, which all of them see.

    OUT/.cluster/experiment.json    whose experiment it is, that it is alive, and whether it is to stop
    OUT/.cluster/<run>.claim        which worker has a run

A worker that the network cuts off goes on with what it has begun, and that is begun again elsewhere. Locks alone do not
keep the two apart: some file systems have none, or none between machines. So whoever begins puts a claim in place of
the one that is there, and whoever finds another's claim in place of its own ends at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from tiny_imagenet import files
from tiny_imagenet.errors import ClusterError, TinyImageNetError

BEAT = 5.0  # seconds from one sign of life of the experiment to the next
MISSED = 60.0  # seconds without one after which a worker takes the experiment for gone
SETTLE = 4.0  # seconds for the one whose claim is replaced to find out, which it looks for each second, and to end

_EXPERIMENT = "experiment.json"
_ENDING = ".claim"


class Experiment:
    """The side of the one who asks for the steps: while it is entered, workers go on.

    Attributes:
        folder: of the files.
        token: tells this experiment from another in the same folder.
    """

    def __init__(self, out: Path):
        self.folder = out / ".cluster"
        self.token = secrets.token_hex(8)
        self._stop = ""
        self._beats = 0
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Experiment:
        """Make the files.

        Raises:
            ClusterError: another experiment is under way in the folder, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ClusterError(f"cannot make {self.folder}: {error.strerror}: name another --out") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise ClusterError(f"{self.folder.parent} is in use by another experiment: wait for it") from error
        except OSError:
            pass  # a file system without locks: two at once take each other's runs away, and end
        self._write()
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._beating.join()
        with contextlib.suppress(OSError):  # what is left is of no consequence
            for path in [self.folder / _EXPERIMENT, *self.folder.glob(f"*{_ENDING}")]:
                path.unlink()
            self.folder.rmdir()
        os.close(self._lock)

    def stop(self, signal: str) -> None:
        """Let all workers end what they do, with a checkpoint."""
        self._stop = signal
        self._write()

    def claims(self) -> dict[str, dict[str, Any]]:
        """By the name of a run: who has it (token, step, worker, host), and the how manieth (begun) that is.

        A claim that was not given back, of a lost worker, stays until the next one.
        """
        found = {}
        for path in self.folder.glob(f"*{_ENDING}"):
            with contextlib.suppress(FileNotFoundError):  # it was given back meanwhile
                if claim := _read(path):
                    found[path.name[: -len(_ENDING)]] = claim
        return found

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(ClusterError):  # a disk that is full for a while
                self._write()

    def _write(self) -> None:
        self._beats += 1
        values = {"token": self.token, "beats": self._beats, "stop": self._stop}
        try:
            files.write_json(self.folder / _EXPERIMENT, values)
        except TinyImageNetError as error:
            raise ClusterError(str(error)) from error


class Life:
    """The worker's view of the experiment."""

    def __init__(self, folder: Path, token: str):
        self._path = folder / _EXPERIMENT
        self._token = token
        self._beats, self._heard = -1, time.monotonic()

    def over(self) -> str:
        """Why there is nothing left to do for it; "" while there is."""
        try:
            values = _read(self._path)
        except FileNotFoundError:
            return "the experiment has ended"
        if values:
            if values["token"] != self._token:
                return "another experiment has begun in its place"
            if values["stop"]:
                return f"stopped by {values['stop']}"
            if values["beats"] != self._beats:
                self._beats, self._heard = values["beats"], time.monotonic()
        if time.monotonic() - self._heard > MISSED:
            return f"nothing has been heard from the experiment for {MISSED:.0f} seconds"
        return ""


class Claim:
    """A worker's claim to a run."""

    def __init__(self, folder: Path, run: str, about: dict[str, Any]):
        """`run` is the name of the run; `about` has step, worker and host."""
        self._path = folder / f"{run}{_ENDING}"
        self._token = secrets.token_hex(8)
        self._about = about

    def take(self) -> None:
        """Claim it. Whoever had it before has ended when this returns, if it still sees the files.

        Raises:
            TinyImageNetError: the file cannot be written.
        """
        try:
            before = _read(self._path) or {}
        except FileNotFoundError:
            before = None
        begun = 1 + (before or {}).get("begun", 0)
        files.write_json(self._path, {"token": self._token, "begun": begun, **self._about})
        if before is not None:
            time.sleep(SETTLE)

    def lost(self) -> bool:
        """Whether another has taken it."""
        try:
            claim = _read(self._path)
        except FileNotFoundError:
            return False  # the experiment is over: see `Life`
        return claim is not None and claim["token"] != self._token

    def release(self) -> None:
        """Give it back, where it is not another's by now."""
        with contextlib.suppress(OSError):
            if not self.lost():
                self._path.unlink()


def _read(path: Path) -> dict[str, Any] | None:
    """What a file says; None where that cannot be told at this moment.

    Raises:
        FileNotFoundError: it is not there.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError):  # a file system that is away for a while, or that shows a file before its content
        return None
