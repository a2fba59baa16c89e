#!/usr/bin/env python3
"""Times tools/convert.py and Caffe's convert_imageset and compute_image_mean, alternately on this machine.

Run by hand: `tests/convert_speed.py [--images 20000] [--rounds 5] [--workers 2]`. Creates a data set of 64x64 JPEGs in
a temporary folder (TMPDIR).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import stock_tools
from tiny_imagenet.data import dataset, lmdb_reader
from tiny_imagenet.data.splits import SPLITS

CLASSES = 200
ROOT = Path(__file__).resolve().parent.parent


def make(root: Path, images: int, contents: int) -> None:
    """Write a data set with `images` training images, `contents` of them different; every 50th box is in a corner."""
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


def ours(root: Path, out: Path, workers: int) -> list[str]:
    return [sys.executable, str(ROOT / "tools/convert.py"), str(root), str(out), "--workers", str(workers)]


def timed(*commands: list[str]) -> float:
    """Return the wall-clock seconds of the commands, run one after the other."""
    os.sync()  # earlier writes do not count
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
    for name in SPLITS:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="number of training images (20000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rounds(Path(folder), args.images, args.rounds, args.workers)


if __name__ == "__main__":
    main()
