#!/usr/bin/env python3
"""Draw a figure of runs, predictions, weights or screening."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _venv  # noqa: F401
from tiny_imagenet import cli, destination, files, runs
from tiny_imagenet.data import images
from tiny_imagenet.data.screening import CROP, MIN_VISIBLE
from tiny_imagenet.data.splits import LABELLED
from tiny_imagenet.evaluation import data_source, ensemble, predictions, provenance
from tiny_imagenet.report import confusion_figure, curves_figure, errors_figure, figures, screening_figure

# Modules that import Caffe, which is slow, are imported after the arguments have been parsed.


def curves(options: argparse.Namespace) -> figures.Figure:
    several = [runs.Run(path) for path in options.runs]
    known = [provenance.of_run(run.path, run.info) for run in several]
    named = zip(known, provenance.details(known), several)
    lines = [curves_figure.Line(one.name, detail, run.metrics()) for one, detail, run in named]
    return curves_figure.draw(lines, width=options.width)


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
    data = options.data or data_source.data_folder(options.source)
    return errors_figure.draw(given, data, options.rows, options.seed, options.of_class)


def tsne(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import tsne_figure

    choice = tsne_figure.Choice(options.classes, options.images, options.layer, options.seed, options.split)
    return tsne_figure.draw(runs.Run(options.run), options.data, choice, options.checkpoint or "best", options.gpu)


def filters(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import weights_figure

    if not options.run:
        return weights_figure.filters(options.net, options.weights)
    ((name, run),) = provenance.by_name([options.run]).items()
    return weights_figure.filters(run.deploy, run.weights(options.checkpoint or "best"), name)


def slopes(options: argparse.Namespace) -> figures.Figure:
    from tiny_imagenet.report import weights_figure

    return weights_figure.slopes(provenance.by_name(options.runs), options.checkpoint or "best", options.width)


def load(source: str) -> predictions.Predictions:
    """Load a predictions file, or the one that tools/evaluate.py wrote into a run folder."""
    (given,) = ensemble.load([source])
    stale = provenance.stale(provenance.of(given))
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
        "Draw training loss and validation top-1 against the iteration, of finished or running trainings; more than "
        f"{curves_figure.MOST_LINES} are drawn in small axes, two per model.",
        "runs/model1 runs/model2",
    )
    kind.add_argument("runs", nargs="+", metavar="RUN", help="run folders of tools/train.py, also RUN/stages/1")
    _width(kind)

    kind = add(
        confusion,
        "which classes are confused",
        "Draw how often each class was predicted as each class.",
        "runs/model1 --order similar",
    )
    _source(kind)
    order = "of the classes: as in the data set, or similar ones next to each other (default: given); if there are "
    order += "too many to name, OUT_classes.csv lists them"
    kind.add_argument("--order", choices=("given", "similar"), default="given", help=order)
    _width(kind)

    kind = add(
        errors,
        "misclassified images",
        "Draw misclassified images with their true and predicted class, by default the net's most confident errors.",
        "runs/model9 --rows 2",
    )
    _source(kind)
    kind.add_argument("--data", metavar="DIR", help="the data that was predicted (default: the run's)")
    _rows(kind, errors_figure.MOST_ROWS, errors_figure.ROWS, f"rows of {errors_figure.COLUMNS} images")
    kind.add_argument("--seed", type=cli.count, metavar="S", help="draw random errors instead of the most confident")
    of_class = "only images of this class: its wnid, one of its words or its number (default: all classes)"
    kind.add_argument("--class", dest="of_class", metavar="CLASS", help=of_class)

    kind = add(
        tsne,
        "images projected by a net's features",
        "Draw images of some classes where t-SNE places the values of the net's last hidden layer.",
        "runs/model9 --classes 50",
    )
    kind.add_argument("run", metavar="RUN", help="a run folder of tools/train.py")
    kind.add_argument("--data", metavar="DIR", help="folder written by tools/convert.py (default: the run's)")
    most = "number of classes, chosen at random, at most 56 (default: 50)"
    kind.add_argument("--classes", type=cli.at_most(56), default=50, metavar="N", help=most)
    most = "maximum number of images in total (default: 2500)"
    kind.add_argument("--images", type=cli.positive_int, default=2500, metavar="N", help=most)
    kind.add_argument("--layer", metavar="NAME", help="of the net (default: the last one before the classifier)")
    kind.add_argument("--seed", type=cli.count, default=0, metavar="S", help="of the choice and t-SNE (default: 0)")
    kind.add_argument("--split", choices=LABELLED, default="val", help="(default: val)")
    kind.add_argument("--gpu", type=cli.gpu, metavar="N", help="compute on this GPU (default: the CPU)")
    cli.add_checkpoint(kind)

    kind = add(
        filters,
        "filters of the first convolution",
        "Draw the filters of a net's first convolution in the colours that they respond to, all on one scale.",
        "runs/model1",
    )
    kind.add_argument("run", nargs="?", metavar="RUN", help="a run folder of tools/train.py")
    kind.add_argument("--net", metavar="FILE", help="a deploy prototxt, instead of a run folder")
    kind.add_argument("--weights", metavar="FILE", help="its caffemodel")
    cli.add_checkpoint(kind)

    kind = add(
        slopes,
        "slopes of PReLU layers",
        "Draw the trained slopes of each PReLU layer and their initial value.",
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
    crop, crop_help = cli.at_most(images.SIZE), "side of the crop in pixels (default: 56)"
    kind.add_argument("--crop", type=crop, default=CROP, metavar="N", help=crop_help)
    share = "fraction of the box that each crop must contain (default: 1/4)"
    kind.add_argument("--min-visible", type=cli.share, default=MIN_VISIBLE, metavar="SHARE", help=share)
    _rows(kind, screening_figure.MOST_ROWS, screening_figure.ROWS, "rows of each kind")
    seed = "decides between images with equal fractions (default: 0)"
    kind.add_argument("--seed", type=cli.count, default=0, metavar="S", help=seed)

    for kind in kinds.choices.values():
        out = cli.checked(figures.check_ending, destination.check)
        kind.add_argument("--out", type=out, required=True, metavar="FILE", help="a .png or .svg file to write")
    options = parser.parse_args()
    if options.draw is filters:
        if bool(options.run) == bool(options.net) or bool(options.net) != bool(options.weights):
            kinds.choices["filters"].error("expected either a run folder, or --net and --weights")
        if options.net and options.checkpoint:
            kinds.choices["filters"].error("--checkpoint needs a run folder; --weights names a file")
    figures.save(options.draw(options), options.out)
    print(options.out)
    if options.listing:
        files.write_text(_listed(options.out), options.listing)
        print(_listed(options.out))


def _listed(out: Path) -> Path:
    """The file with the list of classes of a figure."""
    return out.with_name(f"{out.stem}_classes.csv")


def _rows(kind: argparse.ArgumentParser, most: int, usual: int, what: str) -> None:
    text = f"{what}, at most {most} (default: {usual})"
    kind.add_argument("--rows", type=cli.at_most(most), default=usual, metavar="N", help=text)


def _source(kind: argparse.ArgumentParser) -> None:
    kind.add_argument("source", metavar="PRED.npz|RUN", help="a predictions file, or a run folder that contains one")


def _width(kind: argparse.ArgumentParser) -> None:
    text = f"width of the figure; 3.3 fits a column of two (default: {figures.WIDTH:g})"
    kind.add_argument("--width", type=_inches, default=figures.WIDTH, metavar="INCHES", help=text)


def _inches(text: str) -> float:
    """An argparse type: the width of a figure."""
    value = cli.positive_float(text)
    if not figures.NARROWEST <= value <= figures.WIDTH:
        raise argparse.ArgumentTypeError(
            f"expected from {figures.NARROWEST:g} to {figures.WIDTH:g} inches, got {text!r}"
        )
    return value


if __name__ == "__main__":
    cli.run(main)
