#!/usr/bin/env python3
"""Compare evaluation of a split with the bare forward passes of the same net. Run by hand.

    tests/evaluate_speed.py DATA [MODEL ...] [--split val] [--images N] [--batch N] [--rounds N]

DATA is a folder written by tools/convert.py. Each round times, alternately, the forward passes of a deploy net over one
batch in memory, and an Evaluator on as many images of the LMDB. Close other programs first.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import caffe
import lmdb

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.evaluation.evaluator import BATCH, Evaluator
from tiny_imagenet.models import derive, nets, zoo


def first_records(source, target, count):
    """Write an LMDB with the first `count` records of another."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(lmdb.open(str(source), readonly=True, lock=False))
        new = stack.enter_context(lmdb.open(str(target), map_size=1 << 32))
        read, write = stack.enter_context(old.begin()), stack.enter_context(new.begin(write=True))
        for _, (key, value) in zip(range(count), read.cursor()):
            write.put(bytes(key), bytes(value))


def timed(call):
    """Return seconds of wall time and of processor time, over all threads."""
    start, work = time.monotonic(), time.process_time()
    call()
    return time.monotonic() - start, time.process_time() - work


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", default=["model1"])
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    classes = len(lmdb_reader.read_manifest(args.data)["classes"])
    with tempfile.TemporaryDirectory() as folder:
        subset = Path(folder) / f"{args.split}.lmdb"
        first_records(args.data / f"{args.split}.lmdb", subset, args.images)
        for name in args.models:
            param = nets.build(zoo.get(name).replace(classes=classes))
            net = caffe.Net(derive.deploy(param), caffe.TEST)
            evaluator = Evaluator(param, subset, args.data / "mean.binaryproto", net, batch=args.batch)
            count = len(evaluator.records)
            evaluator(between=lambda: None)
            pictures = evaluator.net.blobs["data"].data.copy()
            net.blobs["data"].reshape(*pictures.shape)
            net.forward(data=pictures)

            def bare(net=net, batches=evaluator.batches):
                for _ in range(batches):
                    net._forward(0, len(net.layers) - 1)

            calls = {"bare forward": bare, "evaluator": lambda evaluator=evaluator: evaluator(between=lambda: None)}
            seconds = {call: [] for call in calls}
            for number in range(args.rounds):
                for call in sorted(calls, reverse=bool(number % 2)):
                    seconds[call].append(timed(calls[call]))
            print(f"{name}, {count} images in batches of {evaluator.batch}, median of {args.rounds}:")
            for call, values in seconds.items():
                wall, work = (statistics.median(value) for value in zip(*values))
                print(f"  {call:<13} {count / wall:9.1f} images/s  {1e3 * work / count:8.3f} ms of processor per image")
            for what, index in (("time", 0), ("processor", 1)):
                ratios = [b[index] / a[index] for a, b in zip(*seconds.values())]
                low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
                print(f"  {what + ' ratio':<15} {middle:.3f} (from {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
