#!/usr/bin/env python3
"""Draw a figure of runs, of predictions, of weights or of screening."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, destination, files, runs
from tiny_imagenet.data import images
from tiny_imagenet.evaluation import origin, pedigree, predictions
from tiny_imagenet.report import confusion_figure, curves_figure, errors_figure, figures, screening_figure

_FILTERS = ([True, False, False], [False, True, True])  # run, --net, --weights

# What needs Caffe is imported after the arguments: it takes a moment to load.


def curves(options: argparse.Namespace) -> figures.Figure:
    several = [runs.Run(path) for path in options.runs]
    known = [pedigree.of_run(run.path, run.info) for run in several]
    details = pedigree.details(known)
    lines = [curves_figure.Line(one.name, detail, run.metrics()) for one, detail, run in zip(known, details, several)]
    return curves_figure.draw(lines, options.width)


def confusion(options: argparse.Namespace) -> figures.Figure:
    how = load(options.source), options.order == "similar", options.width
    options.listing = confusion_figure.listing(*how)
    if options.listing:
        destination.check(_listed(options.out))
    return confusion_figure.draw(*how)


def screening(options: argparse.Namespace) -> figures.Figure:
    given = options.dataset, options.crop, options.min_visible, options.rows, options.seed
    return screening_figure.draw(*given)


def errors(options: argparse.Namespace) -> figures.Figure:
    given = load(options.source)
    data = options.data or origin.data_folder(options.source)
    return errors_figure.draw(given, data, options.rows, options.seed, options.of_class)


def tsne(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import tsne_figure

    given = options.classes, options.images, options.layer, options.seed, options.split, options.checkpoint or "best"
    return tsne_figure.draw(runs.Run(options.run), options.data, *given, gpu=options.gpu)


def filters(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import weights_figure

    if not options.run:
        return weights_figure.filters(options.net, options.weights)
    run = runs.Run(options.run)
    name = pedigree.of_run(run.path, run.info).name
    return weights_figure.filters(run.deploy, run.weights(options.checkpoint or "best"), name)


def slopes(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import weights_figure

    return weights_figure.slopes(pedigree.by_name(options.runs), options.checkpoint or "best", options.width)


def load(source: str) -> predictions.Predictions:
    """The predictions in a file, or those that tools/evaluate.py left in a run folder."""
    if not Path(source).is_dir():
        return predictions.load(source)
    from tiny_imagenet.evaluation import members

    (given,) = members.load([source])
    stale = pedigree.moved(pedigree.of(given))
    if stale:
        cli.note(f"note: {given.path} is {stale}: evaluate it again")
    return given


def main() -> None:
    parser = cli.Parser(__doc__, "tools/visualize.py curves runs/model1 runs/model2 --out curves.png")
    kinds = parser.add_subparsers(required=True, metavar="KIND", parser_class=cli.Command)

    def add(draw: Callable[..., Any], summary: str, description: str, example: str) -> argparse.ArgumentParser:
        name = draw.__name__
        example = f"tools/visualize.py {name} {example} --out {name}.png"
        kind = kinds.add_parser(name, help=summary, description=description, example=example)
        kind.set_defaults(draw=draw, listing="")
        return kind

    kind = add(
        curves,
        "training loss and validation top-1 of runs",
        "Draw training loss and validation top-1 against the iteration, of runs that are done or under way; more than "
        f"{curves_figure.MOST_LINES} are drawn in small axes, a pair a model.",
        "runs/model1 runs/model2",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py, RUN/stages/1 too")
    _width(kind)

    kind = add(
        confusion,
        "which classes are taken for which",
        "Draw how often each class was predicted as each.",
        "runs/model1 --order similar",
    )
    _source(kind)
    kind.add_argument(
        "--order",
        choices=("given", "similar"),
        default="given",
        help="of the classes: the data set's, or those taken for each other side by side (default: given); where there "
        "are too many to name, OUT_classes.csv says which stands where",
    )
    _width(kind)

    kind = add(
        errors,
        "images that a net gets wrong",
        "Draw misclassified images with their true and their predicted class: the net's most confident errors.",
        "runs/model9 --rows 2",
    )
    _source(kind)
    kind.add_argument("--data", metavar="DIR", help="the data that the predictions were made of (the run's)")
    _rows(kind, errors_figure.MOST_ROWS, errors_figure.ROWS, f"of {errors_figure.COLUMNS} images")
    kind.add_argument("--seed", type=cli.count, metavar="S", help="draw among all errors, not the most confident ones")
    kind.add_argument(
        "--class",
        dest="of_class",
        metavar="CLASS",
        help="only images of this class: its wnid, one of its words or its number (default: of all)",
    )

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
    cli.add_checkpoint(kind)

    kind = add(
        filters,
        "the filters of the first layer",
        "Draw the filters of a net's first convolution in the colours that they answer to, all on one scale.",
        "runs/model1",
    )
    kind.add_argument("run", nargs="?", metavar="RUN", help="a run folder of tools/train.py")
    kind.add_argument("--net", metavar="FILE", help="a deploy prototxt, instead of a run folder")
    kind.add_argument("--weights", metavar="FILE", help="its caffemodel")
    cli.add_checkpoint(kind)

    kind = add(
        slopes,
        "the slopes of PReLU layers",
        "Draw how the learnt slopes of each PReLU layer are spread, beside the one that they started with.",
        "runs/model5",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py, at most 6")
    cli.add_checkpoint(kind)
    _width(kind)

    kind = add(
        screening,
        "training images that screening drops or just keeps",
        "Draw training images that screening drops and some that it just keeps, with box and worst crop.",
        "tiny-imagenet-200",
    )
    kind.add_argument("dataset", metavar="DATASET", help="the folder with wnids.txt, train/, val/ and test/")
    kind.add_argument(
        "--crop",
        type=cli.at_most(images.SIZE),
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
        out = cli.checked(figures.check_ending, destination.check)
        kind.add_argument(
            "--out", type=out, required=True, metavar="FILE", help="where to: a name that ends in .png or .svg"
        )
    options = parser.parse_args()
    if options.draw is filters:
        if [bool(options.run), bool(options.net), bool(options.weights)] not in _FILTERS:
            kinds.choices["filters"].error("give a run folder or --net with --weights, not both")
        if options.net and options.checkpoint:
            kinds.choices["filters"].error("--checkpoint is one of a run folder: --weights names a file")
    figures.save(options.draw(options), options.out)
    print(options.out)
    if options.listing:
        files.write_text(_listed(options.out), options.listing)
        print(_listed(options.out))


def _listed(out: Path) -> Path:
    """Where the list of classes goes that belongs to a figure."""
    return out.with_name(f"{out.stem}_classes.csv")


def _rows(kind: argparse.ArgumentParser, most: int, usual: int, what: str) -> None:
    kind.add_argument(
        "--rows", type=cli.at_most(most), default=usual, metavar="N", help=f"{what}, at most {most} (default: {usual})"
    )


def _source(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("source", metavar="PRED.npz|RUN", help="a predictions file, or a run folder that has one")


def _width(kind: argparse.ArgumentParser) -> None:
    most = figures.WIDTH
    kind.add_argument(
        "--width", type=_inches, default=most, metavar="INCHES", help=f"3.3 for a column of two (default: {most:g})"
    )


def _inches(text: str) -> float:
    """An argparse type: a figure's width."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not figures.NARROWEST <= value <= figures.WIDTH:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {figures.NARROWEST:g} to {figures.WIDTH:g} inches")
    return value


if __name__ == "__main__":
    cli.run(main)
