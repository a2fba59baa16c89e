#!/usr/bin/env python3
"""Train a model of the paper, or a net of your own, on a converted data folder."""

import sys
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


def main():
    parser = cli.Parser(__doc__, "tools/train.py model1 --data data/lmdb --run runs/model1 --epochs 10")
    parser.add_argument("source", metavar="MODEL|SOLVER", help="model1 ... model9, or a solver prototxt")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what tools/convert.py wrote")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument("--seed", type=cli.count, default=1, metavar="S", help="of weights, crops and dropout (1)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=cli.positive_int, metavar="N", help="how many times through the data")
    length.add_argument("--max-iter", type=cli.positive_int, metavar="N", help="how many iterations")
    parser.add_argument("--batch", type=cli.positive_int, metavar="N", help="images an iteration (the file's)")
    parser.add_argument(
        "--base-lr", type=cli.positive_float, metavar="RATE", help="learning rate to begin with (the file's)"
    )
    parser.add_argument(
        "--init", type=Path, metavar="WEIGHTS", help="a caffemodel: layers of the same name take its weights"
    )
    parser.add_argument("--keep", type=cli.positive_int, default=2, metavar="N", help="newest checkpoints to keep (2)")
    args = parser.parse_args()

    from tiny_imagenet.train import Options, train  # after the arguments: Caffe takes a moment to load

    options = {name: value for name, value in vars(args).items() if name != "source"}
    result = train(args.source, Options(prototxt=PROTOTXT, **options), ["tools/train.py", *sys.argv[1:]])
    print(
        f"{result['run']}: best top-1 {100 * result['top1']:.2f} %, {result['iterations']} iterations "
        f"({result['epochs']:.2f} epochs), {result['seconds']:.0f} s"
    )


if __name__ == "__main__":
    cli.run(main)
