#!/usr/bin/env python3
"""What averaging the gradients of several machines takes, and how much of it the backward pass hides. Run by hand.

    tests/comm_overlap.py model1 --mbit 1000           measure: three network namespaces (needs root)
    tests/comm_overlap.py model1 --ranks 2             measure: processes of this machine, without a limit
    tests/comm_overlap.py --table                      the tables of python/tiny_imagenet/experiment/README.md, computed

Beside what it measures it prints what tiny_imagenet.training.scaling computes for the same net, link and time to
compute. Close other programs first.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from conftest import ROOT
from mpi import Machines, run, several
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import scaling

LATENCY = 100e-6  # seconds of a step between two processes here, which look for news every 50 to 100 microseconds
MACHINES, BATCH = (2, 8, 64), 256  # 200 images do not split between 64
SWITCHES = {"10 Gbit/s": 10e9 / 8, "100 Gbit/s": 100e9 / 8, "400 Gbit/s": 400e9 / 8}
# Images a second of two cores with AVX-512, batch 200 or 50 (caffe_layers/SPEED.md).
CORES = {1: 389, 2: 154, 3: 125, 4: 127, 5: 143, 6: 163, 7: 44, 8: 45, 9: 53}
GPU = 10e12  # multiplications and additions a second, assumed: half of what an H100's float32 units could do
NVLINK = scaling.Link(300e9, 20e-6)  # assumed, as NCCL has it between the GPUs of one machine


def layers(name):
    """The layers of a model that have parameters, from the bottom up."""
    net = outline.outline(nets.read(ROOT / "prototxt" / name / "deploy.prototxt"), "TEST")
    found = [layer for layer in net.layers if layer.parameter_count]
    return [scaling.Layer(layer.parameter_count, (layer.multiply_adds or 0) / net.batch) for layer in found]


def bytes_table():
    yield "| net | parameters | bytes an iteration and rank | two ranks | 64 ranks |"
    yield "|---|---|---|---|---|"
    for name in zoo.MODELS:
        size = 4 * sum(layer.parameters for layer in layers(name))
        sent = " | ".join(f"{2 * (n - 1) / n * size / 1e6:.1f} MB" for n in (2, 64))
        yield f"| Model {name[5:]} | {size // 4:,} | {size:,} | {sent} |"


def table(speeds, links, counts):
    """Lines of a table: for each net, link and number of ranks the images a second, and the share of computation."""
    yield "| net | alone | " + " | ".join(f"{count} at {link}" for link in links for count in counts) + " |"
    yield "|---" * (2 + len(links) * len(counts)) + "|"
    for name in zoo.MODELS:
        net = layers(name)
        speed = speeds(name, net)
        cells = []
        for link in links.values():
            for count in counts:
                found = scaling.iteration(net, BATCH / count / speed, count, link)
                cells.append(f"{BATCH / found.seconds:,.0f} ({100 * found.efficiency:.0f} %)")
        yield f"| Model {name[5:]} | {speed:,.0f} | " + " | ".join(cells) + " |"


def of_cores(name, _):
    return CORES[int(name[5:])]


def of_gpu(_, net):
    return GPU / (3 * sum(layer.multiply_adds for layer in net))  # one forward pass, and two as long to go back


def tables():
    """What the cluster's README.md shows, by the words before it."""
    links = {name: scaling.Link(bandwidth, LATENCY) for name, bandwidth in SWITCHES.items()}
    fast = {name: scaling.Link(bandwidth, 20e-6) for name, bandwidth in SWITCHES.items()}
    return {
        "bytes": list(bytes_table()),
        "cores": list(table(of_cores, {"10 Gbit/s": links["10 Gbit/s"]}, MACHINES)),
        "gpus": list(table(of_gpu, {"NVLink": NVLINK}, (2, 8))),
        "machines with a GPU": list(table(of_gpu, fast, (8, 64))),
    }


def make_data(folder):
    """A small converted data set."""
    few = ["--train", 200, "--val", 40, "--test", 20]
    run([sys.executable, ROOT / "tools" / "sample.py", folder / "dataset", *few])
    run([sys.executable, ROOT / "tools" / "convert.py", folder / "dataset", folder / "data"])
    return folder / "data"


def measure(model, mbit, ranks, batch, iterations, data=None):
    """Seconds of an iteration, and what run.json says of its gradients."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = [model, "--data", data or make_data(folder), "--no-stages", "--batch", batch, "--quiet"]
        with contextlib.ExitStack() as stack:
            command = several
            if mbit:
                machines = stack.enter_context(Machines(ranks, folder, mbit))
                command = lambda count, *arguments: machines.command(*arguments, count=count)  # noqa: E731
            seconds = {}
            for length in (1, iterations):  # the difference is without the start and the validation
                begin = time.monotonic()
                at = folder / f"run{length}"
                run(command(ranks, *common, "--run", at, "--max-iter", length), timeout=3000)
                seconds[length] = time.monotonic() - begin
        found = Run(at).info["gradients"]
        each = (seconds[iterations] - seconds[1]) / (iterations - 1)
    return each, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=sorted(zoo.MODELS))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--mbit", type=int, help="10^6 bits a second between the machines")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=11)
    args = parser.parse_args()
    if args.table:
        for name, lines in tables().items():
            print(f"{name}\n\n" + "\n".join(lines) + "\n")
        return
    if not args.model:
        parser.error("name a model, or --table")
    each, found = measure(args.model, args.mbit, args.ranks, args.batch, args.iterations)
    link = scaling.Link((args.mbit or 40_000) * 1e6 / 8, LATENCY)
    expected = scaling.iteration(layers(args.model), each - found["waited"], args.ranks, link)
    where = f"{args.mbit} Mbit/s" if args.mbit else "this machine's memory"
    print(f"{args.model}, batch {args.batch}, {args.ranks} ranks, {where}")
    print(f"bytes an iteration    {found['bytes']:>12,.0f}")
    print(f"an iteration          {each:12.3f} s")
    print(f"gradients on the way  {found['seconds']:12.3f} s   computed {expected.sending:.3f} s")
    print(f"standing still        {found['waited']:12.3f} s   computed {expected.waiting:.3f} s")
    print(f"hidden                {100 * found['hidden']:12.0f} %   computed {100 * expected.hidden:.0f} %")


if __name__ == "__main__":
    main()
