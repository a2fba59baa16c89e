"""Whole nets by our caffe program, stock Caffe's and PyTorch, side by side: what `tools/benchmark.py nets` measures.

Needs the cases of `net_cases` and the programs alone, no pycaffe. Each round of each program is a process of its own,
so that each has its own peak of memory, and the programs take turns: ours, PyTorch, stock, ours ... What disturbs the
machine hits all alike. Of the rounds' times a result has the minimum ("best") and the median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import gpu_memory, net_programs, timing
from benchmarks.net_programs import TASKS, How, Round
from benchmarks.timing import over_rounds
from tiny_imagenet.errors import BenchmarkError, GpuError

SAME = 0.01  # by what share our first loss and stock Caffe's may differ: both begin with the same weights and images
WARM_UP = {"CPU": 2, "GPU": 20}  # iterations: memory comes in the first two; a GPU chooses its algorithms too


@dataclass(frozen=True)
class Settings:
    """How much is measured, and on what.

    Attributes:
        threads: of the CPU.
        tasks: those of TASKS that are measured.
        rounds: times that are taken of each program.
        iterations: that one time is the mean of; None for as many as take `seconds`.
        seconds: see there.
        gpu: the number of the GPU, None for the CPU.
        tf32: what products round their factors to, each measured by itself: TF32 (True) and float32 (False).
        deterministic: whether only what gives the same bits in every run is allowed.
        void: what is measured is too small for its figures to mean anything.
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


class Way(NamedTuple):
    """A program and how it rounds."""

    program: str  # "ours", "torch", "stock"
    tf32: bool

    def __str__(self) -> str:
        return f"{self.program}{' TF32' if self.tf32 else ''}"


def nets(
    cases: Iterable[dict[str, Any]],
    settings: Settings,
    build: Path,
    torch: str | None = None,
    stock: bool = True,
    shown: Callable[[list[Any], Callable[[Any], str]], Iterable[Any]] = lambda turns, name: turns,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Measure nets.

    Args:
        cases: those of `net_cases`.
        settings: how.
        build: the folder with the caffe programs; stock Caffe is built in it where it is missing.
        torch: a Python that has torch; None leaves PyTorch out.
        stock: False leaves stock Caffe out; it computes on the CPU alone.
        shown: gives the turns one after the other and shows their names on the way.
        keep: is given the result after each net, as far as it is.

    Returns:
        settings, machine (torch_memory: bytes that were resident of PyTorch before it had a net), not_measured
        (columns: why) and nets: of each case and task model, batch, parameters, task and measured, by way ("ours",
        "torch TF32", ...):
            ms, images_per_second: {"best", "median"}
            rounds: [{"ms", "iterations"}]
            memory: bytes at the peak: of the process, on the CPU; what the GPU's memory grew, or None where the driver
                does not say
            ours_over_this: of the others, our images a second as a multiple of theirs: "best" of the best rounds,
                "median" of the ratios round by round

    Raises:
        BenchmarkError: a program is missing or fails, computes what is not finite, or has another net than ours.
        GpuError: there is no such GPU.
    """
    stock = stock and settings.gpu is None
    programs = {"ours": timing.program(build, timing.OURS)}
    if stock:
        programs["stock"] = timing.program(build, timing.STOCK)
    memory, problem = _memory(settings.gpu)
    names = [name for name, there in (("ours", True), ("torch", torch), ("stock", stock)) if there]
    ways = [Way(name, tf32) for tf32 in settings.tf32 for name in names]
    turns = [
        (case, task, number, way)
        for case in cases
        for task in settings.tasks
        for number in range(settings.rounds)
        for way in ways
    ]
    result: dict[str, Any] = {
        "settings": vars(settings),
        "machine": {**timing.machine(), "gpu": memory.name if memory else None, "torch": None, "torch_memory": None},
        "nets": [],
        "not_measured": {**_left_out(torch, stock, settings.gpu), **problem},
    }
    found: dict[str, list[tuple[Round, int | None]]] = {}
    for case, task, number, way in shown(turns, lambda turn: _name(turn, settings.rounds)):
        with ExitStack() as stack:
            peak = stack.enter_context(gpu_memory.Peak(memory)) if memory else None
            if way.program == "torch":
                measured = net_programs.torch(torch or "", case, task, _how(settings, way.tf32))
                result["machine"].update(torch=measured.version, torch_memory=measured.library)
            else:
                text, how = case[task][way.program], _how(settings, way.tf32)
                measured = net_programs.caffe(programs[way.program], case, text, task, how)
        grown = measured.memory if settings.gpu is None else peak.bytes if peak else None
        found.setdefault(str(way), []).append((measured, grown))
        if (number, way) == (settings.rounds - 1, ways[-1]):
            result["nets"].append(_row(case, task, found))
            found = {}
            keep(result)
    return result


def _name(turn: Any, rounds: int) -> str:
    case, task, number, way = turn
    return f"{case['model']}, batch {case['batch']}, {task}, round {number + 1} of {rounds}, {way}"


def _memory(gpu: int | None) -> tuple[gpu_memory.Memory | None, dict[str, str]]:
    """What tells of the GPU's memory; where nothing does, why."""
    if gpu is None:
        return None, {}
    try:
        return gpu_memory.Memory(gpu), {}
    except GpuError as error:
        return None, {"memory": str(error)}


def _left_out(torch: str | None, stock: bool, gpu: int | None) -> dict[str, str]:
    why = {} if torch else {"torch": timing.NO_TORCH}
    if not stock:
        why["stock"] = "left out with --no-stock" if gpu is None else "it is built for the CPU alone"
    return why


def _how(settings: Settings, tf32: bool) -> How:
    same = {name: getattr(settings, name) for name in ("threads", "iterations", "seconds", "gpu", "deterministic")}
    return How(warm_up=WARM_UP["CPU" if settings.gpu is None else "GPU"], tf32=tf32, **same)


def _row(case: dict[str, Any], task: str, found: dict[str, list[tuple[Round, int | None]]]) -> dict[str, Any]:
    """A net's measurements of a task.

    Raises:
        BenchmarkError: what ours and stock Caffe compute is not the same.
    """
    _check(case, task, {way: [measured.value for measured, _ in rounds] for way, rounds in found.items()})
    times = {way: [measured.ms for measured, _ in rounds] for way, rounds in found.items()}
    row = {key: case[key] for key in ("model", "batch", "parameters")}
    row.update(task=task, measured=_rates(case["batch"], times))
    for way, rounds in found.items():
        of_rounds = [{"ms": measured.ms, "iterations": measured.iterations} for measured, _ in rounds]
        peaks = [grown for _, grown in rounds]
        row["measured"][way].update(rounds=of_rounds, memory=None if None in peaks else max(peaks))
    return row


def _check(case: dict[str, Any], task: str, values: dict[str, list[float]]) -> None:
    """Probabilities have a sum of 1 an image; our first loss and stock Caffe's are the same."""
    name = f"{case['model']}, {task}"
    for way, computed in values.items():
        for value in computed:
            if task == "inference" and abs(value - case["batch"]) > SAME * case["batch"]:
                raise BenchmarkError(f"{name}: {way}'s probabilities of {case['batch']} images have a sum of {value:g}")
            ours = values["ours"][0]
            if task == "training" and way == "stock" and abs(value - ours) > SAME * abs(ours):
                raise BenchmarkError(f"{name}: stock Caffe's first loss is {value:g}, ours {ours:g}: not the same net")


def _rates(batch: int, times: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Of {way: milliseconds, round by round} the statistics, images a second, and ours as a multiple of the others'."""
    measured: dict[str, dict[str, Any]] = {}
    for way, values in times.items():
        ms = over_rounds(values)
        measured[way] = {"ms": ms, "images_per_second": {name: 1000 * batch / value for name, value in ms.items()}}
        program, _, rounding = way.partition(" ")
        ours = times["ours" + (f" {rounding}" if rounding else "")]
        if program != "ours":
            ratios = [other / our for other, our in zip(values, ours)]
            best = min(values) / min(ours)
            measured[way]["ours_over_this"] = {"best": best, "median": statistics.median(ratios)}
    return measured
