"""Functions that run in a Dask worker: checks of the worker, and steps, each in a child process."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib.util
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import distributed
import numpy as np

import tiny_imagenet
from tiny_imagenet.errors import StepLostError

TOPIC = "tiny-imagenet"  # events [step, text] for the experiment
_OPEN = (distributed.Status.running, distributed.Status.paused)
_children: set[subprocess.Popen] = set()


def run_step(name: str, step: bytes, expected: dict[str, str], resource: tuple[str, int]) -> str:
    """Run a pickled step in a child process; return its error, "" for none.

    The child is killed if this worker is lost. If the worker closes or the step is cancelled, the child ends with a
    checkpoint.

    Raises:
        StepLostError: the child was killed or crashed; the step can be run again.
        distributed.Reschedule: another worker has to run the step.
    """
    worker = distributed.get_worker()
    key = worker.get_current_task()
    where = f"{socket.gethostname()} ({worker.address})"
    if found := differences(expected):
        worker.log_event(TOPIC, ["", f"dismissed the worker on {where}: {found}"])
        worker.loop.add_callback(worker.close, reason=found)
        raise distributed.Reschedule
    worker.log_event(TOPIC, [name, f"==> {name}: on {where}"])
    command = [sys.executable, "-m", "tiny_imagenet.experiment.step_process", str(os.getpid())]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(worker, *resource),
        start_new_session=True,  # Ctrl-C in a terminal is for the experiment
    )
    _children.add(child)
    stopped, data = False, step
    try:
        while True:
            try:
                error, _ = child.communicate(data, timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                data = None
            task = worker.state.tasks.get(key)
            if not stopped and (worker.status not in _OPEN or task is None or task.state != "executing"):
                stopped = True
                child.terminate()
    finally:
        child.kill()
        child.wait()
        _children.discard(child)
    if child.returncode and stopped:
        raise distributed.Reschedule
    if child.returncode < 0:
        by = signal.Signals(-child.returncode).name
        raise StepLostError(f"its process was killed by {by}" + (" (out of memory?)" if by == "SIGKILL" else ""))
    if child.returncode and not error:
        return f"its process exited with status {child.returncode}"
    return error.decode(errors="replace")


def _environment(worker: distributed.Worker, name: str, amount: int) -> dict[str, str]:
    """Environment of a child, which computes with its share of the worker's threads."""
    at_once = max(1, int(worker.state.total_resources.get(name, 1) // amount))
    threads = str(max(1, worker.state.nthreads // at_once))
    own = {name: value for name, value in os.environ.items() if name != "MALLOC_TRIM_THRESHOLD_"}  # Dask's: slower
    own["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return own | {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL")}


async def children_ended() -> None:
    """Wait until no step runs in this worker."""
    while _children:
        await asyncio.sleep(0.1)


def report(expected: dict[str, str], dask_worker: distributed.Worker) -> dict[str, Any]:
    """Return the host, the resources and the differences of a worker."""
    resources = dict(dask_worker.state.total_resources)
    return {"host": socket.gethostname(), "resources": resources, "differences": differences(expected)}


def differences(expected: dict[str, str]) -> str:
    """Describe how this machine's fingerprint is different from the expected one; "" if it is not."""
    found = fingerprint(name for name in expected if name.startswith("/"))
    return "; ".join(
        f"{name} is {found[name]}, expected {value}" for name, value in expected.items() if found[name] != value
    )


def fingerprint(paths: Iterable[str | os.PathLike[str]] = ()) -> dict[str, str]:
    """Versions of the code and digests of files: workers with the same ones compute the same results."""
    return _versions() | {os.path.abspath(path): _digest([Path(path)]) for path in paths}


@functools.cache
def _versions() -> dict[str, str]:
    package, caffe = Path(tiny_imagenet.__file__).parent, importlib.util.find_spec("caffe")
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "tiny_imagenet": _digest(sorted(package.rglob("*.py"))),
        "caffe": _digest(sorted(Path(caffe.origin).parent.glob("*.so"))) if caffe else "missing",
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
    }


def _digest(paths: list[Path]) -> str:
    """First digits of a SHA-256 over files, or why they cannot be read."""
    try:
        joined = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    except OSError as error:
        return error.strerror or str(error)
    return hashlib.sha256(joined).hexdigest()[:12]
