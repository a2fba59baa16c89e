"""Time of each layer of a net, in our program and in stock Caffe: `tools/benchmark.py where`.

Each layer is compared with two limits of the machine, measured in the same rounds: the floating-point operations per
second of a large sgemm by the BLAS that both programs use, and the bytes per second of a large copy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from benchmarks import programs, tables
from benchmarks.programs import PASSES, over_rounds
from tiny_imagenet.inspect import outline

_SGEMM = """type: "InnerProduct"
  inner_product_param {{ num_output: {side} bias_term: false weight_filler {{ type: "gaussian" }} }}"""
_READS_BOTTOM = {"Convolution", "InnerProduct", "ReLU", "LReLU", "PReLU"}  # in the backward pass
_KEEPS = {"Dropout", "SoftmaxWithLoss"}  # an array of its bottom's size: a mask, probabilities


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        threads: CPU threads.
        rounds: measurements of each program.
        iterations: iterations per measurement.
        sgemm: rows and columns of the matrices of the sgemm.
        copy: bytes of the array that is copied, a multiple of 1024.
        void: whether too little is measured for the figures to mean anything.
    """

    threads: int
    rounds: int = 3
    iterations: int = 3
    sgemm: int = 2048
    copy: int = 256 << 20
    void: bool = False


class Work(NamedTuple):
    """The work of a layer.

    Attributes:
        name, type, shape: the layer's, and of its first top.
        flop: multiplications and additions per pass, by the layer's definition.
        bytes: float32 values read and written per pass, each array once.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    flop: Mapping[str, int]
    bytes: Mapping[str, int]


def work_of(prototxt: str) -> list[Work]:
    """Return the work of the layers of a training net that a gradient reaches.

    Raises:
        NetError: Caffe rejects the net.
    """
    found = outline.outline(text_format.Parse(prototxt, caffe_pb2.NetParameter()), "TRAIN")
    learned: set[str] = set()  # blobs that depend on learned parameters
    sizes: dict[str, int] = {}
    works = []
    for layer, message in zip(found.layers, found.net.layer):
        read = sum(sizes[name] for name in layer.bottoms)
        gradients = sum(sizes[name] for name in layer.bottoms if name in learned)
        sizes.update((name, math.prod(shape)) for name, shape in zip(layer.tops, layer.shapes or ()))
        rates = [spec.lr_mult for spec in message.param]
        learns = any(rates[i] if i < len(rates) else 1 for i in range(len(layer.parameters)))
        if not gradients and not learns:
            continue
        learned.update(layer.tops)
        written, parameters = sum(sizes[name] for name in layer.tops), sum(map(math.prod, layer.parameters))
        keeps = layer.type in _KEEPS or (layer.type == "PReLU" and layer.in_place)
        kept = read if keeps else 0
        passes = 2 if gradients else 1  # over the parameters, in the backward pass
        forward = read + written + parameters + kept
        backward = written + (read if layer.type in _READS_BOTTOM else kept) + gradients + passes * parameters
        flop = 2 * (layer.multiply_adds or 0)
        moved = {"forward": 4 * forward, "backward": 4 * backward}
        works.append(Work(layer.name, layer.type, layer.shapes[0], {"forward": flop, "backward": passes * flop}, moved))
    return works


def measure(case: dict[str, Any], settings: Settings, build: Path, stock: bool = True) -> dict[str, Any]:
    """Measure the layers of a net in training.

    Args:
        case: of `cases`.
        settings: how much is measured.
        build: the build folder with the caffe programs.
        stock: whether stock Caffe is measured.

    Returns:
        settings, machine, model, batch, not_measured ({program: reason}),
        limits: {"sgemm": operations per second, "copy": bytes per second}, of the best round
        layers: name, type, shape, flop and bytes ({"forward", "backward"}) and measured by program:
            ms: {"forward": {"best", "median"}, "backward": {...}}
            sgemm, copy: share of the limits in both passes together, of the best rounds
        kinds: sums over the layers of a type: type, flop, bytes and measured: ms (of the best rounds), sgemm, copy
        iteration: {program: {"best", "median"}}, milliseconds of an iteration with its update

    Raises:
        BenchmarkError: a program is missing, does not build or fails.
    """
    paths = programs.find(build, stock)
    how = programs.How(settings.threads, iterations=settings.iterations)
    work = work_of(case["training"]["ours"])
    times: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    iterations: dict[str, list[float]] = defaultdict(list)
    products, copies = [], []
    copier = programs.Copier(settings.copy, how)
    turns = [(number, what) for number in range(settings.rounds) for what in ("limits", *paths)]
    for _, what in tables.progress(turns, lambda turn: f"round {turn[0] + 1} of {settings.rounds}, {turn[1]}"):
        if what == "limits":
            layer, shape = _SGEMM.format(side=settings.sgemm), (settings.sgemm, settings.sgemm)
            found = programs.layer_times(paths["ours"], layer, shape, False, how)
            products.append(min(found["forward"], found["backward"] / 2))
            copies.append(min(copier.times(paths["ours"]).values()))
            continue
        found = programs.net_times(paths[what], case["training"][what], how)
        for layer in work:
            for direction in PASSES:
                times[what, layer.name, direction].append(found[layer.name][direction])
        iterations[what].append(programs.caffe(paths[what], case, "training", case["training"][what], how).ms)
    limits = {"sgemm": 2000 * settings.sgemm**3 / min(products), "copy": 2000 * settings.copy / min(copies)}
    rows = [_layer(layer, paths, times, limits) for layer in work]
    return {
        "settings": vars(settings),
        "machine": programs.machine(),
        "model": case["model"],
        "batch": case["batch"],
        "limits": limits,
        "layers": rows,
        "kinds": _kinds(rows, limits),
        "iteration": {program: over_rounds(values) for program, values in iterations.items()},
        "not_measured": {} if stock else {"stock": "--no-stock was given"},
    }


def _layer(
    work: Work, paths: dict[str, Path], times: dict[Any, list[float]], limits: dict[str, float]
) -> dict[str, Any]:
    row: dict[str, Any] = {**work._asdict(), "measured": {}}
    for program in paths:
        ms = {direction: over_rounds(times[program, work.name, direction]) for direction in PASSES}
        best = sum(value["best"] for value in ms.values())
        shares = _shares(sum(work.flop.values()), sum(work.bytes.values()), best, limits)
        row["measured"][program] = {"ms": ms, **shares}
    return row


def _kinds(rows: list[dict[str, Any]], limits: dict[str, float]) -> list[dict[str, Any]]:
    sums = []
    for kind in dict.fromkeys(row["type"] for row in rows):
        members = [row for row in rows if row["type"] == kind]
        flop, moved = (sum(sum(row[key].values()) for row in members) for key in ("flop", "bytes"))
        entry: dict[str, Any] = {"type": kind, "flop": flop, "bytes": moved, "measured": {}}
        for program in members[0]["measured"]:
            ms = sum(value["best"] for row in members for value in row["measured"][program]["ms"].values())
            entry["measured"][program] = {"ms": ms, **_shares(flop, moved, ms, limits)}
        sums.append(entry)
    return sums


def _shares(flop: int, moved: int, ms: float, limits: dict[str, float]) -> dict[str, float]:
    seconds = max(ms, 1e-3) / 1000  # the clock counts microseconds
    return {"sgemm": flop / seconds / limits["sgemm"], "copy": moved / seconds / limits["copy"]}
