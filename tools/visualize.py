#!/usr/bin/env python3
"""Draw a figure of runs, of predictions, of weights or of screening."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, dataset, errors_figure, figures, predictions, report, runs, screening_figure

_FILTERS = ([True, False, False], [False, True, True])  # run, --net, --weights

# What needs Caffe is imported after the arguments: it takes a moment to load.


class Command(cli.Parser):
    """A subcommand's parser: argparse passes it the name of the whole command."""

    def __init__(self, *, prog: str, **options: Any):
        super().__init__(**options)
        self.prog = prog


def curves(options: argparse.Namespace) -> figures.Figure:
    return figures.curves(report.curves([report.read(run) for run in options.runs]))


def confusion(options: argparse.Namespace) -> figures.Figure:
    loaded = predictions.load(options.predictions)
    return figures.confusion(loaded, report.class_names(loaded), options.order == "similar")


def screening(options: argparse.Namespace) -> figures.Figure:
    given = options.dataset, options.crop, options.min_visible, options.rows, options.seed
    return screening_figure.draw(*given)


def errors(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet import members

    (loaded,) = members.load([options.source])
    data = options.data or errors_figure.data_folder(options.source)
    return errors_figure.draw(loaded, data, options.rows, options.seed, options.wnid)


def tsne(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet import tsne_figure

    given = options.classes, options.images, options.layer, options.seed, options.split, options.checkpoint
    return tsne_figure.draw(runs.Run(options.run), options.data, *given, gpu=options.gpu)


def filters(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet import weights_figure

    if not options.run:
        return weights_figure.filters(options.net, options.weights)
    run = runs.Run(options.run)
    return weights_figure.filters(run.deploy, run.weights(options.checkpoint), report.read(options.run).model)


def slopes(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet import weights_figure

    names = report.curves([report.read(run) for run in options.runs])
    return weights_figure.slopes(dict(zip(names, map(runs.Run, options.runs))), options.checkpoint)


def main() -> None:
    parser = cli.Parser(__doc__, "tools/visualize.py curves runs/model1 runs/model2 --out curves.png")
    kinds = parser.add_subparsers(required=True, metavar="KIND", parser_class=Command)

    def add(draw: Callable[..., Any], summary: str, description: str, example: str) -> argparse.ArgumentParser:
        name = draw.__name__
        example = f"tools/visualize.py {name} {example} --out {name}.png"
        kind = kinds.add_parser(name, help=summary, description=description, example=example)
        kind.set_defaults(draw=draw)
        return kind

    kind = add(
        curves,
        "training loss and validation top-1 of runs",
        "Draw training loss and validation top-1 against the iteration, of runs that are done or under way.",
        "runs/model1 runs/model2",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py, RUN/stages/1 too")

    kind = add(
        confusion,
        "which classes are taken for which",
        "Draw how often each class was predicted as each.",
        "runs/model1/predictions.npz",
    )
    kind.add_argument(
        "predictions", metavar="PRED.npz", help="a file that tools/evaluate.py or tools/ensemble.py wrote"
    )
    kind.add_argument(
        "--order",
        choices=("given", "similar"),
        default="given",
        help="of the classes: the data set's, or those taken for each other side by side (default: given)",
    )

    kind = add(
        errors,
        "images that a net gets wrong",
        "Draw misclassified images with their true and their predicted class: the net's most confident errors.",
        "runs/model9 --rows 2",
    )
    kind.add_argument("source", metavar="PRED.npz|RUN", help="a predictions file, or a run folder that has one")
    kind.add_argument("--data", metavar="DIR", help="the data that the predictions were made of (the run's)")
    _rows(kind, errors_figure.MOST_ROWS, errors_figure.ROWS, f"of {errors_figure.COLUMNS} images")
    kind.add_argument("--seed", type=cli.count, metavar="S", help="draw among all errors, not the most confident ones")
    kind.add_argument("--class", dest="wnid", metavar="WNID", help="only images of this class (default: of all)")

    kind = add(
        tsne,
        "images laid out by what a net makes of them",
        "Draw the images of some classes where t-SNE puts the values of the net's last hidden layer.",
        "runs/model9 --classes 50",
    )
    kind.add_argument("run", metavar="RUN", help="a run folder of tools/train.py")
    kind.add_argument("--data", metavar="DIR", help="what tools/convert.py wrote (the run's)")
    kind.add_argument(
        "--classes",
        type=cli.at_most(56),
        default=50,
        metavar="N",
        help="how many, drawn with the seed, at most 56 (default: 50)",
    )
    kind.add_argument(
        "--images", type=cli.positive_int, default=2500, metavar="N", help="at most, in all (default: 2500)"
    )
    kind.add_argument("--layer", metavar="NAME", help="of deploy.prototxt (default: the last before the classifier)")
    kind.add_argument("--seed", type=cli.count, default=0, metavar="S", help="draws and starts t-SNE (default: 0)")
    kind.add_argument("--split", choices=("train", "train_screened", "val"), default="val", help="(default: val)")
    kind.add_argument("--gpu", type=cli.gpu, metavar="N", help="compute the values on the GPU of this number")
    _checkpoint(kind)

    kind = add(
        filters,
        "the filters of the first layer",
        "Draw the filters of a net's first convolution in the colours that they answer to, all on one scale.",
        "runs/model1",
    )
    kind.add_argument("run", nargs="?", metavar="RUN", help="a run folder of tools/train.py")
    kind.add_argument("--net", metavar="FILE", help="a deploy prototxt, instead of a run folder")
    kind.add_argument("--weights", metavar="FILE", help="its caffemodel")
    _checkpoint(kind)

    kind = add(
        slopes,
        "the slopes of PReLU layers",
        "Draw how the learnt slopes of each PReLU layer are spread, beside the one that they started with.",
        "runs/model5",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py, at most 6")
    _checkpoint(kind)

    kind = add(
        screening,
        "training images that screening drops or just keeps",
        "Draw training images that screening drops and some that it just keeps, with box and worst crop.",
        "tiny-imagenet-200",
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
    _rows(kind, screening_figure.MOST_ROWS, screening_figure.ROWS, "of each kind")
    kind.add_argument(
        "--seed", type=cli.count, default=0, metavar="S", help="decides among images of equal share (default: 0)"
    )

    for kind in kinds.choices.values():
        kind.add_argument("--out", required=True, metavar="FILE", help="where to: a name that ends in .png or .svg")
    options = parser.parse_args()
    if options.draw is filters and [bool(options.run), bool(options.net), bool(options.weights)] not in _FILTERS:
        kinds.choices["filters"].error("give a run folder or --net with --weights, not both")
    figures.check_ending(options.out)
    figures.save(options.draw(options), options.out)
    print(options.out)


def _rows(kind: argparse.ArgumentParser, most: int, usual: int, what: str) -> None:
    kind.add_argument(
        "--rows", type=cli.at_most(most), default=usual, metavar="N", help=f"{what}, at most {most} (default: {usual})"
    )


def _checkpoint(kind: argparse.ArgumentParser) -> None:
    kind.add_argument(
        "--checkpoint", default="best", metavar="best|last|ITER", help="which weights of the run (default: best)"
    )


if __name__ == "__main__":
    cli.run(main)
