#!/usr/bin/env python3
"""Time that averaging gradients between machines takes, and the share that the backward pass hides. Run by hand.

    tests/comm_overlap.py model1 --mbit 1000           network namespaces (needs root)
    tests/comm_overlap.py model1 --ranks 2             processes of this machine, without a limit

Close other programs first.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from conftest import ROOT
from mpi import Machines, run, several
from tiny_imagenet.models import zoo
from tiny_imagenet.runs import Run


def make_data(folder):
    """Make a small converted data set."""
    few = ["--train", 200, "--val", 40, "--test", 20]
    run([sys.executable, ROOT / "tools" / "sample.py", folder / "dataset", *few])
    run([sys.executable, ROOT / "tools" / "convert.py", folder / "dataset", folder / "data"])
    return folder / "data"


def measure(args):
    """Return the seconds of an iteration, and what run.json records of its gradients."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        common = [args.model, "--data", make_data(folder), "--no-stages", "--batch", args.batch, "--quiet"]
        command = several
        if args.mbit:
            machines = stack.enter_context(Machines(args.ranks, folder, args.mbit))
            command = lambda count, *arguments: machines.command(*arguments, count=count)  # noqa: E731
        seconds = {}
        for length in (1, args.iterations):  # the difference excludes the start and the validation
            start = time.monotonic()
            run(command(args.ranks, *common, "--run", folder / f"run{length}", "--max-iter", length), timeout=3000)
            seconds[length] = time.monotonic() - start
        gradients = Run(folder / f"run{args.iterations}").info["gradients"]
    return (seconds[args.iterations] - seconds[1]) / (args.iterations - 1), gradients


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(zoo.MODELS))
    parser.add_argument("--mbit", type=int, help="10^6 bits per second between the machines")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=11)
    args = parser.parse_args()
    seconds, gradients = measure(args)
    network = f"{args.mbit} Mbit/s" if args.mbit else "this machine's memory"
    print(f"{args.model}, batch {args.batch}, {args.ranks} ranks, {network}")
    print(f"gradients per iteration  {gradients['bytes']:>12,.0f} bytes")
    print(f"iteration                {seconds:12.3f} s")
    print(f"transfer                 {gradients['seconds']:12.3f} s")
    print(f"waiting for it           {gradients['waited']:12.3f} s")
    print(f"hidden                   {100 * gradients['hidden']:12.0f} %")


if __name__ == "__main__":
    main()
