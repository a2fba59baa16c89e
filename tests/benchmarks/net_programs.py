"""One round of a net in a process of its own, by a caffe program or by PyTorch: its time, its memory, its result.

Caffe's programs, ours and stock, are timed by the stamps of the lines that they log after each iteration: of `caffe
train` with a solver that displays each, and of `caffe test`. PyTorch is timed by torch_nets.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import timing
from tiny_imagenet.errors import BenchmarkError

TASKS = ("training", "inference")

# "I20240131 23:59:59.123456 77 solver.cpp:242] Iteration 40 (21.3 iter/s, 0.047s/1 iters), loss = 5.3", of `caffe test`
# "...] Batch 40, all = 200"
_LINE = re.compile(r"^I\d+ (\d+):(\d+):(\d+\.\d+) .*\] (?:Iteration \d+ \(|Batch \d+,).* = (\S+)$")
_DAY = 24 * 60 * 60
_FOREVER = 1_000_000_000  # iterations: the program is ended when it has been timed
_NO_WEIGHTS = b"\x0a\x04none"  # a caffemodel whose net is called none and has no layers: all stay as they were drawn


@dataclass(frozen=True)
class How:
    """How a net is run.

    Attributes:
        threads: of the CPU.
        warm_up: iterations before those that count, 2 or more.
        iterations: that count; None for as many as take `seconds`.
        seconds: see there.
        gpu: the number of the GPU, None for the CPU.
        tf32: whether products round their factors to TF32.
        deterministic: whether only what gives the same bits in every run is allowed.
    """

    threads: int
    warm_up: int
    iterations: int | None
    seconds: float
    gpu: int | None = None
    tf32: bool = False
    deterministic: bool = False


class Round(NamedTuple):
    """What was measured.

    Attributes:
        ms: of an iteration, the mean.
        iterations: over how many.
        memory: the most bytes that were resident of the process, its program and libraries included.
        value: of training the first loss (of PyTorch the last), of inference the sum of a batch's probabilities.
        version: PyTorch's.
        library: bytes of `memory` that were resident before there was a net, of PyTorch.
    """

    ms: float
    iterations: int
    memory: int
    value: float
    version: str | None = None
    library: int | None = None


def caffe(program: Path, case: dict[str, Any], text: str, task: str, how: How) -> Round:
    """Run a caffe program.

    Args:
        program: its path.
        case: one of net_cases.
        text: the prototxt, of `case` and `task`.
        task: one of TASKS.
        how: how.

    Raises:
        BenchmarkError: the program fails, or what it computes is not finite.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.prototxt").write_text(text)
        if task == "training":
            (folder / "solver.prototxt").write_text(_solver(folder, case))
            command = [str(program), "train", f"--solver={folder / 'solver.prototxt'}"]
        else:
            (folder / "none.caffemodel").write_bytes(_NO_WEIGHTS)
            files = f"--model={folder / 'net.prototxt'}", f"--weights={folder / 'none.caffemodel'}"
            command = [str(program), "test", *files, f"--iterations={_FOREVER}"]
        if how.gpu is not None:
            command.append(f"--gpu={how.gpu}")
        return _timed(command, f"{case['model']}, {task}", how)


def _solver(folder: Path, case: dict[str, Any]) -> str:
    rates = " ".join(f"{name}: {case[name]:g}" for name in ("base_lr", "momentum", "weight_decay"))
    length = f"max_iter: {_FOREVER} display: 1 snapshot: 0 snapshot_after_train: false"
    return f'net: "{folder / "net.prototxt"}" lr_policy: "fixed" random_seed: 1 {length} {rates}\n'


def _timed(command: list[str], what: str, how: How) -> Round:
    """Start a program and end it when enough of its lines have come."""
    settings = {
        "OMP_NUM_THREADS": str(how.threads),
        "CAFFE_TF32": str(int(how.tf32)),
        "CAFFE_CUDNN_DETERMINISTIC": str(int(how.deterministic)),
        "GLOG_logtostderr": "1",
        "GLOG_minloglevel": "0",
    }
    process = subprocess.Popen(
        command,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    last = "it printed nothing"
    first, begin, iterations, elapsed = math.nan, 0.0, -how.warm_up, 0.0
    try:
        for line in process.stderr:
            last = line.strip() or last
            found = _LINE.match(line)
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
                begin = now
            elapsed = (now - begin) % _DAY
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
    """The most bytes that were resident of a process that still runs; 0 of one that has ended."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def torch(python: str, case: dict[str, Any], task: str, how: How) -> Round:
    """Run PyTorch.

    Args:
        python: a Python that has it.
        case: one of net_cases.
        task: one of TASKS.
        how: how.

    Raises:
        BenchmarkError: it fails, it has another number of parameters, or what it computes is not finite.
    """
    wanted = {key: value for key, value in case.items() if key not in TASKS}
    with timing.Torch(python, how.threads, "torch_nets.py") as worker:
        answer = worker.ask({**wanted, **vars(how), "task": task})
        version, library = worker.version, worker.memory
    if answer["parameters"] != case["parameters"]:
        raise BenchmarkError(
            f"{case['model']}: PyTorch's net has {answer['parameters']:,} parameters, Caffe's {case['parameters']:,}"
        )
    if not math.isfinite(answer["value"]):
        raise BenchmarkError(f"{case['model']}, {task}: PyTorch computes {answer['value']}")
    return Round(answer["ms"], answer["iterations"], answer["memory"], answer["value"], version, library)
