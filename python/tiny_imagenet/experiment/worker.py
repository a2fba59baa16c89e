"""What the workers of a cluster do: they show that they are fit, do steps of an experiment, and load batches of images.

Nothing here loads Caffe: a step does that in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import distributed
import numpy as np

import tiny_imagenet
from tiny_imagenet import runs
from tiny_imagenet.data import dataset
from tiny_imagenet.data.catalogue import Entry
from tiny_imagenet.data.loading import SLOT, Loaded, Rule, load
from tiny_imagenet.errors import StepLostError
from tiny_imagenet.experiment.claims import Claim, Life
from tiny_imagenet.experiment.step_process import StepProcess
from tiny_imagenet.outcomes import Outcome

LOOK = 1.0  # seconds from one look at the claim and the experiment to the next
PATIENCE = 60.0  # seconds to wait for the lock of a run, which a worker may hold that has just lost it


@dataclass(frozen=True)
class Demands:
    """What a worker must have and see.

    Attributes:
        versions: as `versions`.
        contents: absolute paths of files, and the sha256 of each.
        shared: a folder that it must see as the one who asks does, and be able to write; None for none.
        token: of the experiment (`claims`) whose files are in `shared`.
    """

    versions: tuple[tuple[str, str], ...]
    contents: tuple[tuple[str, str], ...] = ()
    shared: Path | None = None
    token: str = ""

    def misfits(self) -> list[str]:
        """What this process has otherwise, a line each."""
        own = dict(versions())
        found = [f"{name} is {own[name]}, here {wanted}" for name, wanted in self.versions if own[name] != wanted]
        for path, wanted in self.contents:
            digest = sha256(Path(path))
            if digest != wanted:
                found.append(f"{path} is not there" if digest is None else f"{path} has other contents than here")
        if self.shared:
            found += self._not_shared()
        return found

    def _not_shared(self) -> list[str]:
        out = self.shared.parent
        if self.token and Life(self.shared, self.token).over():
            return [f"{out} is not the folder that is there here: it must be on a file system that all share"]
        try:
            with tempfile.NamedTemporaryFile(dir=self.shared):
                return []
        except OSError as error:
            return [f"{out} cannot be written ({error.strerror})"]


@dataclass(frozen=True)
class Work:
    """A step as it is sent to a worker.

    Attributes:
        name: of the step.
        step: it, pickled: what it needs is not loaded in the worker's own process.
        run: the run folder that it writes into; None for none.
        demands: on the worker.
        resource: what of the worker's resources it takes, of which a worker may have enough for several steps.
        amount: how much of it.
        silent: whether what it prints is dropped.
    """

    name: str
    step: bytes
    run: Path | None
    demands: Demands
    resource: str
    amount: int
    silent: bool


def perform(work: Work, *needs: Outcome) -> Outcome:
    """Do a step, unless one that it needs has failed.

    Raises:
        StepLostError: its process was killed or has crashed, or another worker has taken over its run.
        distributed.Reschedule: this worker cannot do it, or is leaving.
    """
    failed = next((need for need in needs if need.error), None)
    if failed:
        return failed
    life = Life(work.demands.shared, work.demands.token)
    over = life.over()
    if over:
        return Outcome(error="Stopped", text=over)
    if not _fit(work.demands):  # it has come after the others, and is going to be sent away
        time.sleep(LOOK)
        raise distributed.Reschedule
    worker = distributed.get_worker()
    with contextlib.ExitStack() as stack:
        claim = None
        if work.run:
            about = {"step": work.name, "worker": worker.address, "host": socket.gethostname()}
            claim = Claim(work.demands.shared, f"{work.run.parent.name}-{work.run.name}", about)
            claim.take()
            stack.callback(claim.release)
            until = time.monotonic() + PATIENCE
            while runs.in_use(work.run) and time.monotonic() < until and not (claim.lost() or life.over()):
                time.sleep(LOOK)
            over = life.over()  # it may have taken a minute to come here
            if over:
                return Outcome(error="Stopped", text=over)
        process = StepProcess(work.step, _environment(worker, work), work.silent)
        stack.callback(process.close)
        return _watch(process, claim, life, worker)


def _watch(process: StepProcess, claim: Claim | None, life: Life, worker: distributed.Worker) -> Outcome:
    """Wait for the end of a step, and bring it about where there is a reason."""
    stays = (distributed.Status.running, distributed.Status.paused)
    told = leaving = False
    while (outcome := process.outcome(LOOK)) is None:
        if claim and claim.lost():
            raise StepLostError("another worker has taken it over")
        leaving = leaving or worker.status not in stays
        if not told and (leaving or life.over()):
            told = True
            process.stop()
    if leaving and outcome.error == "Stopped":
        raise distributed.Reschedule
    return outcome


def _environment(worker: distributed.Worker, work: Work) -> dict[str, str]:
    """Of the process of a step: it computes with its share of the worker's threads."""
    share = int(worker.state.total_resources.get(work.resource, 1) // work.amount)
    threads = str(max(1, worker.state.nthreads // max(1, share)))
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}
    return environment | {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL")}


def load_batch(entries: list[Entry], rule: Rule, demands: Demands) -> tuple[Loaded, bytes]:
    """What a batch of images becomes, and its Datums one behind the other.

    Raises:
        distributed.Reschedule: this worker cannot do it.
    """
    if not _fit(demands):
        time.sleep(LOOK)
        raise distributed.Reschedule
    return loaded_here(entries, rule)


def loaded_here(entries: list[Entry], rule: Rule) -> tuple[Loaded, bytes]:
    """What `load_batch` returns, by this process."""
    slot = _slot()
    with dataset.quiet():
        loaded = load(entries, slot, rule)
    data = loaded.data
    if data is None:
        data = bytes(slot[: sum(size for size in loaded.sizes if size > 0)])
    return loaded._replace(data=None, total=loaded.total.copy()), data


_found_fit: set[Demands] = set()


def _fit(demands: Demands) -> bool:
    """Whether this worker has all that is demanded; once it had, it has."""
    if demands not in _found_fit and not demands.misfits():
        _found_fit.add(demands)
    return demands in _found_fit


_own = threading.local()


def _slot() -> memoryview:
    """The memory of the calling thread for a batch."""
    if not hasattr(_own, "slot"):
        _own.slot = memoryview(bytearray(SLOT))
        cv2.setNumThreads(1)  # the worker's threads are the threads
    return _own.slot


def show(demands: Demands) -> dict[str, Any]:
    """What a worker is asked first: its host, which GPUs it sees, and what it has otherwise than it must."""
    # Each job of Slurm may call its own GPU 0.
    devices = [f"{name}={os.environ[name]}" for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID") if name in os.environ]
    return {"host": socket.gethostname(), "devices": ", ".join(devices), "misfits": demands.misfits()}


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """What must be the same everywhere for the same results: names and versions."""
    caffe = importlib.util.find_spec("caffe")
    library = Path(caffe.origin).parent if caffe else None
    return (
        ("Python", ".".join(platform.python_version_tuple()[:2])),
        ("tiny_imagenet", f"{tiny_imagenet.__version__} ({_digest(Path(tiny_imagenet.__file__).parent, '**/*.py')})"),
        ("libcaffe", _digest(library, "*.so") if library else "not installed"),
        ("numpy", np.__version__),
        ("OpenCV", cv2.__version__),
        ("distributed", distributed.__version__),
    )


def _digest(folder: Path, pattern: str) -> str:
    """The first digits of a sha256 over files' contents."""
    joined = "".join(sha256(path) or "" for path in sorted(folder.glob(pattern)))
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def sha256(path: Path) -> str | None:
    """Of a file; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
