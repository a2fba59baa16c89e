#!/usr/bin/env python3
"""Classify images with a trained net, or write the challenge's file of test predictions."""

import contextlib
import json
import os
import sys
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.evaluation import submission


def classes(args, parser) -> int:
    """Print the classes of each image; return the exit status."""
    from tiny_imagenet import runs
    from tiny_imagenet.evaluation import classify  # after the arguments: Caffe takes a moment to load

    run = runs.Run(args.run)
    predictor = classify.open_run(run, args.checkpoint or "best", args.ten_crop, args.gpu)
    names = classify.class_names(run, args.data)
    width = min(60, max((len(path) for path, _ in classify.image_files(args.images)), default=0))
    images, unreadable = [], []
    with contextlib.closing(classify.classify(predictor, args.images, names, args.top or 5)) as outcomes:
        for path, guesses, error in outcomes:
            if error:
                unreadable.append({"path": path, "error": error})
                continue
            images.append({"path": path, "classes": [guess._asdict() for guess in guesses]})
            shown = os.fsencode(path).decode(errors="backslashreplace")
            for guess in [] if args.json else guesses:
                print(f"{shown:<{width}}  {100 * guess.probability:6.2f} %  {guess.wnid}  {guess.words}".rstrip())
            sys.stdout.flush()
    for problem in unreadable:  # at the end: stderr is silenced while images are decoded
        cli.note(f"{parser.prog}: error: {problem['error']}")
    if args.json:
        print(json.dumps({"images": images, "unreadable": unreadable}, indent=2))
    return 1 if unreadable else 0


def write_submission(args) -> None:
    if args.predictions:
        from tiny_imagenet.evaluation import predictions

        given, data = predictions.load(args.predictions), args.data
    else:
        from tiny_imagenet import runs
        from tiny_imagenet.evaluation import evaluate

        run = runs.Run(args.run)
        data = evaluate.data_of(run, args.data)
        submission.image_keys(data)  # raises early if there are none
        given = evaluate.predict_run(
            run, data, split="test", checkpoint=args.checkpoint or "best", ten_crop=args.ten_crop, gpu=args.gpu
        )
    print(f"{args.submission}: {submission.write(args.submission, given, data)} images")


def main() -> None:
    parser = cli.Parser(
        __doc__,
        "tools/predict.py runs/model1 cat.jpg photos --top 3\n"
        "  tools/predict.py runs/model1 --submission test.txt\n"
        "  tools/predict.py --predictions ensemble_test.npz --data data --submission test.txt",
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run folder of tools/train.py")
    parser.add_argument("images", metavar="IMAGE|FOLDER", nargs="*", help="images of any size, or folders of images")
    parser.add_argument("--top", type=cli.positive_int, metavar="K", help="classes per image (default: 5)")
    cli.add_predicting(parser)
    file = cli.checked(submission.check)
    parser.add_argument("--submission", type=file, metavar="FILE", help="write the classes of the test split to FILE")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE.npz",
        help="with --submission: predictions of the test split, instead of a run",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_intermixed_args()
    if args.predictions and not (args.submission and args.data):
        parser.error("--predictions needs --submission FILE and --data DIR")
    if bool(args.predictions) == bool(args.run):
        parser.error("give a run folder, or --predictions FILE.npz with --submission" + " alone" * bool(args.run))
    if args.predictions and (args.checkpoint or args.ten_crop or args.gpu is not None):
        parser.error("--predictions FILE.npz needs no net: omit --checkpoint, --ten-crop and --gpu")
    if args.submission and (args.images or args.json or args.top):
        parser.error("--submission uses the test split of the data folder: omit images, --top and --json")
    if args.run and os.path.isfile(args.run):
        parser.error(f"{args.run} is a file: the run folder comes first, then the images")
    if args.submission:
        write_submission(args)
    elif not args.images:
        parser.error(f"name images or folders after the run folder {args.run}, or --submission FILE")
    else:
        sys.exit(classes(args, parser))


if __name__ == "__main__":
    cli.run(main)
