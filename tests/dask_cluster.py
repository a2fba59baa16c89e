"""What the tests of clusters share: schedulers and workers as people start them, and an experiment with tiny nets."""

import contextlib
import glob
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

from conftest import ROOT, wait_for, write_small_nets
from tiny_imagenet.runs import Run

DASK = [sys.executable, "-m", "dask"]
# What a cut cable takes away shows in the shortest time that Dask allows.
SETTINGS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "OPENBLAS_NUM_THREADS": "1",
}


def write_checkout(folder):
    """tools/reproduce.py with nets that train in a moment."""
    write_small_nets(folder / "prototxt")
    (folder / "tools").mkdir()
    for name in ("reproduce.py", "_venv.py"):
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    return folder


class Worker:
    """A worker's process, and its address."""

    def __init__(self, process, address):
        self.process, self.address = process, address
        self.pid, self.kill = process.pid, process.kill

    def steps(self):
        """The processes of the steps that it does."""
        children = f"/proc/{self.pid}/task/*/children"
        pids = {int(pid) for path in glob.glob(children) for pid in open_text(path).split()}
        return [pid for pid in pids if "step_process" in open_text(f"/proc/{pid}/cmdline")]


class Cluster:
    """A scheduler and workers, each a process, perhaps elsewhere (`inside` is the command that goes there)."""

    def __init__(self, folder, host="127.0.0.1", inside=(), environment=None):
        self.folder, self._stack, self.workers = folder, contextlib.ExitStack(), []
        command = [*inside, *DASK, "scheduler", "--host", host, "--port", 0, "--no-dashboard"]
        command += ["--dashboard-address", ":0"]
        self.scheduler = self._start("scheduler", command, environment=environment)
        self.address = self._logged(r"Scheduler at: +(tcp://\S+)\n", "scheduler", self.scheduler)

    def worker(self, resources="training=1", threads=1, host="127.0.0.1", inside=(), environment=None, preload=None):
        """Start one, and wait until it is there."""
        name = f"worker{len(self.workers)}"
        offered = ["--resources", resources] if resources else []
        common = ["--nthreads", threads, "--no-dashboard", "--no-nanny", "--local-directory", self.folder / name]
        common += ["--host", host, *(["--preload", preload] if preload else [])]
        process = self._start(
            name, [*inside, *DASK, "worker", self.address, *common, *offered], environment=environment
        )
        self._logged("(Registered to)", name, process)
        self.workers.append(Worker(process, self._logged(r"Start worker at: +(tcp://\S+)\n", name, process)))
        return self.workers[-1]

    def _logged(self, pattern, name, process):
        """What a process has said in its log, once it has."""
        log = self.folder / f"{name}.log"
        wait_for(lambda: re.search(pattern, log.read_text()), process)
        return re.search(pattern, log.read_text())[1]

    def _start(self, name, command, environment=None):
        log = self._stack.enter_context((self.folder / f"{name}.log").open("w"))
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **SETTINGS, **(environment or {})},
        )
        self._stack.callback(end, process)
        return process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()


@contextlib.contextmanager
def held(pid):
    """A process stands still for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # somebody has ended it
            os.kill(pid, signal.SIGCONT)


def open_text(path):
    """What a file says; nothing where it has gone."""
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def end(process):
    process.kill()
    process.wait()


class Experiment:
    """tools/reproduce.py as a process."""

    def __init__(self, checkout, data, out, *options, inside=(), environment=None):
        command = [sys.executable, checkout / "tools" / "reproduce.py", "--data", data, "--out", out, *options]
        self.out = out
        self.process = subprocess.Popen(
            list(map(str, [*inside, *command])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            start_new_session=True,
            env={**os.environ, **SETTINGS, **(environment or {})},
        )

    def run(self, model, seed=1):
        return Run(self.out / model / f"seed{seed}")

    def claim(self, model, seed=1):
        """Who has a run at this moment; None for nobody."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.out / ".cluster" / f"{model}-seed{seed}.claim").read_text())

    def wait_for(self, condition):
        """Wait until something holds, or it has ended, which is said."""
        try:
            wait_for(lambda: condition() or self.process.poll() is not None)
        except BaseException:
            end(self.process)
            raise
        finally:
            if self.process.poll() is not None:
                raise AssertionError(self.end())

    def end(self, seconds=300):
        """Status, stdout and stderr."""
        try:
            stdout, stderr = self.process.communicate(timeout=seconds)
        finally:
            end(self.process)
        return self.process.returncode, stdout, stderr


def weights(out):
    """What must come out the same, by its path: the sha256 of weights, and the records of training but for times."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_symlink() or "/best/" in name or "/last/" in name:
            continue
        if path.name == "weights.caffemodel":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name == "metrics.jsonl":
            records = map(json.loads, path.read_text().splitlines())
            found[name] = [{k: v for k, v in record.items() if k != "images_per_second"} for record in records]
        if path.name == "table2.csv":
            found[name] = [line.rpartition(",")[0] for line in path.read_text().splitlines()]
    return found
