#!/usr/bin/env python3
"""Time what we have beside upstream's and PyTorch's, on this machine.

layers: PReLU and LReLU on the processor, forward and backward milliseconds and the share of the machine's own copy
bandwidth that they reach; CropData's images a second and core, beside Data. Stock Caffe is built where it is missing.
nets: the nine nets, or those named, in training: images a second and the GPU's memory, beside PyTorch.
Close other programs first: layers takes about ten minutes on two cores, nets some minutes on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, zoo
from tiny_imagenet.errors import BenchmarkError

ROOT = Path(__file__).resolve().parent.parent
_OF_NETS = ("gpu", "tf32", "deterministic", "cases", "write_cases")


def main() -> None:
    parser = cli.Parser(
        __doc__,
        "tools/benchmark.py layers --torch /opt/torch/bin/python\n"
        "  tools/benchmark.py nets --gpu 0 --torch /opt/torch/bin/python\n"
        "  tools/benchmark.py nets model1 --batch 20",
    )
    parser.add_argument("subject", metavar="SUBJECT", choices=("layers", "nets"), help="what to measure: layers, nets")
    parser.add_argument("models", metavar="MODEL", nargs="*", help="nets: model1 ... model9 (all nine)")
    parser.add_argument("--torch", metavar="PYTHON", help="a Python that has torch (this one, where it has it)")
    parser.add_argument("--no-stock", action="store_true", help="layers: leave stock Caffe out")
    parser.add_argument("--threads", type=cli.positive_int, metavar="N", help="of the processor (all)")
    parser.add_argument("--batch", type=cli.positive_int, metavar="N", help="images in a batch (200)")
    parser.add_argument("--rounds", type=cli.positive_int, metavar="N", help="how often each is measured (5)")
    parser.add_argument(
        "--iterations", type=cli.positive_int, metavar="N", help="that a measurement averages (layers: 5, nets: 20)"
    )
    parser.add_argument("--gpu", type=cli.gpu, metavar="N", help="nets: train on the GPU of this number (on the CPU)")
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--tf32", action=switch, help="nets on a GPU: with TF32 alone, or without alone (both)")
    parser.add_argument("--deterministic", action=switch, help="nets on a GPU: the same bits in every run (not)")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build", metavar="DIR", help="the folder of the caffe program (build)"
    )
    parser.add_argument("--write-cases", type=Path, metavar="FILE", help="nets: write them for --cases and end")
    parser.add_argument("--cases", type=Path, metavar="FILE", help="nets: measure these; needs no pycaffe")
    parser.add_argument("--quick", action="store_true", help="tiny blobs, to see that it works: the figures are void")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.subject == "layers" and (args.models or any(getattr(args, name) is not None for name in _OF_NETS)):
        parser.error("MODEL, --gpu, --tf32, --deterministic and --cases go with nets")
    if args.subject == "nets" and args.no_stock:
        parser.error("--no-stock goes with layers")
    if (args.tf32 or args.deterministic) and args.gpu is None:
        parser.error("--tf32 and --deterministic are settings of GPUs: name one with --gpu")
    if args.cases and (args.models or args.batch):
        parser.error("--cases has its nets and their batch: leave MODEL and --batch out")
    for name in args.models:
        zoo.get(name)
    if args.write_cases:
        args.write_cases.write_text(json.dumps(_cases(args)))
        print(args.write_cases)
        return
    args.threads = args.threads or len(os.sched_getaffinity(0))

    from tiny_imagenet import timing  # after the arguments: it takes a moment

    try:
        args.torch = timing.find_torch(args.torch)
    except BenchmarkError as error:
        parser.error(str(error))
    (_layers if args.subject == "layers" else _nets)(args)


def _layers(args: argparse.Namespace) -> None:
    from tiny_imagenet import benchmark, benchmark_tables

    settings = benchmark.Settings(threads=args.threads)
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
    given = {name: getattr(args, name) for name in ("batch", "rounds", "iterations")}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    result = benchmark.layers(settings, args.build, stock=not args.no_stock, torch=args.torch)
    _show(args, result, benchmark_tables.show)


def _nets(args: argparse.Namespace) -> None:
    from tiny_imagenet import net_benchmark, net_tables

    settings = net_benchmark.Settings(threads=args.threads, gpu=args.gpu, deterministic=bool(args.deterministic))
    if args.gpu is not None:
        settings = replace(settings, tf32=(False, True) if args.tf32 is None else (args.tf32,))
    if args.quick:
        settings = replace(settings, rounds=2, iterations=2, void=True)
    given = {name: getattr(args, name) for name in ("rounds", "iterations")}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    cases = _read_cases(args.cases) if args.cases else _cases(args)
    _show(args, net_benchmark.nets(cases, settings, args.build, args.torch), net_tables.show)


def _cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    from tiny_imagenet import net_cases

    batch = args.batch or (2 if args.quick else 200)
    return [net_cases.case(ROOT / "prototxt" / name, batch) for name in args.models or list(zoo.MODELS)]


def _read_cases(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}: make it with --write-cases") from error


def _show(args: argparse.Namespace, result: dict[str, Any], tables: Any) -> None:
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        tables(result)


if __name__ == "__main__":
    cli.run(main)
