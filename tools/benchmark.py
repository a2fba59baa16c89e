#!/usr/bin/env python3
"""Time our layers beside upstream's and PyTorch's on this machine's processor.

PReLU and LReLU: forward and backward milliseconds, and the share of the machine's own copy bandwidth that they reach.
CropData: images a second and core, beside Data. Stock Caffe is built first where it is missing.
Close other programs first: it takes about ten minutes on two cores.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.errors import BenchmarkError

BUILD = Path(__file__).resolve().parent.parent / "build"


def main() -> None:
    parser = cli.Parser(__doc__, "tools/benchmark.py layers --torch /opt/torch/bin/python")
    parser.add_argument("subject", metavar="SUBJECT", choices=("layers",), help="what to measure: layers")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch (this one, where it has it)")
    parser.add_argument("--no-stock", action="store_true", help="leave stock Caffe out")
    parser.add_argument(
        "--threads", type=cli.positive_int, metavar="N", help="threads of PReLU and LReLU (all processors)"
    )
    parser.add_argument("--batch", type=cli.positive_int, metavar="N", help="images in a batch (200)")
    parser.add_argument("--rounds", type=cli.positive_int, metavar="N", help="how often each is measured (5)")
    parser.add_argument("--iterations", type=cli.positive_int, metavar="N", help="passes a measurement averages (5)")
    parser.add_argument("--build", type=Path, default=BUILD, metavar="DIR", help="the CMake build folder (build)")
    parser.add_argument("--quick", action="store_true", help="tiny blobs, to see that it works: the figures are void")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()

    from tiny_imagenet import benchmark, benchmark_tables, timing  # after the arguments: Caffe takes a moment to load

    settings = benchmark.Settings(threads=len(os.sched_getaffinity(0)))
    if args.quick:
        settings = replace(
            settings,
            batch=8,
            rounds=2,
            iterations=2,
            images=((16, 32, 32), (4096,)),
            copy=1 << 20,
            records=24,
            batches=3,
            void=True,
        )
    given = {name: getattr(args, name) for name in ("threads", "batch", "rounds", "iterations")}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    try:
        torch = timing.find_torch(args.torch)
    except BenchmarkError as error:
        parser.error(str(error))
    result = benchmark.layers(settings, args.build, stock=not args.no_stock, torch=torch)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        benchmark_tables.show(result)


if __name__ == "__main__":
    cli.run(main)
