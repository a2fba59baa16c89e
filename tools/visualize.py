#!/usr/bin/env python3
"""Draw a figure of runs or of predictions."""

from __future__ import annotations

import argparse
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, figures, predictions, report


class Command(cli.Parser):
    """A subcommand's parser: argparse passes it the name of the whole command."""

    def __init__(self, *, prog: str, **options: Any):
        super().__init__(**options)
        self.prog = prog


def curves(options: argparse.Namespace) -> None:
    figures.save(figures.curves(report.curves([report.read(run) for run in options.runs])), options.out)


def confusion(options: argparse.Namespace) -> None:
    loaded = predictions.load(options.predictions)
    figures.save(figures.confusion(loaded, report.class_names(loaded)), options.out)


def main() -> None:
    parser = cli.Parser(__doc__, "tools/visualize.py curves runs/model1 runs/model2 --out curves.png")
    kinds = parser.add_subparsers(required=True, metavar="KIND", parser_class=Command)

    kind = kinds.add_parser(
        "curves",
        help="training loss and validation top-1 of runs",
        description="Draw training loss and validation top-1 against the iteration.",
        example="tools/visualize.py curves runs/model1 runs/model2 --out curves.png",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py")
    kind.set_defaults(draw=curves)

    kind = kinds.add_parser(
        "confusion",
        help="which classes are taken for which",
        description="Draw how often each class was predicted as each.",
        example="tools/visualize.py confusion runs/model1/predictions.npz --out confusion.png",
    )
    kind.add_argument(
        "predictions", metavar="PRED.npz", help="a file that tools/evaluate.py or tools/ensemble.py wrote"
    )
    kind.set_defaults(draw=confusion)

    for kind in kinds.choices.values():
        kind.add_argument("--out", required=True, metavar="FILE", help="where to: a name that ends in .png or .svg")
    options = parser.parse_args()
    figures.check_ending(options.out)
    options.draw(options)
    print(options.out)


if __name__ == "__main__":
    cli.run(main)
