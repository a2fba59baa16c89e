#!/usr/bin/env python3
"""Predict a split with a trained net and print how good it is."""

import json
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli


def main():
    parser = cli.Parser(__doc__, "tools/evaluate.py runs/model1 --data data/lmdb")
    parser.add_argument("run", metavar="RUN", type=Path, nargs="?", help="a run folder of tools/train.py")
    parser.add_argument("--net", type=Path, metavar="FILE", help="a deploy prototxt, instead of a run folder")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="its caffemodel")
    parser.add_argument("--data", type=Path, metavar="DIR", help="what tools/convert.py wrote (the run's)")
    parser.add_argument("--split", default="val", choices=("train", "train_screened", "val", "test"))
    parser.add_argument(
        "--checkpoint", default="best", metavar="best|last|ITER", help="which weights of the run (best)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="where the predictions go (the run folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.run and (args.net or args.weights):
        parser.error("give a run folder or --net with --weights, not both")
    if not args.run and not (args.net and args.weights and args.data):
        parser.error("without a run folder, --net, --weights and --data are needed")
    if args.out and args.out.suffix != ".npz":
        parser.error(f"--out {str(args.out)!r} does not end in .npz")

    from tiny_imagenet import evaluate, runs  # after the arguments: Caffe takes a moment to load

    if args.run:
        result = evaluate.evaluate_run(runs.Run(args.run), args.data, args.split, args.checkpoint, args.out)
    else:
        result = evaluate.evaluate_files(args.data, args.net, args.weights, args.split, args.out)
    if args.json:
        print(json.dumps(result, indent=2))
        return
    if result.get("top1") is None:
        print(f"{result['count']} images without labels: the predictions are in {result['predictions']}")
        return
    low, high = result["top1_interval"]
    top5 = "" if result["top5"] is None else f"top-5 {100 * result['top5']:.2f} %, "
    print(
        f"{result['split']}: top-1 {100 * result['top1']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}), "
        f"{top5}error {100 * result['error']:.2f} %, {result['count']} images"
    )


if __name__ == "__main__":
    cli.run(main)
