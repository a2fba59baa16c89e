"""Where a net's time goes, layer by layer, in our program and in stock Caffe: `tools/benchmark.py where`.

Each layer's time stands beside what the machine could do at most, measured in the same rounds: the products and sums a
second of a large sgemm of the BLAS that both programs use, and the bytes a second of a large copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import layer_work, net_programs, timing
from benchmarks.layer_work import PASSES, Work
from benchmarks.net_programs import How
from benchmarks.timing import over_rounds

_SGEMM = """type: "InnerProduct"
  inner_product_param {{ num_output: {side} bias_term: false weight_filler {{ type: "gaussian" }} }}"""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        threads: of the CPU.
        rounds: times that are taken of each program.
        iterations: that one time is the mean of.
        sgemm: rows and columns of the matrices whose product tells the machine's limit.
        copy: bytes of the array whose copies tell the other, a multiple of 1024.
        void: what is measured is too small for its figures to mean anything.
    """

    threads: int
    rounds: int = 3
    iterations: int = 3
    sgemm: int = 2048
    copy: int = 256 << 20
    void: bool = False


def layers(
    case: dict[str, Any],
    settings: Settings,
    build: Path,
    stock: bool = True,
    shown: Callable[[list[Any], Callable[[Any], str]], Iterable[Any]] = lambda turns, name: turns,
) -> dict[str, Any]:
    """Measure the layers of a net, forward and backward, in training.

    Args:
        case: one of `net_cases`.
        settings: how.
        build: the folder with the caffe programs; stock Caffe is built in it where it is missing.
        stock: False leaves stock Caffe out.
        shown: gives the turns one after the other and shows their names on the way.

    Returns:
        settings, machine, model, batch, not_measured (programs: why),
        limits: {"sgemm": floating-point operations a second, "copy": bytes a second, read and written ones}, at best
        layers: of each name, type, shape, flop and bytes ({"forward", "backward"}) and measured, by program:
            ms: {"forward": {"best", "median"}, "backward": {...}}
            sgemm, copy: what share of the limits it reaches in both passes together; best rounds
        kinds: the same summed over the layers of a type and both passes: type, flop, bytes and measured: ms (a number,
            of the best rounds), sgemm, copy
        iteration: by program, milliseconds {"best", "median"} of an iteration of training, update included

    Raises:
        BenchmarkError: a program is missing, does not build or fails.
    """
    programs = {"ours": timing.program(build, timing.OURS)}
    if stock:
        programs["stock"] = timing.program(build, timing.STOCK)
    work = layer_work.of_net(case["training"]["ours"])
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    iterations: dict[str, list[float]] = defaultdict(list)
    products, copies = [], []
    copier = timing.Copier(settings.copy, settings.threads)
    turns = [(number, what) for number in range(settings.rounds) for what in ("the machine's limits", *programs)]
    for _, what in shown(turns, lambda turn: f"round {turn[0] + 1} of {settings.rounds}, {turn[1]}"):
        if what in programs:
            text = case["training"][what]
            found = timing.net_times(programs[what], text, settings.iterations, settings.threads)
            for layer in work:
                for direction in PASSES:
                    times[what, layer.name, direction].append(found[layer.name][direction])
            how = How(settings.threads, 2, settings.iterations, 0)
            iterations[what].append(net_programs.caffe(programs[what], case, text, "training", how).ms)
        else:
            products.append(_product_time(programs["ours"], settings))
            ways = timing.copy_times(programs["ours"], copier, settings.iterations, settings.threads)
            copies.append(min(ways.values()))
    limits = {"sgemm": 2000 * settings.sgemm**3 / min(products), "copy": 2000 * settings.copy / min(copies)}
    rows = [_layer(layer, programs, times, limits) for layer in work]
    return {
        "settings": vars(settings),
        "machine": timing.machine(),
        "model": case["model"],
        "batch": case["batch"],
        "limits": limits,
        "layers": rows,
        "kinds": _kinds(rows, programs, limits),
        "iteration": {program: over_rounds(values) for program, values in iterations.items()},
        "not_measured": {} if stock else {"stock": "left out with --no-stock"},
    }


def _product_time(program: Path, settings: Settings) -> float:
    """Milliseconds of a product of two square matrices: forward takes one, backward two."""
    shape = settings.sgemm, settings.sgemm
    layer = _SGEMM.format(side=settings.sgemm)
    found = timing.caffe_times(program, layer, shape, False, settings.iterations, settings.threads)
    return min(found["forward"], found["backward"] / 2)


def _layer(
    work: Work, programs: Iterable[str], times: dict[tuple[str, str, str], list[float]], limits: dict[str, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {**work._asdict(), "measured": {}}
    for program in programs:
        ms = {direction: over_rounds(times[program, work.name, direction]) for direction in PASSES}
        best = sum(value["best"] for value in ms.values())
        shares = _shares(sum(work.flop.values()), sum(work.bytes.values()), best, limits)
        row["measured"][program] = {"ms": ms, **shares}
    return row


def _shares(flop: int, moved: int, ms: float, limits: dict[str, float]) -> dict[str, float]:
    seconds = max(ms, 1e-3) / 1000  # below the clock's microsecond
    return {"sgemm": flop / seconds / limits["sgemm"], "copy": moved / seconds / limits["copy"]}


def _kinds(rows: list[dict[str, Any]], programs: Iterable[str], limits: dict[str, float]) -> list[dict[str, Any]]:
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["type"]].append(row)
    sums = []
    for kind, members in kinds.items():
        flop, moved = (sum(sum(row[key].values()) for row in members) for key in ("flop", "bytes"))
        entry: dict[str, Any] = {"type": kind, "flop": flop, "bytes": moved, "measured": {}}
        for program in programs:
            ms = sum(value["best"] for row in members for value in row["measured"][program]["ms"].values())
            entry["measured"][program] = {"ms": ms, **_shares(flop, moved, ms, limits)}
        sums.append(entry)
    return sums
