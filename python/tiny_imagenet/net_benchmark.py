"""Whole nets trained by the caffe program and by PyTorch, images a second side by side: `tools/benchmark.py nets`.

Needs the cases of `net_cases` and the program alone, no pycaffe. Each net is measured in a process of its own, by the
clock that it comes with: Caffe's `Iteration ... iter/s` lines, and PyTorch's with the GPU waited for. Of the rounds'
times a result has the minimum ("best") and the median.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tiny_imagenet import cli, gpu_memory, timing
from tiny_imagenet.errors import BenchmarkError, GpuError

STATISTICS = {"best": min, "median": statistics.median}


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on what.

    Attributes:
        threads: of the CPU.
        rounds: times that are taken of each net.
        iterations: that one time is the mean of; as many come first and do not count.
        gpu: the number of the GPU, None for the CPU.
        tf32: what products round their factors to, each measured by itself: TF32 (True) and float32 (False).
        deterministic: whether only what gives the same bits in every run is allowed.
        void: what is measured is too small for its figures to mean anything.
    """

    threads: int
    rounds: int = 5
    iterations: int = 20
    gpu: int | None = None
    tf32: tuple[bool, ...] = (False,)
    deterministic: bool = False
    void: bool = False


class Way(NamedTuple):
    """A program and how it rounds."""

    program: str  # "ours", "torch"
    tf32: bool

    def __str__(self) -> str:
        return f"{self.program}{' TF32' if self.tf32 else ''}"


def nets(cases: Iterable[dict[str, Any]], settings: Settings, build: Path, torch: str | None = None) -> dict[str, Any]:
    """Measure nets.

    Args:
        cases: those of `net_cases`.
        settings: how.
        build: the folder with the caffe program.
        torch: a Python that has torch; None leaves PyTorch out.

    Returns:
        settings, machine, not_measured (columns: why) and nets: of each case model, batch, parameters and measured, by
        way ("ours", "torch TF32", ...) ms, images_per_second, memory (bytes at the peak of what the GPU's memory grew;
        None on the CPU, or where the driver does not say) and, of torch, ours_over_this: of the images a second.

    Raises:
        BenchmarkError: the program is missing or fails, or PyTorch does, or it makes another net of a case.
        GpuError: there is no such GPU.
    """
    program = timing.program(build, timing.OURS)
    memory, problem = _memory(settings.gpu)
    ways = [Way(name, tf32) for tf32 in settings.tf32 for name in ("ours", "torch") if name == "ours" or torch]
    cases = list(cases)
    versions: set[str] = set()
    rows = []
    turns = [(case, way) for case in cases for way in ways]
    measured: dict[str, dict[str, Any]] = {}
    for case, way in cli.track(turns, len(turns), "nets"):
        found = measured.setdefault(case["model"], {})
        with ExitStack() as stack:
            peak = stack.enter_context(gpu_memory.Peak(memory)) if memory else None
            if way.program == "ours":
                times = _ours(program, case, settings, way.tf32)
            else:
                worker = stack.enter_context(timing.Torch(torch or "", settings.threads, "torch_nets.py"))
                versions.add(worker.version)
                times = _torch(worker, case, settings, way.tf32)
        found[str(way)] = {"ms": _over_rounds(times), "memory": peak.bytes if peak else None}
    for case in cases:
        rows.append({key: case[key] for key in ("model", "batch", "parameters")})
        rows[-1]["measured"] = _rates(case, measured[case["model"]])
    return {
        "settings": vars(settings),
        "machine": {
            **timing.machine(),
            "gpu": memory.name if memory else None,
            "torch": ", ".join(sorted(versions)) or None,
        },
        "nets": rows,
        "not_measured": {**({} if torch else {"torch": timing.NO_TORCH}), **problem},
    }


def _memory(gpu: int | None) -> tuple[gpu_memory.Memory | None, dict[str, str]]:
    """What tells of the GPU's memory; where nothing does, why."""
    if gpu is None:
        return None, {}
    try:
        return gpu_memory.Memory(gpu), {}
    except GpuError as error:
        return None, {"memory": str(error)}


def _ours(program: Path, case: dict[str, Any], settings: Settings, tf32: bool) -> list[float]:
    solver = " ".join(f"{name}: {case[name]:g}" for name in ("base_lr", "momentum", "weight_decay"))
    environment = {
        "OMP_NUM_THREADS": str(settings.threads),
        "CAFFE_TF32": str(int(tf32)),
        "CAFFE_CUDNN_DETERMINISTIC": str(int(settings.deterministic)),
    }
    rounds = settings.rounds, settings.iterations
    return timing.iteration_times(program, case["net"], solver, *rounds, settings.gpu, environment)


def _torch(worker: timing.Torch, case: dict[str, Any], settings: Settings, tf32: bool) -> list[float]:
    wanted = {key: value for key, value in case.items() if key != "net"}
    how = {key: getattr(settings, key) for key in ("gpu", "deterministic", "rounds", "iterations")}
    answer = worker.ask({**wanted, **how, "tf32": tf32})
    if answer["parameters"] != case["parameters"]:
        raise BenchmarkError(
            f"{case['model']}: PyTorch's net has {answer['parameters']:,} parameters, Caffe's {case['parameters']:,}"
        )
    return answer["ms"]


def _over_rounds(values: list[float]) -> dict[str, float]:
    return {name: function(values) for name, function in STATISTICS.items()}


def _rates(case: dict[str, Any], measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`measured` with images a second, and ours as a multiple of PyTorch's."""
    for found in measured.values():
        found["images_per_second"] = {name: 1000 * case["batch"] / ms for name, ms in found["ms"].items()}
    for way, found in measured.items():
        ours = measured.get(way.replace("torch", "ours"))
        if ours and ours is not found:
            found["ours_over_this"] = {name: found["ms"][name] / ours["ms"][name] for name in STATISTICS}
    return measured
