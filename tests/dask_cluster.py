"""Schedulers, workers and experiments as processes, with tiny nets, for the tests of clusters."""

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
# Connections time out as fast as Dask allows.
SETTINGS = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "OPENBLAS_NUM_THREADS": "1",
}


def write_checkout(folder):
    """Write tools/reproduce.py and nets that train in a moment."""
    write_small_nets(folder / "prototxt")
    (folder / "tools").mkdir()
    for name in ("reproduce.py", "_venv.py"):
        shutil.copy(ROOT / "tools" / name, folder / "tools")
    return folder


class Worker:
    """Process of a worker, and its address."""

    def __init__(self, process, address):
        self.process, self.address = process, address
        self.pid, self.kill = process.pid, process.kill

    def steps(self):
        """Processes of its steps."""
        children = f"/proc/{self.pid}/task/*/children"
        pids = {int(pid) for path in glob.glob(children) for pid in open_text(path).split()}
        return [pid for pid in pids if "step_process" in open_text(f"/proc/{pid}/cmdline")]


class Cluster:
    """A scheduler and workers, each a process; `inside` is a command prefix that runs it elsewhere."""

    def __init__(self, folder, host="127.0.0.1", inside=(), environment=None):
        self.folder, self._stack, self.workers = folder, contextlib.ExitStack(), []
        command = [*inside, *DASK, "scheduler", "--host", host, "--port", 0, "--no-dashboard"]
        command += ["--dashboard-address", ":0"]
        self.scheduler = self._start("scheduler", command, environment=environment)
        self.address = self._logged(r"Scheduler at: +(tcp://\S+)\n", "scheduler", self.scheduler)

    def worker(self, resources="training=1", threads=1, host="127.0.0.1", inside=(), environment=None, preload=None):
        """Start a worker, and wait until it has joined."""
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

    def working(self):
        """The workers that run a step."""
        return [worker for worker in self.workers if worker.steps()]

    def _logged(self, pattern, name, process):
        """Wait until a process has logged a pattern; return its group."""
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
    """Stop a process for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def open_text(path):
    """Text of a file, "" if it is missing."""
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def end(process):
    process.kill()
    process.wait()


class Experiment:
    """Process of tools/reproduce.py."""

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

    def wait_for(self, condition):
        """Wait for a condition; fail if the process ends before that."""
        try:
            wait_for(lambda: condition() or self.process.poll() is not None)
        except BaseException:
            end(self.process)
            raise
        finally:
            if self.process.poll() is not None:
                raise AssertionError(self.end())

    def end(self, seconds=300):
        """Wait for the end; return status, stdout and stderr."""
        try:
            stdout, stderr = self.process.communicate(timeout=seconds)
        finally:
            end(self.process)
        return self.process.returncode, stdout, stderr


def results(out):
    """Results by path, without times: digests of weights, records of training, tables."""
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
