"""Times of a layer by the caffe programs and by PyTorch, and of copies: what tools/benchmark.py puts side by side.

Every time is a mean over some iterations, after one more that does not count, in milliseconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.errors import BenchmarkError

NO_TORCH = (
    "this Python has none: python3 -m venv DIR && DIR/bin/pip install torch numpy, then --torch-python DIR/bin/python"
)
STATISTICS = {"best": min, "median": statistics.median}  # of the times of several rounds
OURS, STOCK = "caffe", "caffe_stock"  # programs of the build folder, and the latter's CMake target

# One image of normal values, repeated: both signs in x, and x anew in each iteration, since a layer in place overwrites
# it. The sum as loss gives a dy of ones, written anew too. Only the layer between them is timed.
_NET = """
name: "benchmark"
force_backward: true
layer {{ name: "image" type: "DummyData" top: "image"
  dummy_data_param {{ data_filler {{ type: "gaussian" }} shape {{ {image} }} }} }}
layer {{ name: "x" type: "Tile" bottom: "image" top: "x" tile_param {{ axis: 0 tiles: {batch} }} }}
layer {{ name: "measured" {layer} bottom: "x" top: "{top}" }}
layer {{ name: "loss" type: "Reduction" bottom: "{top}" top: "loss" loss_weight: 1 reduction_param {{ axis: 1 }} }}
"""
_TIME = re.compile(r"\] +(\S+)\t(forward|backward): (\S+) ms")
_COPY = 'type: "LReLU" relu_param { negative_slope: 1 }'


def program(build: Path, name: str) -> Path:
    """The path of a caffe program in the build folder; caffe_stock is built where it is missing.

    Raises:
        BenchmarkError: there is none, or it does not build.
    """
    path = build / name
    if path.is_file():
        return path
    if name != STOCK or not (build / "CMakeCache.txt").exists():
        raise BenchmarkError(f"{path} is not there: run tools/setup.sh, or name a build folder with --build")
    cli.note(f"{path} is missing: building stock Caffe, two to five minutes (--no-stock leaves it out)")
    command = ["cmake", "--build", str(build), "--target", STOCK]
    if "CMAKE_BUILD_PARALLEL_LEVEL" not in os.environ:
        command += ["-j", str(os.cpu_count())]
    log = build / "stock.log"
    with log.open("w") as output:
        failed = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if failed or not path.exists():
        raise BenchmarkError(f"{' '.join(command)!r} failed: see {log}, or leave it out with --no-stock")
    return path


def caffe_times(
    path: Path, layer: str, shape: tuple[int, ...], in_place: bool, iterations: int, threads: int
) -> dict[str, float]:
    """Milliseconds {"forward", "backward"} of a layer (its prototxt: type and parameters) on a float32 blob of `shape`.

    Raises:
        BenchmarkError: the program fails or prints no times.
    """
    image = " ".join(f"dim: {size}" for size in (1, *shape[1:]))
    net = _NET.format(image=image, batch=shape[0], layer=layer, top="x" if in_place else "y")
    times = net_times(path, net, iterations, threads)["measured"]
    if not all(times.values()):
        raise BenchmarkError(f"a blob of {shape} is too small for the clock of {path}: give a larger --batch")
    return times


def net_times(path: Path, net: str, iterations: int, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds {layer: {"forward", "backward"}} of a net, given as prototxt.

    Raises:
        BenchmarkError: the program fails or prints no times.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "GLOG_logtostderr": "1", "GLOG_minloglevel": "0"}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "net.prototxt"
        model.write_text(net)
        command = [str(path), "time", "-model", str(model), "-iterations", str(iterations)]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    times: dict[str, dict[str, float]] = {}
    for layer, direction, text in _TIME.findall(done.stderr):
        times.setdefault(layer, {})[direction] = float(text)
    if done.returncode or not times:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise BenchmarkError(f"{path} time failed (status {done.returncode}): {last}")
    return times


def over_rounds(values: list[float]) -> dict[str, float]:
    """STATISTICS of the times of several rounds."""
    return {name: function(values) for name, function in STATISTICS.items()}


def machine() -> dict[str, Any]:
    """What is measured on: the system, the processor's name, how many cores."""
    return {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


class Copier:
    """Copies a large float32 array with so many threads.

    Args:
        size: bytes of the array; a copy reads and writes that many each.
        threads: each copies its part.
    """

    _BLOCK = 1 << 16  # values: 256 KiB, which C libraries copy through the cache

    def __init__(self, size: int, threads: int):
        self.size = size // 4 * 4
        source = np.ones(size // 4, np.float32)
        target = np.zeros_like(source)
        target[:] = 0  # so that its pages are there
        self._parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
        self._pool = ThreadPoolExecutor(threads)

    def times(self, iterations: int) -> dict[str, float]:
        """Milliseconds of each way to copy: a thread's part at once, and in blocks."""
        return {"whole": self._time(self._whole, iterations), "blocks": self._time(self._blocks, iterations)}

    def _time(self, way: Any, iterations: int) -> float:
        self._copy(way)
        begin = time.perf_counter()
        for _ in range(iterations):
            self._copy(way)
        return 1000 * (time.perf_counter() - begin) / iterations

    def _copy(self, way: Any) -> None:
        for _ in self._pool.map(way, self._parts):
            pass

    @staticmethod
    def _whole(part: tuple[np.ndarray, np.ndarray]) -> None:
        np.copyto(*part)

    @classmethod
    def _blocks(cls, part: tuple[np.ndarray, np.ndarray]) -> None:
        target, source = part
        for begin in range(0, len(target), cls._BLOCK):
            np.copyto(target[begin : begin + cls._BLOCK], source[begin : begin + cls._BLOCK])


def copy_times(path: Path, copier: Copier, iterations: int, threads: int) -> dict[str, float]:
    """Milliseconds of each way to copy the copier's array: its own, and a layer of our program whose slope is 1."""
    blob = (256, copier.size // 1024)  # of the same size
    layer = caffe_times(path, _COPY, blob, False, iterations, threads)["forward"]
    return {**copier.times(iterations), "layer": layer}


def find_torch(python: str | None) -> str | None:
    """A Python that has torch: the one given, else this one; None where none was given and this one has none.

    Raises:
        BenchmarkError: the one given does not run or has no torch.
    """
    if python is None:
        return sys.executable if importlib.util.find_spec("torch") else None
    try:
        done = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    except OSError as error:
        raise BenchmarkError(f"--torch-python {python!r} does not run: {error.strerror or error}") from error
    if done.returncode or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise BenchmarkError(
            f"--torch-python {python!r} cannot import torch ({last}): name a Python in which 'pip install torch numpy' "
            "was run"
        )
    return python


class Torch:
    """A Python with torch that times at request; a context manager.

    Args:
        python: the Python.
        threads: that it computes with on the CPU.
        program: what it runs, torch_layers.py or torch_nets.py.

    Attributes:
        version: PyTorch's.
        memory: the most bytes that were resident at the start, where the program says so.
    """

    def __init__(self, python: str, threads: int, program: str = "torch_layers.py"):
        # PyTorch asks for its results' memory anew each time. Kept by malloc, it costs no page faults.
        malloc = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
        text = Path(__file__).with_name(program).read_text(encoding="utf-8")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-c", text, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **malloc},
        )
        self.python = python
        first = self._read()
        self.version, self.memory = first["version"], first.get("memory")

    def __enter__(self) -> Torch:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def times(self, layer: str, shape: tuple[int, ...], in_place: bool, iterations: int) -> dict[str, float]:
        """Milliseconds {"forward", "backward"} of PReLU or LReLU on a float32 tensor."""
        return self.ask({"layer": layer, "shape": shape, "in_place": in_place, "iterations": iterations})

    def copy_time(self, size: int, iterations: int) -> float:
        """Milliseconds of a copy of `size` bytes."""
        return self.ask({"copy": size, "iterations": iterations})["ms"]

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The program's answer to a question, as its docstring has them.

        Raises:
            BenchmarkError: it has ended.
        """
        with contextlib.suppress(BrokenPipeError):  # what it said stands in its errors
            print(json.dumps(question), file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [f"status {status}"])[-1]
            raise BenchmarkError(f"PyTorch of {self.python} ended early: {last}")
        return json.loads(line)
