#!/usr/bin/env python3
"""What predicting a split costs over the bare forward passes, on the same net and images. Run by hand.

    tests/evaluate_speed.py DATA [MODEL ...] [--split val] [--images N] [--batch N] [--rounds N]

DATA is what tools/convert.py wrote. Each round times, in turns, the net's forward passes alone, over one batch that is
there already, and predict() over as many images of the LMDB, records and mean included. Close other programs first.
"""

import argparse
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import caffe
import lmdb
import numpy as np

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.evaluation import predict
from tiny_imagenet.models import derive, nets, zoo


def first_records(source, target, count):
    """An LMDB of the first `count` records of another."""
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(lmdb.open(str(source), readonly=True, lock=False))
        new = stack.enter_context(lmdb.open(str(target), map_size=1 << 32))
        read, write = stack.enter_context(old.begin()), stack.enter_context(new.begin(write=True))
        for _, (key, value) in zip(range(count), read.cursor()):
            write.put(bytes(key), bytes(value))


def timed(call):
    """Seconds, and the seconds of processor time that it took in all threads."""
    start, work = time.monotonic(), time.process_time()
    call()
    return time.monotonic() - start, time.process_time() - work


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", default=["model1"])
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--batch", type=int, default=predict.BATCH)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    classes = len(lmdb_reader.read_manifest(args.data)["classes"])
    with tempfile.TemporaryDirectory() as folder:
        subset = Path(folder) / f"{args.split}.lmdb"
        first_records(args.data / f"{args.split}.lmdb", subset, args.images)
        count = lmdb_reader.count(subset)
        for name in args.models:
            deploy = Path(folder) / f"{name}.prototxt"
            param = derive.deploy(nets.build(zoo.get(name).replace(classes=classes)))
            deploy.write_text(nets.to_text(param))
            filled = caffe.Net(param, caffe.TEST)
            predictor = predict.Predictor(deploy, args.data / "mean.binaryproto", filled, args.batch)
            images = np.stack([image for _, _, image in lmdb_reader.Records(subset)[: args.batch]])
            predictor(images)  # memory is there, and the input filled

            def bare(net=predictor.net):
                for _ in range(-(-count // args.batch)):
                    net._forward(0, len(net.layers) - 1)

            def whole(predictor=predictor):
                predict.predict(predictor, subset, between=lambda: None)

            calls = {"bare forward": bare, "predict()": whole}
            seconds = {call: [] for call in calls}
            for number in range(args.rounds):
                for call in sorted(calls, reverse=bool(number % 2)):
                    seconds[call].append(timed(calls[call]))
            print(f"{name}, {count} images in batches of {args.batch}, median of {args.rounds}:")
            for call, values in seconds.items():
                wall, work = (statistics.median(value) for value in zip(*values))
                print(f"  {call:<13} {count / wall:9.1f} images/s  {1e3 * work / count:8.3f} ms of processor an image")
            for what, index in (("time", 0), ("processor", 1)):
                ratios = [b[index] / a[index] for a, b in zip(*seconds.values())]
                low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
                print(f"  {what + ' ratio':<15} {middle:.3f} (from {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
