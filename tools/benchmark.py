#!/usr/bin/env python3
"""Compare the speed of our layers and nets with stock Caffe and PyTorch on this machine.

Stock Caffe is upstream's program; it is built if it is missing. Close other programs before a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import _venv  # noqa: F401
from tiny_imagenet import cli, destination, files
from tiny_imagenet.errors import BenchmarkError, TinyImageNetError
from tiny_imagenet.models import zoo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(ROOT / "tests"))  # for the package benchmarks
BATCH = {"nets": 200, "where": 50}

# The benchmarks, which load slowly, are imported after the arguments are parsed.


class Command(cli.Command):
    """Parser of a subject; its errors start with the script's name."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog.split()[0]}: error: {message} (see {self.prog} --help)\n")


def main() -> None:
    parser = cli.Parser(__doc__, "tools/benchmark.py nets model1 model8 --batch 50 200 --torch-python DIR/bin/python")
    subjects = parser.add_subparsers(required=True, metavar="SUBJECT", dest="subject", parser_class=Command)

    def add(measure: Callable[..., None], summary: str, description: str, example: str) -> argparse.ArgumentParser:
        name = measure.__name__
        subject = subjects.add_parser(
            name, help=summary, description=description, example=f"tools/benchmark.py {name} {example}"
        )
        subject.set_defaults(measure=measure)
        return subject

    subject = add(
        layers,
        "PReLU, LReLU and CropData",
        "Forward and backward milliseconds of PReLU and LReLU on the CPU and their share of the machine's copy\n"
        "bandwidth, and images per second of CropData compared with Data. Takes ten minutes on two cores.",
        "--torch-python DIR/bin/python",
    )
    subject.add_argument("--batch", type=cli.positive_int, metavar="N", help="images per batch (default: 200)")
    _rounds(subject, 5)
    subject.add_argument("--iterations", type=cli.positive_int, metavar="N", help="iterations per round (default: 5)")
    _torch(subject)

    subject = add(
        nets,
        "images per second and memory of whole nets, in training and inference",
        "Images per second and peak memory of the nets in training (forward, backward and update) and inference\n"
        "(forward), compared with stock Caffe and PyTorch. All nets with batches of 50 and 200 take about an hour on\n"
        "two cores, and a few minutes on a GPU, where stock Caffe is not measured.",
        "model1 model8 --batch 50 200 --torch-python DIR/bin/python --out nets.json --plot nets.svg",
    )
    subject.add_argument("models", metavar="MODEL", type=_model, nargs="*", help="models to measure (default: all)")
    subject.add_argument(
        "--batch",
        type=cli.positive_int,
        nargs="+",
        metavar="N",
        help="images per batch, one or more sizes (default: 200)",
    )
    subject.add_argument("--task", choices=("training", "inference"), help="measure one task (default: both)")
    _rounds(subject, 3)
    subject.add_argument("--seconds", type=cli.positive_float, metavar="S", help="seconds per round (default: 2)")
    subject.add_argument(
        "--iterations", type=cli.positive_int, metavar="N", help="iterations per round, instead of --seconds"
    )
    _torch(subject)
    subject.add_argument("--gpu", type=cli.gpu, metavar="N", help="measure this GPU (default: the CPU)")
    switch = argparse.BooleanOptionalAction
    subject.add_argument("--tf32", action=switch, help="on a GPU: only with, or only without TF32 (default: both)")
    subject.add_argument("--deterministic", action=switch, help="on a GPU: reproducible results (default: no)")
    subject.add_argument("--plot", type=_figure, metavar="FILE", help="write a figure, .png or .svg")
    subject.add_argument("--write-cases", type=_file, metavar="FILE", help="write the nets for --cases and exit")
    subject.add_argument("--cases", type=Path, metavar="FILE", help="measure the nets of this file, without pycaffe")

    subject = add(
        where,
        "time of each layer of a net",
        "Milliseconds of each layer in training, in our program and in stock Caffe, and the share of two limits of\n"
        "the machine: a large sgemm of the same BLAS, and a copy. Takes some minutes on two cores.",
        "model8 --markdown",
    )
    subject.add_argument("models", metavar="MODEL", type=_model, nargs=1, help="the model to measure")
    subject.add_argument("--batch", type=cli.positive_int, nargs=1, metavar="N", help="images per batch (default: 50)")
    _rounds(subject, 3)
    subject.add_argument("--iterations", type=cli.positive_int, metavar="N", help="iterations per round (default: 3)")

    for subject in subjects.choices.values():
        subject.add_argument("--no-stock", action="store_true", help="do not measure stock Caffe")
        subject.add_argument("--threads", type=cli.positive_int, metavar="N", help="CPU threads (default: all cores)")
        subject.add_argument(
            "--build", type=Path, default=ROOT / "build", metavar="DIR", help="folder with the caffe programs (build)"
        )
        subject.add_argument("--quick", action="store_true", help="test run; the figures mean nothing")
        form = subject.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print one JSON object")
        form.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
        subject.add_argument("--out", type=_file, metavar="FILE", help="also write the JSON object to a file")
    args = parser.parse_args()
    args.threads = args.threads or len(os.sched_getaffinity(0))
    args.measure(args, subjects.choices[args.subject])


def layers(args: argparse.Namespace, parser: cli.Parser) -> None:
    _find_torch(args, parser)
    from benchmarks import layers

    settings = layers.Settings(threads=args.threads)
    if args.quick:
        little = {"batch": 8, "rounds": 2, "iterations": 2, "records": 24, "batches": 3}
        settings = replace(settings, **little, images=((16, 32, 32), (4096,)), copy=1 << 20, void=True)
    settings = replace(settings, **_given(args, "batch", "rounds", "iterations"))
    _show(args, layers.measure(settings, args.build, not args.no_stock, args.torch))


def nets(args: argparse.Namespace, parser: cli.Parser) -> None:
    if (args.tf32 or args.deterministic) and args.gpu is None:
        parser.error("--tf32 and --deterministic need --gpu N")
    if args.cases and (args.models or args.batch):
        parser.error("--cases contains the nets and their batches: remove MODEL and --batch")
    if args.write_cases:
        files.write_json(args.write_cases, _cases(args))
        print(args.write_cases)
        return
    _find_torch(args, parser)
    from benchmarks import nets

    settings = nets.Settings(threads=args.threads, gpu=args.gpu, deterministic=bool(args.deterministic))
    if args.gpu is not None:
        settings = replace(settings, tf32=(False, True) if args.tf32 is None else (args.tf32,))
    if args.quick:
        settings = replace(settings, rounds=2, iterations=2, void=True)
    settings = replace(settings, **_given(args, "rounds", "iterations", "seconds"))
    if args.task:
        settings = replace(settings, tasks=(args.task,))
    cases = _read_cases(args.cases) if args.cases else _cases(args)
    keep = (lambda result: files.write_json(args.out, result)) if args.out else (lambda result: None)
    result = nets.measure(cases, settings, args.build, not args.no_stock, args.torch, keep)
    if args.plot:
        from benchmarks import figure
        from tiny_imagenet.report import figures

        figures.save(figure.draw(result), args.plot)
    _show(args, result)


def where(args: argparse.Namespace, parser: cli.Parser) -> None:
    from benchmarks import where

    settings = where.Settings(threads=args.threads)
    if args.quick:
        settings = replace(settings, rounds=2, iterations=1, sgemm=256, copy=1 << 20, void=True)
    settings = replace(settings, **_given(args, "rounds", "iterations"))
    (case,) = _cases(args)
    _show(args, where.measure(case, settings, args.build, not args.no_stock))


def _rounds(subject: argparse.ArgumentParser, usual: int) -> None:
    subject.add_argument(
        "--rounds", type=cli.positive_int, metavar="N", help=f"measurements of each (default: {usual})"
    )


def _torch(subject: argparse.ArgumentParser) -> None:
    what = "a Python with torch (default: this one, if it has torch)"
    subject.add_argument("--torch-python", "--torch", dest="torch", metavar="PYTHON", help=what)


def _model(text: str) -> str:
    try:
        return zoo.get(text).name
    except TinyImageNetError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _file(text: str) -> Path:
    return cli.checked(destination.check)(text)


def _figure(text: str) -> Path:
    from tiny_imagenet.report import figures

    return cli.checked(figures.check_ending, destination.check)(text)


def _find_torch(args: argparse.Namespace, parser: cli.Parser) -> None:
    from benchmarks import programs

    try:
        args.torch = programs.find_torch(args.torch)
    except BenchmarkError as error:
        parser.error(str(error))


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The arguments of these names that are not None."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks import cases

    batches = args.batch or [2 if args.quick else BATCH[args.subject]]
    models = args.models or list(zoo.MODELS)
    return [cases.case(ROOT / "prototxt" / name, batch) for batch in batches for name in models]


def _read_cases(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot read {path}: {error}: write it with --write-cases") from error


def _show(args: argparse.Namespace, result: dict[str, Any]) -> None:
    if args.out:
        files.write_json(args.out, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        from benchmarks import tables

        tables.show(args.subject, result, args.markdown)


if __name__ == "__main__":
    cli.run(main)
