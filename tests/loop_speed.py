#!/usr/bin/env python3
"""Cost of the training loop compared with the caffe program, with the same net, batch and data. Run by hand.

    tests/loop_speed.py DATA [MODEL] [--batch N] [--rounds N]

DATA is a folder written by tools/convert.py. Each round trains for few and for many iterations with both programs, in
turns; the difference of the two times excludes the start. Close other programs first.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from google.protobuf import text_format

ROOT = Path(__file__).resolve().parent.parent


def timed(command):
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd=ROOT)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", nargs="?", default="model1")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--iterations", type=int, nargs=2, default=(5, 85))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    few, many = args.iterations
    ours = [sys.executable, ROOT / "tools" / "train.py"]
    caffe = [ROOT / "build" / "caffe", "train", "--solver"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "made"  # the net that both train
        flags = ["--data", args.data, "--no-stages", "--batch", args.batch, "--quiet"]
        timed([*ours, args.model, *flags, "--run", run, "--max-iter", 1])
        from caffe.proto import caffe_pb2

        solver = text_format.Parse((run / "solver.prototxt").read_text(), caffe_pb2.SolverParameter())
        seconds = {"caffe train": [], "tools/train.py": []}
        for number in range(args.rounds):
            times = {name: [] for name in seconds}
            for length in (few, many):
                solver.max_iter, solver.net = length, str(run / "train_val.prototxt")
                file = Path(folder) / f"{length}.prototxt"
                file.write_text(text_format.MessageToString(solver))
                times["caffe train"].append(timed([*caffe, file]))
                fresh = Path(folder) / f"run{number}-{length}"
                times["tools/train.py"].append(timed([*ours, args.model, *flags, "--run", fresh, "--max-iter", length]))
            for name, (short, long) in times.items():
                seconds[name].append((long - short) / (many - few))
    for name, values in seconds.items():
        print(f"{name:<15} {1000 * statistics.median(values):8.2f} ms per iteration (median of {args.rounds})")
    ratios = [b / a for a, b in zip(*seconds.values())]
    print(f"ratio           {statistics.median(ratios):8.4f} (from {min(ratios):.4f} to {max(ratios):.4f})")


if __name__ == "__main__":
    main()
