"""One measurement by a caffe program or by PyTorch.

Times are means over iterations in milliseconds; warm-up iterations are not counted.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.errors import BenchmarkError

TASKS = ("training", "inference")
PASSES = ("forward", "backward")
OURS, STOCK = "caffe", "caffe_stock"  # programs of the build folder; STOCK is also a CMake target
STATISTICS = {"best": min, "median": statistics.median}  # over the rounds of a measurement
NO_TORCH = (
    "not installed here: python3 -m venv DIR && DIR/bin/pip install torch numpy, then --torch-python DIR/bin/python"
)

_NET = """
name: "benchmark"
force_backward: true
layer {{ name: "image" type: "DummyData" top: "image"
  dummy_data_param {{ data_filler {{ type: "gaussian" }} shape {{ {image} }} }} }}
layer {{ name: "x" type: "Tile" bottom: "image" top: "x" tile_param {{ axis: 0 tiles: {batch} }} }}
layer {{ name: "measured" {layer} bottom: "x" top: "{top}" }}
layer {{ name: "loss" type: "Reduction" bottom: "{top}" top: "loss" loss_weight: 1 reduction_param {{ axis: 1 }} }}
"""
_COPY = 'type: "LReLU" relu_param { negative_slope: 1 }'
_TIME = re.compile(r"\] +(\S+)\t(forward|backward): (\S+) ms")  # of caffe time
# of caffe train and caffe test, one line per iteration: time of day and the loss or the sum of the probabilities
_ITERATION = re.compile(r"^I\d+ (\d+):(\d+):(\d+\.\d+) .*\] (?:Iteration \d+ \(|Batch \d+,).* = (\S+)$")
_DAY = 24 * 60 * 60
_FOREVER = 1_000_000_000  # iterations: the program is killed after its measurement
_NO_WEIGHTS = b"\x0a\x04none"  # a caffemodel without layers, so that caffe test keeps the initial weights


@dataclass(frozen=True)
class How:
    """How a net is run.

    Attributes:
        threads: CPU threads.
        warm_up: iterations that are not counted, at least 2.
        iterations: iterations that are counted; None: as many as take `seconds`.
        seconds: see iterations.
        gpu: number of a GPU; None: the CPU.
        tf32: whether products use TF32.
        deterministic: whether only algorithms with reproducible results are used.
    """

    threads: int
    warm_up: int = 2
    iterations: int | None = None
    seconds: float = 0
    gpu: int | None = None
    tf32: bool = False
    deterministic: bool = False


class Round(NamedTuple):
    """A measurement of a net.

    Attributes:
        ms: mean time of an iteration.
        iterations: number of iterations counted.
        memory: peak resident bytes of the process.
        value: the first loss (of PyTorch the last one); in inference the sum of the probabilities of a batch.
        version, library: PyTorch's version, and its resident bytes before it had a net.
    """

    ms: float
    iterations: int
    memory: int
    value: float
    version: str | None = None
    library: int | None = None


def over_rounds(values: list[float]) -> dict[str, float]:
    """Return {"best", "median"} of the times of several rounds."""
    return {name: function(values) for name, function in STATISTICS.items()}


def machine() -> dict[str, Any]:
    """Return the operating system, the processor's name and the number of cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.machine()
    return {"system": platform.platform(), "processor": processor, "cores": os.cpu_count()}


# --- Caffe -----------------------------------------------------------------------------------------------------------
def find(build: Path, stock: bool) -> dict[str, Path]:
    """Return the caffe programs of a build folder as {"ours", "stock"}; stock Caffe is built if it is missing.

    Raises:
        BenchmarkError: a program is missing or does not build.
    """
    paths = {"ours": build / OURS, **({"stock": build / STOCK} if stock else {})}
    for path in paths.values():
        if path.is_file():
            continue
        if path.name != STOCK or not (build / "CMakeCache.txt").exists():
            raise BenchmarkError(f"{path} is missing: run tools/setup.sh, or name a build folder with --build")
        cli.note(f"{path} is missing: building stock Caffe, which takes two to five minutes (--no-stock skips it)")
        command = ["cmake", "--build", str(build), "--target", STOCK, "-j", str(os.cpu_count())]
        log = build / "stock.log"
        with log.open("w") as output:
            failed = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
        if failed or not path.exists():
            raise BenchmarkError(f"{' '.join(command)!r} failed: see {log}, or skip stock Caffe with --no-stock")
    return paths


def net_times(path: Path, net: str, how: How) -> dict[str, dict[str, float]]:
    """Return the times of each layer of a prototxt by `caffe time`, as {layer: {"forward", "backward"}}.

    Raises:
        BenchmarkError: the program fails or prints no times.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(how.threads), "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "net.prototxt"
        model.write_text(net)
        command = [path, "time", "-model", model, "-iterations", str(how.iterations)]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    times: dict[str, dict[str, float]] = {}
    for layer, direction, text in _TIME.findall(done.stderr):
        times.setdefault(layer, {})[direction] = float(text)
    if done.returncode or not times:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise BenchmarkError(f"{path} time failed (status {done.returncode}): {last}")
    return times


def layer_times(path: Path, layer: str, shape: tuple[int, ...], in_place: bool, how: How) -> dict[str, float]:
    """Return the times {"forward", "backward"} of a layer, given as its type and parameters, on a float32 blob.

    The blob is written anew in each iteration, because a layer in place overwrites it; the gradient is all ones.
    """
    image = " ".join(f"dim: {size}" for size in (1, *shape[1:]))
    net = _NET.format(image=image, batch=shape[0], layer=layer, top="x" if in_place else "y")
    times = net_times(path, net, how)["measured"]
    if not all(times.values()):
        raise BenchmarkError(f"a blob of {shape} is too small for the clock of {path}: use a larger --batch")
    return times


class Copier:
    """Copies of a large float32 array, which measure the bandwidth of the memory.

    Args:
        size: bytes of the array, a multiple of 1024; a copy reads and writes that many.
        how: threads and iterations.
    """

    def __init__(self, size: int, how: How):
        self.size, self._how = size, how
        source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
        self._parts = list(zip(np.array_split(target, how.threads), np.array_split(source, how.threads)))

    def times(self, path: Path) -> dict[str, float]:
        """Return the times of two ways to copy: numpy, and a layer of our program with slope 1."""
        with ThreadPoolExecutor(self._how.threads) as pool:

            def copy() -> None:
                list(pool.map(lambda part: np.copyto(*part), self._parts))

            copy()
            start = time.perf_counter()
            for _ in range(self._how.iterations):
                copy()
            numpy = 1000 * (time.perf_counter() - start) / self._how.iterations
        layer = layer_times(path, _COPY, (256, self.size // 1024), False, self._how)["forward"]
        return {"numpy": numpy, "layer": layer}


def caffe(path: Path, case: dict[str, Any], task: str, net: str, how: How) -> Round:
    """Train or test a net with `caffe train` or `caffe test`, and time it by the lines that it logs.

    Args:
        path: the program.
        case: a net of `cases`.
        task: one of TASKS.
        net: the prototxt.
        how: how it is run.

    Raises:
        BenchmarkError: the program fails, or a loss is not finite.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.prototxt").write_text(net)
        if task == "training":
            (folder / "solver.prototxt").write_text(solver(folder, case))
            command = [str(path), "train", f"--solver={folder / 'solver.prototxt'}"]
        else:
            (folder / "none.caffemodel").write_bytes(_NO_WEIGHTS)
            files = f"--model={folder / 'net.prototxt'}", f"--weights={folder / 'none.caffemodel'}"
            command = [str(path), "test", *files, f"--iterations={_FOREVER}"]
        if how.gpu is not None:
            command.append(f"--gpu={how.gpu}")
        return _timed(command, f"{case['model']}, {task}", how)


def solver(folder: Path, case: dict[str, Any]) -> str:
    """The solver of a case, which trains folder/net.prototxt."""
    rates = " ".join(f"{name}: {case[name]:g}" for name in ("base_lr", "momentum", "weight_decay"))
    length = f"max_iter: {_FOREVER} display: 1 snapshot: 0 snapshot_after_train: false"
    return f'net: "{folder / "net.prototxt"}" lr_policy: "fixed" random_seed: 1 {length} {rates}\n'


def _timed(command: list[str], what: str, how: How) -> Round:
    """Run a program until it has logged enough iterations."""
    settings = {
        "OMP_NUM_THREADS": str(how.threads),
        "CAFFE_TF32": str(int(how.tf32)),
        "CAFFE_CUDNN_DETERMINISTIC": str(int(how.deterministic)),
        "GLOG_logtostderr": "1",
        "GLOG_minloglevel": "0",
    }
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env={**os.environ, **settings}, text=True, errors="replace", **pipes)
    last, first, start, iterations = "it printed nothing", math.nan, 0.0, -how.warm_up
    try:
        for line in process.stderr:
            last = line.strip() or last
            found = _ITERATION.match(line)
            if not found:
                continue
            hours, minutes, seconds, value = map(float, found.groups())
            now = 3600 * hours + 60 * minutes + seconds
            iterations += 1
            if not math.isfinite(value):
                raise BenchmarkError(f"{what}: {command[0]} computes {value}: {last}")
            if iterations == 1 - how.warm_up:
                first = value
            if iterations == 0:
                start = now
            elapsed = (now - start) % _DAY
            if iterations > 0 and (iterations >= how.iterations if how.iterations else elapsed >= how.seconds):
                memory = _peak_memory(process.pid)
                if memory:
                    return Round(1000 * elapsed / iterations, iterations, memory, first)
        process.wait()
    finally:
        process.kill()
        process.communicate()
    raise BenchmarkError(f"{' '.join(command[:2])} failed (status {process.returncode}): {last}")


def _peak_memory(pid: int) -> int:
    """Peak resident bytes of a running process; 0 if it has ended."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


# --- PyTorch ---------------------------------------------------------------------------------------------------------
def find_torch(python: str | None) -> str | None:
    """Return a Python with torch: `python`, or without one this Python, or None if it has no torch.

    Raises:
        BenchmarkError: `python` does not run or has no torch.
    """
    if python is None:
        return sys.executable if importlib.util.find_spec("torch") else None
    try:
        done = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"--torch-python {python!r} does not run: {error.strerror or error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BenchmarkError(
            f"--torch-python {python!r} cannot import torch ({last}): run pip install torch numpy in it"
        )
    return python


class Torch:
    """A process that runs torch_worker.py in a Python with torch; a context manager.

    Attributes:
        version: PyTorch's version.
        memory: peak resident bytes at the start.
    """

    def __init__(self, python: str, threads: int):
        # malloc keeps freed memory; otherwise each result would cost new page faults
        malloc = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, Path(__file__).with_name("torch_worker.py"), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **malloc},
        )
        self._python = python
        first = self._read()
        self.version, self.memory = first["version"], first["memory"]

    def __enter__(self) -> Torch:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the worker's answer; its docstring lists the questions.

        Raises:
            BenchmarkError: the process has ended.
        """
        with contextlib.suppress(BrokenPipeError):  # the reason is in its stderr
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [f"status {status}"])[-1]
            raise BenchmarkError(f"PyTorch of {self._python} ended early: {last}")
        return json.loads(line)


def torch(python: str, case: dict[str, Any], task: str, how: How) -> Round:
    """Train or test a net with PyTorch.

    Raises:
        BenchmarkError: it fails, has another number of parameters than Caffe, or its loss is not finite.
    """
    net = {key: value for key, value in case.items() if key not in TASKS}
    with Torch(python, how.threads) as worker:
        answer = worker.ask(**net, **vars(how), task=task)
    if answer["parameters"] != case["parameters"]:
        raise BenchmarkError(
            f"{case['model']}: PyTorch's net has {answer['parameters']:,} parameters, Caffe's {case['parameters']:,}"
        )
    if not math.isfinite(answer["value"]):
        raise BenchmarkError(f"{case['model']}, {task}: PyTorch computes {answer['value']}")
    return Round(answer["ms"], answer["iterations"], answer["memory"], answer["value"], worker.version, worker.memory)
