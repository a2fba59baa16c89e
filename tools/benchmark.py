#!/usr/bin/env python3
"""Time what we have beside stock Caffe's and PyTorch's, on this machine.

Stock Caffe is upstream's own program, built where it is missing. Close other programs first.
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

# What takes a moment to load is imported after the arguments.


class Command(cli.Command):
    """A subject's parser, whose errors begin with the script's name alone."""

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
        "PReLU, LReLU and CropData alone",
        "PReLU and LReLU on the processor: forward and backward milliseconds, and the share of the machine's own copy\n"
        "bandwidth that they reach; CropData's images a second and core, beside Data. Ten minutes on two cores.",
        "--torch-python DIR/bin/python",
    )
    subject.add_argument("--batch", type=cli.positive_int, metavar="N", help="images in a batch (200)")
    _rounds(subject, 5)
    subject.add_argument("--iterations", type=cli.positive_int, metavar="N", help="that a time averages (5)")
    _torch(subject)

    subject = add(
        nets,
        "whole nets: images a second and memory, in training and inference",
        "Images a second and peak memory of the nets, in training (forward, backward and update) and in inference\n"
        "(forward alone), in turns with stock Caffe and PyTorch. All nine with batches of 50 and 200 take about an\n"
        "hour on two cores; on a GPU, where stock Caffe is left out, some minutes.",
        "model1 model8 --batch 50 200 --torch-python DIR/bin/python --out nets.json --plot nets.svg",
    )
    subject.add_argument("models", metavar="MODEL", type=_model, nargs="*", help=f"{zoo.NAMES} (default: all)")
    subject.add_argument(
        "--batch",
        type=cli.positive_int,
        nargs="+",
        metavar="N",
        help="images in a batch, or several such numbers (200)",
    )
    subject.add_argument("--task", choices=("training", "inference"), help="only this one (default: both)")
    _rounds(subject, 3)
    subject.add_argument("--seconds", type=cli.positive_float, metavar="S", help="that a time averages, at least (2)")
    subject.add_argument(
        "--iterations", type=cli.positive_int, metavar="N", help="that a time averages, in place of --seconds"
    )
    _torch(subject)
    subject.add_argument("--gpu", type=cli.gpu, metavar="N", help="measure the GPU of this number (the CPU)")
    switch = argparse.BooleanOptionalAction
    subject.add_argument("--tf32", action=switch, help="on a GPU: with TF32 alone, or without alone (both)")
    subject.add_argument("--deterministic", action=switch, help="on a GPU: the same bits in every run (not)")
    subject.add_argument("--plot", type=_figure, metavar="FILE", help="draw the figures: a name in .png or .svg")
    subject.add_argument("--write-cases", type=_file, metavar="FILE", help="write the nets for --cases and end")
    subject.add_argument("--cases", type=Path, metavar="FILE", help="measure these; needs no pycaffe")

    subject = add(
        where,
        "where a net's time goes, layer by layer",
        "Each layer's milliseconds in training, in our program and in stock Caffe, and the share that both reach of\n"
        "what the machine can: of a large sgemm of the same BLAS, and of a copy. Some minutes on two cores.",
        "model8 --markdown",
    )
    subject.add_argument("models", metavar="MODEL", type=_model, nargs=1, help=zoo.NAMES)
    subject.add_argument("--batch", type=cli.positive_int, nargs=1, metavar="N", help="images in a batch (50)")
    _rounds(subject, 3)
    subject.add_argument("--iterations", type=cli.positive_int, metavar="N", help="that a time averages (3)")
    subject.add_argument("--markdown", action="store_true", help="print Markdown")

    for subject in subjects.choices.values():
        subject.add_argument("--no-stock", action="store_true", help="leave stock Caffe out")
        subject.add_argument("--threads", type=cli.positive_int, metavar="N", help="of the processor (all)")
        subject.add_argument(
            "--build", type=Path, default=ROOT / "build", metavar="DIR", help="the folder of the caffe program (build)"
        )
        subject.add_argument("--quick", action="store_true", help="little, to see that it works: the figures are void")
        subject.add_argument("--json", action="store_true", help="print one JSON object")
        subject.add_argument("--out", type=_file, metavar="FILE", help="write it into a file, too")
    args = parser.parse_args()
    args.threads = args.threads or len(os.sched_getaffinity(0))
    args.measure(args, subjects.choices[args.subject])


def layers(args: argparse.Namespace, parser: cli.Parser) -> None:
    _find_torch(args, parser)
    from benchmarks import benchmark, benchmark_tables

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
    settings = replace(settings, **_given(args, "batch", "rounds", "iterations"))
    _show(args, benchmark.layers(settings, args.build, not args.no_stock, args.torch), benchmark_tables.show)


def nets(args: argparse.Namespace, parser: cli.Parser) -> None:
    if (args.tf32 or args.deterministic) and args.gpu is None:
        parser.error("--tf32 and --deterministic are settings of GPUs: name one with --gpu")
    if args.cases and (args.models or args.batch):
        parser.error("--cases has its nets and their batches: leave MODEL and --batch out")
    if args.write_cases:
        files.write_json(args.write_cases, _cases(args))
        print(args.write_cases)
        return
    _find_torch(args, parser)
    from benchmarks import net_benchmark, net_progress, net_tables

    settings = net_benchmark.Settings(threads=args.threads, gpu=args.gpu, deterministic=bool(args.deterministic))
    if args.gpu is not None:
        settings = replace(settings, tf32=(False, True) if args.tf32 is None else (args.tf32,))
    if args.quick:
        settings = replace(settings, rounds=2, iterations=2, void=True)
    settings = replace(settings, **_given(args, "rounds", "iterations", "seconds"))
    if args.task:
        settings = replace(settings, tasks=(args.task,))
    cases = _read_cases(args.cases) if args.cases else _cases(args)
    programs = args.build, args.torch, not args.no_stock
    keep = (lambda result: files.write_json(args.out, result)) if args.out else (lambda result: None)
    result = net_benchmark.nets(cases, settings, *programs, shown=net_progress.shown, keep=keep)
    if args.plot:
        from benchmarks import net_figure
        from tiny_imagenet.report import figures

        figures.save(net_figure.draw(result), args.plot)
    _show(args, result, net_tables.show)


def where(args: argparse.Namespace, parser: cli.Parser) -> None:
    if args.json and args.markdown:
        parser.error("--json or --markdown, not both")
    from benchmarks import layer_shares, layer_tables, net_progress

    settings = layer_shares.Settings(threads=args.threads)
    if args.quick:
        settings = replace(settings, rounds=2, iterations=1, sgemm=256, copy=1 << 20, void=True)
    settings = replace(settings, **_given(args, "rounds", "iterations"))
    (case,) = _cases(args)
    result = layer_shares.layers(case, settings, args.build, not args.no_stock, net_progress.shown)
    if args.markdown:
        _show(args, result, lambda result: print(layer_tables.markdown(result), end=""))
    else:
        _show(args, result, layer_tables.show)


def _rounds(subject: argparse.ArgumentParser, usual: int) -> None:
    subject.add_argument("--rounds", type=cli.positive_int, metavar="N", help=f"how often each is measured ({usual})")


def _torch(subject: argparse.ArgumentParser) -> None:
    subject.add_argument(
        "--torch-python",
        "--torch",
        dest="torch",
        metavar="PYTHON",
        help="a Python that has torch (this one, where it has it)",
    )


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
    from benchmarks import timing

    try:
        args.torch = timing.find_torch(args.torch)
    except BenchmarkError as error:
        parser.error(str(error))


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The arguments of these names that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def _cases(args: argparse.Namespace) -> list[dict[str, Any]]:
    from benchmarks import net_cases

    batches = args.batch or [2 if args.quick else BATCH[args.subject]]
    models = args.models or list(zoo.MODELS)
    return [net_cases.case(ROOT / "prototxt" / name, batch) for batch in batches for name in models]


def _read_cases(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}: make it with --write-cases") from error


def _show(args: argparse.Namespace, result: dict[str, Any], tables: Callable[[dict[str, Any]], None]) -> None:
    if args.out:
        files.write_json(args.out, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        tables(result)


if __name__ == "__main__":
    cli.run(main)
