"""PReLU, LReLU and CropData against stock Caffe and PyTorch: `tools/benchmark.py layers`.

Programs take turns, round after round, so that a disturbance of the machine affects all of them. Results contain the
minimum ("best") and the median over the rounds, and rates, shares and ratios of each.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import caffe
import cv2
import lmdb
import numpy as np

from benchmarks import programs
from benchmarks.programs import PASSES, STATISTICS, over_rounds
from tiny_imagenet import cli
from tiny_imagenet.data import datum

PROGRAMS = ("ours", "stock", "torch")
RECORDS = ("raw", "JPEG")
READERS = (("CropData", 1), ("CropData", None), ("Data", 1))  # layer and threads; None: the layer's default
SIZE, CROP = 64, 56  # pixels
_AHEAD = 4  # batches that both data layers prefetch

_PROTOTXT = {  # our layer, and upstream's that computes the same
    "PReLU": {"ours": 'type: "PReLU"', "stock": 'type: "PReLU"'},
    "LReLU": {"ours": 'type: "LReLU"', "stock": 'type: "ReLU" relu_param { negative_slope: 0.01 }'},
}
_DATA_NET = """
layer {{ name: "data" type: "{layer}" top: "data" top: "label"
  transform_param {{ crop_size: {crop} mirror: true mean_file: "{folder}/mean.binaryproto" }}
  {name} {{ source: "{folder}/{records}.lmdb" batch_size: {batch} {more} }} }}
"""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        threads: CPU threads.
        batch, images: the first axis of the blobs and their other axes.
        rounds: measurements of each program.
        iterations: iterations per measurement.
        copy: bytes of the array that measures the bandwidth, a multiple of 1024.
        records, batches: images in each LMDB; batches per measurement of a data layer.
        void: whether the blobs are too small for the figures to mean anything.
    """

    threads: int
    batch: int = 200
    images: tuple[tuple[int, ...], ...] = ((64, 56, 56), (256, 14, 14), (512, 7, 7), (4096,))
    rounds: int = 5
    iterations: int = 5
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
        """Return the bytes of float32 that a pass must read and write."""
        keeps_x = self.layer == "PReLU" and self.in_place
        arrays = 3 if direction == "backward" or keeps_x else 2  # x, dy, dx, or x, y and a copy of x
        return arrays * 4 * int(np.prod(self.shape))


def measure(settings: Settings, build: Path, stock: bool = True, torch: str | None = None) -> dict[str, Any]:
    """Measure the layers.

    Args:
        settings: how much.
        build: the build folder with the caffe programs.
        stock: whether stock Caffe is measured.
        torch: a Python with torch; None: PyTorch is not measured.

    Returns:
        settings, machine, copy (the bandwidth), rectifiers and data (rows), not_measured ({column: reason}).

    Raises:
        BenchmarkError: a program is missing, does not build or fails.
    """
    paths = programs.find(build, stock)
    how = programs.How(settings.threads, iterations=settings.iterations)
    with ExitStack() as stack:
        worker = stack.enter_context(programs.Torch(torch, settings.threads)) if torch else None
        times, copies = _time_rectifiers(settings, paths, how, worker)
    rows = [rectifier_row(*key, found, _bandwidth(settings, copies[key[0]])) for key, found in times.items()]
    every: dict[str, list[float]] = defaultdict(list)
    for ways in copies.values():
        for way, values in ways.items():
            every[way] += values
    ways = {way: over_rounds(values) for way, values in every.items()}
    return {
        "settings": vars(settings),
        "machine": {**programs.machine(), "torch": worker.version if worker else None},
        "copy": {"bytes": 2 * settings.copy, "ms": ways, "bandwidth": _bandwidth(settings, every)},
        "rectifiers": rows,
        "data": _data_rows(settings),
        "not_measured": {
            **({} if stock else {"stock": "--no-stock was given"}),
            **({} if torch else {"torch": programs.NO_TORCH}),
        },
    }


def _time_rectifiers(
    settings: Settings, paths: dict[str, Path], how: programs.How, worker: programs.Torch | None
) -> tuple[dict[tuple[Case, str], dict[str, list[float]]], dict[Case, dict[str, list[float]]]]:
    """Times {(case, pass): {program: [...]}}, and of the copies in the same rounds {case: {way: [...]}}."""
    shapes = [(settings.batch, *image) for image in settings.images]
    cases = [Case(layer, shape, in_place) for layer in _PROTOTXT for shape in shapes for in_place in (False, True)]
    times: dict[tuple[Case, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    copies: dict[Case, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    copier = programs.Copier(settings.copy, how)
    for case in cli.track(settings.rounds * cases, settings.rounds * len(cases), "PReLU, LReLU"):
        found = {
            name: programs.layer_times(path, _PROTOTXT[case.layer][name], *case[1:], how)
            for name, path in paths.items()
        }
        if worker and not (case.layer == "PReLU" and case.in_place):  # PyTorch has no PReLU in place
            found["torch"] = worker.ask(**case._asdict(), iterations=settings.iterations)
        for name, ms in found.items():
            for direction in PASSES:
                times[case, direction][name].append(ms[direction])
        ways = copier.times(paths["ours"])
        if worker:
            ways["torch"] = worker.ask(copy=settings.copy, iterations=settings.iterations)["ms"]
        for way, ms in ways.items():
            copies[case][way].append(ms)
    return times, copies


def _bandwidth(settings: Settings, copies: dict[str, list[float]]) -> dict[str, float]:
    """Bytes per second, read and written, of the fastest way to copy."""
    best = {name: min(over_rounds(values)[name] for values in copies.values()) for name in STATISTICS}
    return {name: 2 * settings.copy / ms * 1000 for name, ms in best.items()}


def rectifier_row(
    case: Case, direction: str, times: dict[str, list[float]], bandwidth: dict[str, float]
) -> dict[str, Any]:
    """Return a pass of a layer: of each program its time, its share of the bandwidth, and our time over its time."""
    row: dict[str, Any] = {**case._asdict(), "pass": direction, "bytes": case.bytes(direction), "bandwidth": bandwidth}
    row["measured"] = dict.fromkeys(PROGRAMS)
    ours = over_rounds(times["ours"])
    for program, values in times.items():
        ms = over_rounds(values)
        row["measured"][program] = {
            "ms": ms,
            "share": {name: row["bytes"] / (ms[name] / 1000) / bandwidth[name] for name in STATISTICS},
            "ours_over_this": {name: ours[name] / ms[name] for name in STATISTICS},
        }
    return row


# --- Data layers -----------------------------------------------------------------------------------------------------
def _data_rows(settings: Settings) -> list[dict[str, Any]]:
    """Images per second, and per second of processor time, of each data layer and kind of record."""
    cases = [(records, *reader) for records in RECORDS for reader in READERS]
    times: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    with databases(settings.records) as folder:
        for case in cli.track(settings.rounds * cases, settings.rounds * len(cases), "CropData"):
            times[case].append(_batch_times(folder, settings, *case))
    rows = []
    for (records, layer, threads), found in times.items():
        ms, cpu = (over_rounds(list(values)) for values in zip(*found))
        row = {"records": records, "layer": layer, "threads": threads, "ms": ms, "cpu_ms": cpu}
        for key, clock in (("images_per_second", ms), ("images_per_core_second", cpu)):
            row[key] = {name: 1000 * settings.batch / clock[name] for name in STATISTICS}
        rows.append(row)
    stock = {row["records"]: row["cpu_ms"] for row in rows if row["layer"] == "Data"}
    for row in rows:
        row["times_data"] = {name: stock[row["records"]][name] / row["cpu_ms"][name] for name in STATISTICS}
    return rows


def _batch_times(
    folder: Path, settings: Settings, records: str, layer: str, threads: int | None
) -> tuple[float, float]:
    """Milliseconds per batch by the clock and of processor time; prefetched batches are not counted."""
    kind = {"Data": ("data_param", "backend: LMDB"), "CropData": ("crop_data_param", f"threads: {threads}")}[layer]
    more = kind[1] if threads else ""
    values = {"layer": layer, "crop": CROP, "folder": folder, "records": records, "batch": settings.batch}
    model = folder / "net.prototxt"
    model.write_text(_DATA_NET.format(**values, name=kind[0], more=more))
    net = caffe.Net(str(model), caffe.TRAIN)
    for _ in range(2 * _AHEAD + 1):
        net.forward()
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(settings.batches):
        net.forward()
    end, cpu_end = time.perf_counter(), time.process_time()
    return 1000 * (end - start) / settings.batches, 1000 * (cpu_end - cpu_start) / settings.batches


@contextmanager
def databases(images: int) -> Iterator[Path]:
    """Yield a temporary folder with {raw,JPEG}.lmdb of that many 64x64 colour images, and mean.binaryproto."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = [_picture(np.random.default_rng(index)) for index in range(images)]
        room = 2 * images * SIZE * SIZE * 3 + (8 << 20)
        for records in RECORDS:
            path = str(folder / f"{records}.lmdb")
            with (
                lmdb.open(path, map_size=room, sync=False) as environment,
                environment.begin(write=True) as transaction,
            ):
                for index, picture in enumerate(pictures):
                    if records == "JPEG":
                        data = cv2.imencode(".jpg", picture)[1].tobytes()
                        value = datum.encode_file(data, (3, SIZE, SIZE), index)
                    else:
                        value = datum.encode(picture.transpose(2, 0, 1), index)
                    transaction.put(b"%08d" % index, value, append=True)
        datum.write_mean(folder / "mean.binaryproto", np.mean(pictures, axis=0).transpose(2, 0, 1))
        yield folder


def _picture(rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 (64, 64, 3), whose JPEG is about as small as a photograph's: coarse shapes and some noise."""
    coarse = rng.normal(128, 60, (9, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 5, (SIZE, SIZE, 1))
    return np.clip(image, 0, 255).astype(np.uint8)
