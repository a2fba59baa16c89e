#!/usr/bin/env python3
"""Times tools/convert.py beside Caffe's own convert_imageset and compute_image_mean, in turns on this machine.

By hand: `tests/convert_speed.py [--images 20000] [--rounds 5] [--workers 2]`; --memory [COUNT ...] measures peak memory
at several sizes instead. It makes its own data set of 64x64 JPEGs in a temporary folder (TMPDIR) and removes it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np

import stock_tools
from tiny_imagenet.data import catalogue, dataset, lmdb_reader, loading
from tiny_imagenet.data.lmdb_writer import LmdbWriter

CLASSES = 200
ROOT = Path(__file__).resolve().parent.parent


def make(root: Path, images: int, contents: int) -> None:
    """A data set of so many training images, `contents` of them different; a box in ten is in a corner."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(contents):
        picture = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
        files.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
    wnids = [f"n{label:08d}" for label in range(CLASSES)]
    root.mkdir()
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    (root / "words.txt").write_text("".join(f"{wnid}\tclass {wnid}\n" for wnid in wnids))
    done = 0
    for label, wnid in enumerate(wnids):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        with open(folder.parent / f"{wnid}_boxes.txt", "w") as boxes:
            for number in range(images // CLASSES + (label < images % CLASSES)):
                (folder / f"{wnid}_{number}.JPEG").write_bytes(files[done % contents])
                box = (0, 0, 12, 12) if done % 50 == 0 else (10, 10, 50, 50)
                boxes.write("\t".join(map(str, (f"{wnid}_{number}.JPEG", *box))) + "\n")
                done += 1
    for split in ("val", "test"):
        folder = root / split / "images"
        folder.mkdir(parents=True)
        for label in range(CLASSES):
            (folder / f"{split}_{label}.JPEG").write_bytes(files[label % contents])
    lines = (f"val_{label}.JPEG\t{wnid}\t0\t0\t63\t63\n" for label, wnid in enumerate(wnids))
    (root / "val" / "val_annotations.txt").write_text("".join(lines))


def ours(root: Path, out: Path, workers: int, *more: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools/convert.py"), str(root), str(out), "--workers", str(workers), *more]


def timed(*commands: list[str]) -> float:
    """Seconds of wall clock that the commands take, one after the other."""
    os.sync()  # what was written before is not on this one's account
    start = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, env=stock_tools.QUIET, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def rounds(folder: Path, images: int, count: int, workers: int) -> None:
    convert_imageset, compute_mean = map(str, stock_tools.build())
    root, out = folder / "data", folder / "out"
    make(root, images, images)
    subprocess.run(ours(root, out, workers), check=True, stdout=subprocess.DEVNULL)
    lists = {}
    data = dataset.read(root)
    paths = {record.name: record.path for records in data.splits.values() for record in records}
    for name in ("train", "train_screened", "val", "test"):
        records = [(paths[key.split("_", 1)[1]], label) for key, label, _ in lmdb_reader.records(out / f"{name}.lmdb")]
        lists[name] = folder / f"{name}.txt"
        stock_tools.write_list(lists[name], root, records)
    theirs = {
        name: [convert_imageset, "--backend=lmdb", f"{root}/", str(path), str(folder / f"stock_{name}")]
        for name, path in lists.items()
    }
    mean = [compute_mean, str(folder / "stock_train"), str(folder / "mean")]
    contenders = {
        "ours: four LMDBs, mean, manifest": [ours(root, out, workers)],
        "convert_imageset: train alone": [theirs["train"]],
        "convert_imageset: the same four, and compute_image_mean": [*theirs.values(), mean],
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(count):
        for name, commands in contenders.items():
            for path in (out, *folder.glob("stock_*")):
                shutil.rmtree(path, ignore_errors=True)
            seconds[name].append(timed(*commands))
        print(f"round {number + 1}: " + ", ".join(f"{times[-1]:.2f} s" for times in seconds.values()), file=sys.stderr)
    total = sum(len(records) for records in data.splits.values())
    first = statistics.median(next(iter(seconds.values())))
    print(f"{total:,} images, {workers} workers, {os.cpu_count()} cores; medians of {count} rounds")
    for name, times in seconds.items():
        median = statistics.median(times)
        speed = f"{total / median:8,.0f} images/s  {median / first:5.2f} of ours"
        print(f"  {name:<58}{median:7.2f} s (best {min(times):.2f})  {speed}")
    limits(root, folder)


def limits(root: Path, folder: Path) -> None:
    """What an image costs in each part, on one core."""
    count = 5000
    start = time.perf_counter()
    with catalogue.Catalogue(root, str(folder / "index"), 0) as index:
        parts = {"annotations and order": (time.perf_counter() - start) / sum(index.counts.values())}
        entries = [entry for entry, _ in zip(index.entries("train"), range(count))]
    data = [dataset.read_bytes(entry.path) for entry in entries]
    start = time.perf_counter()
    for content in data:
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    parts["decoding alone (in a worker)"] = (time.perf_counter() - start) / len(entries)
    slot = memoryview(bytearray(loading.SLOT))
    start = time.perf_counter()
    for first in range(0, len(entries), loading.BATCH):
        loading.load(entries[first : first + loading.BATCH], slot, loading.Rule())
    parts["reading, decoding, screening (in a worker)"] = (time.perf_counter() - start) / len(entries)
    writer = LmdbWriter(folder / "write")
    start = time.perf_counter()
    for first in range(0, len(entries), loading.BATCH):
        batch = entries[first : first + loading.BATCH]
        writer.add((os.fsencode(entry.name), entry.label, slot[:12310]) for entry in batch)
    parts["an LMDB record, to the page cache (training: two)"] = (time.perf_counter() - start) / len(entries)
    start = time.perf_counter()
    writer.finish()
    parts["the same, from there to the disk"] = (time.perf_counter() - start) / len(entries)
    writer.close()
    for name, seconds in parts.items():
        print(f"  {name:<58}{seconds * 1e6:7.1f} us an image")


def memory(folder: Path, counts: list[int], workers: int) -> None:
    """Peak resident memory of this tool's main process and of its largest worker, with --encoded."""
    for count in counts:
        root, out = folder / f"data{count}", folder / "out"
        make(root, count, 1000)
        peak = {"main": 0, "worker": 0}
        start = time.perf_counter()
        with subprocess.Popen(ours(root, out, workers, "--encoded"), stdout=subprocess.DEVNULL) as process:
            done = threading.Event()
            watcher = threading.Thread(target=watch, args=(process.pid, peak, done))
            watcher.start()
            process.wait()
            done.set()
            watcher.join()
        seconds = time.perf_counter() - start
        print(
            f"{count:>9,} training images: {peak['main'] / 1024:.0f} MB in the main process, "
            f"{peak['worker'] / 1024:.0f} MB in a worker, {seconds:.1f} s, exit status {process.returncode}",
            flush=True,
        )
        shutil.rmtree(root)
        shutil.rmtree(out)


def watch(pid: int, peak: dict[str, int], done: threading.Event) -> None:
    """Keep the largest VmHWM, in kilobytes, of the process and of its children; the kernel holds the peak itself."""
    while not done.wait(0.05):
        children = (Path(f"/proc/{pid}/task/{pid}/children"),)
        pids = [("main", pid), *(("worker", int(child)) for path in children for child in read(path).split())]
        for kind, one in pids:
            for line in read(Path(f"/proc/{one}/status")).splitlines():
                if line.startswith("VmHWM"):
                    peak[kind] = max(peak[kind], int(line.split()[1]))


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="training images to time (20000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", type=int, nargs="*", metavar="COUNT", help="default: 100000 1000000")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.memory is None:
            rounds(Path(folder), args.images, args.rounds, args.workers)
        else:
            memory(Path(folder), args.memory or [100_000, 1_000_000], args.workers)


if __name__ == "__main__":
    main()
