#!/usr/bin/env python3
"""Draw a figure of runs, of predictions or of screening."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, dataset, figures, predictions, report, screening_figure


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


def screening(options: argparse.Namespace) -> None:
    given = options.dataset, options.crop, options.min_visible, options.rows, options.seed
    figures.save(screening_figure.draw(*given), options.out)


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

    kind = kinds.add_parser(
        "screening",
        help="training images that screening drops or just keeps",
        description="Draw training images that screening drops and some that it just keeps, with box and worst crop.",
        example="tools/visualize.py screening tiny-imagenet-200 --out screening.png",
    )
    kind.add_argument("dataset", metavar="DATASET", help="the folder with wnids.txt, train/, val/ and test/")
    kind.add_argument(
        "--crop",
        type=cli.at_most(dataset.SIZE),
        default=screening_figure.CROP,
        metavar="N",
        help="pixels (default: 56)",
    )
    kind.add_argument(
        "--min-visible",
        type=cli.share,
        default=Fraction(1, 4),
        metavar="SHARE",
        help="what each crop must show of the box (default: 1/4)",
    )
    kind.add_argument(
        "--rows",
        type=cli.at_most(screening_figure.MOST_ROWS),
        default=screening_figure.ROWS,
        metavar="N",
        help=f"of each kind, at most {screening_figure.MOST_ROWS} (default: {screening_figure.ROWS})",
    )
    kind.add_argument(
        "--seed", type=cli.count, default=0, metavar="S", help="decides among images of equal share (default: 0)"
    )
    kind.set_defaults(draw=screening)

    for kind in kinds.choices.values():
        kind.add_argument("--out", required=True, metavar="FILE", help="where to: a name that ends in .png or .svg")
    options = parser.parse_args()
    figures.check_ending(options.out)
    options.draw(options)
    print(options.out)


if __name__ == "__main__":
    cli.run(main)
