"""Whole nets by our caffe program, stock Caffe and PyTorch: `tools/benchmark.py nets`.

Needs the cases of `cases` and the programs, but not pycaffe. Each measurement runs in a new process, to measure its
peak memory. The programs take turns: ours, PyTorch, stock, ours ... Results contain the minimum ("best") and the median
over the rounds.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_memory, programs, tables
from benchmarks.programs import TASKS, How, Round, over_rounds
from tiny_imagenet.errors import BenchmarkError

SAME = 0.01  # relative difference allowed between our first loss and stock Caffe's: same weights, same images
WARM_UP = {"CPU": 2, "GPU": 20}  # iterations


@dataclass(frozen=True)
class Settings:
    """Extent and conditions of the measurement.

    Attributes:
        threads: CPU threads.
        tasks: of TASKS.
        rounds: measurements of each program.
        iterations: iterations per measurement; None: as many as take `seconds`.
        seconds: see iterations.
        gpu: number of a GPU; None: the CPU.
        tf32: measured with TF32 products (True), with float32 (False), or both.
        deterministic: whether only algorithms with reproducible results are used.
        void: whether too little is measured for the figures to mean anything.
    """

    threads: int
    tasks: tuple[str, ...] = TASKS
    rounds: int = 3
    iterations: int | None = None
    seconds: float = 2.0
    gpu: int | None = None
    tf32: tuple[bool, ...] = (False,)
    deterministic: bool = False
    void: bool = False


def measure(
    cases: list[dict[str, Any]],
    settings: Settings,
    build: Path,
    stock: bool = True,
    torch: str | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measure nets.

    Args:
        cases: of `cases`.
        settings: tasks, rounds and conditions.
        build: the build folder with the caffe programs.
        stock: whether stock Caffe is measured; it computes on the CPU only.
        torch: a Python with torch; None: PyTorch is not measured.
        keep: called with the result so far after each net.

    Returns:
        settings, machine (torch_memory: resident bytes of PyTorch without a net), not_measured ({column: reason}) and
        nets, for each case and task: model, batch, parameters, task and measured by way ("ours", "torch TF32", ...):
            ms, images_per_second: {"best", "median"}
            rounds: [{"ms", "iterations"}]
            memory: peak bytes, of the process on the CPU, of the GPU's growth on a GPU; None if unknown
            ours_over_this: our images per second over theirs, of the best rounds and as the median of the ratios

    Raises:
        BenchmarkError: a program is missing or fails, a value is not finite, or stock Caffe computes another net.
    """
    stock = stock and settings.gpu is None
    paths = programs.find(build, stock)
    missing = {} if torch else {"torch": programs.NO_TORCH}
    if not stock:
        missing["stock"] = "--no-stock was given" if settings.gpu is None else "it is built for the CPU only"
    gpu = None if settings.gpu is None else gpu_memory.name(settings.gpu)
    if settings.gpu is not None and gpu is None:
        missing["memory"] = f"nvidia-smi does not report GPU {settings.gpu}"
    names = ["ours", *(["torch"] if torch else []), *(["stock"] if stock else [])]
    ways = [(name, tf32) for tf32 in settings.tf32 for name in names]
    machine = {**programs.machine(), "gpu": gpu, "torch": None, "torch_memory": None}
    result: dict[str, Any] = {"settings": vars(settings), "machine": machine, "nets": [], "not_measured": missing}
    rounds = range(settings.rounds)
    turns = [(case, task, n, way) for case in cases for task in settings.tasks for n in rounds for way in ways]
    found: dict[str, list[tuple[Round, int | None]]] = defaultdict(list)
    for case, task, number, (program, tf32) in tables.progress(turns, lambda turn: _name(turn, settings.rounds)):
        with ExitStack() as stack:
            peak = stack.enter_context(gpu_memory.Peak(settings.gpu)) if gpu else None
            how = _how(settings, tf32)
            if program == "torch":
                measured = programs.torch(torch, case, task, how)
                machine.update(torch=measured.version, torch_memory=measured.library)
            else:
                measured = programs.caffe(paths[program], case, task, case[task][program], how)
        memory = measured.memory if settings.gpu is None else peak.bytes if peak else None
        found[_way(program, tf32)].append((measured, memory))
        if (number, (program, tf32)) == (settings.rounds - 1, ways[-1]):
            result["nets"].append(row(case, task, found))
            found.clear()
            keep(result)
    return result


def _way(program: str, tf32: bool) -> str:
    return f"{program} TF32" if tf32 else program


def _name(turn: Any, rounds: int) -> str:
    case, task, number, way = turn
    return f"{case['model']}, batch {case['batch']}, {task}, round {number + 1} of {rounds}, {_way(*way)}"


def _how(settings: Settings, tf32: bool) -> How:
    same = {name: getattr(settings, name) for name in ("threads", "iterations", "seconds", "gpu", "deterministic")}
    return How(warm_up=WARM_UP["CPU" if settings.gpu is None else "GPU"], tf32=tf32, **same)


def row(case: dict[str, Any], task: str, found: dict[str, list[tuple[Round, int | None]]]) -> dict[str, Any]:
    """Return the measurements of a net in a task, of all ways.

    Raises:
        BenchmarkError: probabilities do not add up to the batch, or stock Caffe's first loss is different from ours.
    """
    measured: dict[str, dict[str, Any]] = {}
    for way, rounds in found.items():
        program, _, rounding = way.partition(" ")
        for one, (mine, _) in zip(rounds, found[f"ours {rounding}".strip()]):
            _check(case, task, program, one[0].value, mine.value)
        times, peaks = [one.ms for one, _ in rounds], [peak for _, peak in rounds]
        ms = over_rounds(times)
        measured[way] = {
            "ms": ms,
            "images_per_second": {name: 1000 * case["batch"] / value for name, value in ms.items()},
            "rounds": [{"ms": one.ms, "iterations": one.iterations} for one, _ in rounds],
            "memory": None if None in peaks else max(peaks),
        }
        if program != "ours":
            ours = [one.ms for one, _ in found[f"ours {rounding}".strip()]]
            ratios = [other / our for other, our in zip(times, ours)]
            measured[way]["ours_over_this"] = {"best": min(times) / min(ours), "median": statistics.median(ratios)}
    return {**{key: case[key] for key in ("model", "batch", "parameters")}, "task": task, "measured": measured}


def _check(case: dict[str, Any], task: str, program: str, value: float, ours: float) -> None:
    what = f"{case['model']}, {task}"
    if task == "inference" and abs(value - case["batch"]) > SAME * case["batch"]:
        raise BenchmarkError(f"{what}: the probabilities of {case['batch']} images add up to {value:g} in {program}")
    if task == "training" and program == "stock" and abs(value - ours) > SAME * abs(ours):
        raise BenchmarkError(f"{what}: expected our first loss, {ours:g}, in stock Caffe, got {value:g}")
