"""Our layers beside upstream's and PyTorch's, in one run on one machine: what tools/benchmark.py measures.

All that is compared is measured in turns, round after round, so that a disturbance hits all alike. Of the rounds' times
a result has the minimum ("best") and the median, and rates, shares and ratios of each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data_timing, timing
from benchmarks.timing import STATISTICS, over_rounds
from tiny_imagenet import cli

PROGRAMS = ("ours", "stock", "torch")
PASSES = ("forward", "backward")

# Our layer, and upstream's that computes the same.
_PROTOTXT = {
    "PReLU": {"ours": 'type: "PReLU"', "stock": 'type: "PReLU"'},
    "LReLU": {"ours": 'type: "LReLU"', "stock": 'type: "ReLU" relu_param { negative_slope: 0.01 }'},
}


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Args:
        images: the shapes of blobs without their first axis, the batch.
        iterations: that one time is the mean of.
        copy: bytes of the array whose copies tell the machine's bandwidth, a multiple of 1024.
        records: images in each LMDB.
        batches: of images that one time of a data layer is the mean of.
        void: what is measured is too small for its figures to mean anything.
    """

    threads: int
    batch: int = 200
    rounds: int = 5
    iterations: int = 5
    images: tuple[tuple[int, ...], ...] = ((64, 56, 56), (256, 14, 14), (512, 7, 7), (4096,))
    copy: int = 256 << 20
    records: int = 4000
    batches: int = 50
    void: bool = False


class Case(NamedTuple):
    """A layer on a blob."""

    layer: str
    shape: tuple[int, ...]
    in_place: bool

    def bytes(self, direction: str) -> int:
        """Bytes of float32 that a pass has to read and to write."""
        size = 4
        for axis in self.shape:
            size *= axis
        if direction == "backward":
            return 3 * size  # x, dy, dx
        return (3 if self.layer == "PReLU" and self.in_place else 2) * size  # x, y and the copy that keeps x


def layers(settings: Settings, build: Path, stock: bool = True, torch: str | None = None) -> dict[str, Any]:
    """Measure PReLU, LReLU and CropData.

    Args:
        settings: how much.
        build: the CMake build folder with the caffe programs; stock Caffe is built in it where it is missing.
        stock: False leaves stock Caffe out.
        torch: a Python that has torch; None leaves PyTorch out.

    Returns:
        settings, machine, copy (of all turns), rectifiers and data (rows), not_measured (columns: why).

    Raises:
        BenchmarkError: a program is missing, does not build or fails.
    """
    programs = {"ours": timing.program(build, timing.OURS)}
    if stock:
        programs["stock"] = timing.program(build, timing.STOCK)
    with ExitStack() as stack:
        worker = stack.enter_context(timing.Torch(torch, settings.threads)) if torch else None
        times, copies = _time_rectifiers(settings, programs, worker)
        version = worker.version if worker else None
    return {
        "settings": vars(settings),
        "machine": {**timing.machine(), "torch": version},
        "copy": _bandwidth(settings.copy, _together(copies.values())),
        "rectifiers": [
            _rectifier_row(key, found, _bandwidth(settings.copy, copies[key[0]])["bandwidth"])
            for key, found in times.items()
        ],
        "data": _data_rows(settings, _time_data(settings)),
        "not_measured": _not_measured(stock, torch),
    }


def _time_rectifiers(
    settings: Settings, programs: dict[str, Path], worker: timing.Torch | None
) -> tuple[dict[tuple[Case, str], dict[str, list[float]]], dict[Case, dict[str, list[float]]]]:
    """Milliseconds of {(case, pass): {program: [...]}}, and of the copies in their turns {case: {way: [...]}}."""
    cases = [
        Case(layer, (settings.batch, *image), in_place)
        for layer in _PROTOTXT
        for image in settings.images
        for in_place in (False, True)
    ]
    times: dict[tuple[Case, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    copies: dict[Case, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    copier = timing.Copier(settings.copy, settings.threads)
    for case in _rounds(settings, cases, "PReLU, LReLU"):
        for name, path in programs.items():
            found = timing.caffe_times(
                path, _PROTOTXT[case.layer][name], *case[1:], settings.iterations, settings.threads
            )
            for direction in PASSES:
                times[case, direction][name].append(found[direction])
        if worker and not (case.layer == "PReLU" and case.in_place):
            found = worker.times(*case, settings.iterations)
            for direction in PASSES:
                times[case, direction]["torch"].append(found[direction])
        for way, ms in timing.copy_times(programs["ours"], copier, settings.iterations, settings.threads).items():
            copies[case][way].append(ms)
        if worker:
            copies[case]["torch"].append(worker.copy_time(copier.size, settings.iterations))
    return times, copies


def _time_data(settings: Settings) -> dict[tuple[str, data_timing.Reader], dict[str, list[float]]]:
    """Milliseconds a batch, {(records, reader): {"ms" | "cpu_ms": [...]}}."""
    cases = [(records, reader) for records in data_timing.RECORDS for reader in data_timing.READERS]
    times: dict[tuple[str, data_timing.Reader], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with data_timing.databases(settings.records) as folder:
        for case in _rounds(settings, cases, "CropData"):
            for clock, ms in data_timing.batch_times(folder, *case, settings.batch, settings.batches).items():
                times[case][clock].append(ms)
    return times


def _rounds(settings: Settings, cases: list[Any], what: str) -> Iterable[Any]:
    return cli.track(settings.rounds * cases, settings.rounds * len(cases), what)


def _together(copies: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The times of several cases' copies as those of one."""
    together: dict[str, list[float]] = defaultdict(list)
    for ways in copies:
        for way, times in ways.items():
            together[way] += times
    return together


def _bandwidth(size: int, copies: dict[str, list[float]]) -> dict[str, Any]:
    """What the copies tell; bandwidth in bytes a second, read and written ones, of the best way.

    Ways: numpy's (whole, blocks; timing.Copier), PyTorch's, and a layer whose slope of 1 makes it a copy. The last is
    our own kernel, so that no way of writing that our layers have is missing from what they are compared with.
    """
    ways = {way: over_rounds(values) for way, values in copies.items()}
    best = {name: min(ways, key=lambda way: ways[way][name]) for name in STATISTICS}
    return {
        "bytes": 2 * size,
        "ms": ways,
        "best": best,
        "bandwidth": {name: 2 * size / ways[way][name] * 1000 for name, way in best.items()},
    }


def _rectifier_row(key: tuple[Case, str], times: dict[str, list[float]], bandwidth: dict[str, float]) -> dict[str, Any]:
    """A pass of a layer: of each program milliseconds, share of the bandwidth, and our time as a share of its time.

    The bandwidth is that of the copies made in the case's own turns: what disturbed one disturbed the other.
    """
    case, direction = key
    row: dict[str, Any] = {**case._asdict(), "pass": direction, "bytes": case.bytes(direction)}
    row["bandwidth"], row["measured"] = bandwidth, {}
    for program in PROGRAMS:
        if program not in times:
            row["measured"][program] = None
            continue
        ms, ours = over_rounds(times[program]), over_rounds(times["ours"])
        row["measured"][program] = {
            "ms": ms,
            "share": {name: row["bytes"] / (ms[name] / 1000) / bandwidth[name] for name in STATISTICS},
            "ours_over_this": {name: ours[name] / ms[name] for name in STATISTICS},
        }
    return row


def _data_rows(settings: Settings, times: dict[Any, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """A data layer: milliseconds a batch, images a second and images a second of one core."""
    rows = []
    for (records, reader), found in times.items():
        ms, cpu = over_rounds(found["ms"]), over_rounds(found["cpu_ms"])
        rows.append(
            {
                "records": records,
                "layer": reader.layer,
                "threads": reader.threads or None,  # None: as many as the layer takes by itself
                "ms": ms,
                "cpu_ms": cpu,
                "images_per_second": {name: 1000 * settings.batch / ms[name] for name in STATISTICS},
                "images_per_core_second": {name: 1000 * settings.batch / cpu[name] for name in STATISTICS},
            }
        )
    stock = {row["records"]: row for row in rows if row["layer"] == "Data"}
    for row in rows:
        row["times_data"] = {
            name: row["images_per_core_second"][name] / stock[row["records"]]["images_per_core_second"][name]
            for name in STATISTICS
        }
    return rows


def _not_measured(stock: bool, torch: str | None) -> dict[str, str]:
    why = {}
    if not stock:
        why["stock"] = "left out with --no-stock"
    if not torch:
        why["torch"] = timing.NO_TORCH
    return why
