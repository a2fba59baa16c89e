#!/usr/bin/env python3
"""Predict a split with a trained net and print the scores."""

import functools
import json
import os
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.evaluation import metrics, provenance


def show(result: dict) -> None:
    crops = provenance.crops_text(result["crops"])
    scores = [
        f"{score.title.removesuffix(' %').lower()} {score.text(result)} % ({score.interval(result)})"
        for score in metrics.SCORES
        if result[score.key] is not None
    ]
    print(f"{result['split']}, {crops}: {', '.join(scores)}, {result['count']} images (in parentheses: 95 % interval)")


def show_classes(result: dict) -> None:
    print(f"\n{'wnid':<10} {'images':>6} {'top-1 %':>8}  {'95 % interval':<15}  {'top-5 %':>7}  words")
    for row in sorted(result["per_class"], key=lambda row: (row["top1"] is None, row["top1"])):
        top1, interval = metrics.TOP1.text(row), metrics.TOP1.interval(row)
        top5 = metrics.percent(row["top5"])
        print(f"{row['wnid']:<10} {row['count']:>6} {top1:>8}  {interval:<15}  {top5:>7}  {row['words']}")
    if result["confused"]:
        print("\nmost often confused:")
    classes = result["per_class"]
    for pair in result["confused"]:
        names = classes[pair["true"]]["words"], classes[pair["predicted"]]["words"]
        print(f"{pair['count']:>6} of {pair['of']:<6} {names[0]}  as  {names[1]}")


def file(ending: str):
    """An argparse type: a writable file with this ending."""
    return cli.checked(functools.partial(destination.check, ending=f".{ending}"))


def main():
    parser = cli.Parser(__doc__, "tools/evaluate.py runs/model1 --per-class")
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?", help="a run folder of tools/train.py")
    parser.add_argument(
        "--net", type=Path, metavar="FILE", help="train_val or deploy prototxt, instead of a run folder"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="its caffemodel")
    parser.add_argument("--mean", type=Path, metavar="FILE", help="its mean image (default: the data folder's)")
    cli.add_predicting(parser)
    parser.add_argument("--split", default="val", choices=SPLITS, help="images to predict (default: val)")
    parser.add_argument("--out", type=file("npz"), metavar="FILE.npz", help="predictions (default: in the run folder)")
    parser.add_argument("--per-class", action="store_true", help="also print the scores of each class, worst first")
    parser.add_argument("--confusion", type=file("csv"), metavar="FILE.csv", help="write the confusion matrix")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.run and (args.net or args.weights or args.mean):
        parser.error("give a run folder or --net with --weights, not both")
    if not args.run and not (args.net and args.weights and args.data):
        missing = [f"--{name}" for name in ("net", "weights", "data") if not getattr(args, name)]
        parser.error(f"name a RUN folder, or add {', '.join(missing)}")
    if args.net and args.checkpoint:
        parser.error("--checkpoint needs a run folder: use --weights alone")
    if args.split == "test" and (args.per_class or args.confusion):
        flag = "--per-class" if args.per_class else "--confusion"
        parser.error(f"{flag} needs labels, and the test split has none: use --split train, train_screened or val")

    from tiny_imagenet import runs
    from tiny_imagenet.evaluation import evaluate  # after the arguments: Caffe takes a moment to load

    options = {
        "split": args.split,
        "out": args.out,
        "ten_crop": args.ten_crop,
        "confusion": args.confusion,
        "gpu": args.gpu,
    }
    if args.run:
        result = evaluate.evaluate_run(runs.Run(args.run), args.data, checkpoint=args.checkpoint or "best", **options)
    else:
        result = evaluate.evaluate_files(args.data, args.net, args.weights, mean=args.mean, **options)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    if result["top1"] is None:
        print(f"{result['count']} images without labels")
    else:
        show(result)
        if args.per_class:
            show_classes(result)
    if result["predictions"]:
        print(f"the predictions are in {os.path.normpath((args.run or Path()) / result['predictions'])}")
    if args.confusion:
        print(f"the confusion matrix is in {args.confusion}")


if __name__ == "__main__":
    cli.run(main)
