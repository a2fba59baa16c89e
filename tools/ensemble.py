#!/usr/bin/env python3
"""Average the predictions of several nets and print how good each member and the average are."""

import argparse
import dataclasses
import json
import os

import _venv  # noqa: F401
from tiny_imagenet import cli, ensemble, predictions


def weight(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def show(result: dict) -> None:
    rows = [("", "weight", "top-1 %", "95 % interval", "top-5 %", "error %", "images")]
    for scores, name, share in [
        *((member, member["name"], f"{share:.3f}") for member, share in zip(result["members"], result["weights"])),
        (result["ensemble"], "ensemble", ""),
    ]:
        low, high = scores["top1_interval"] or (None, None)
        interval = "-" if low is None else f"{100 * low:.2f} to {100 * high:.2f}"
        values = ["-" if scores[key] is None else f"{100 * scores[key]:.2f}" for key in ("top1", "top5", "error")]
        rows.append((name, share, values[0], interval, values[1], values[2], str(scores["count"])))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())


def show_held_out(held: dict) -> None:
    low, high = held["top1_interval"]
    print(
        f"held out, {len(held['folds'])} folds (seed {held['seed']}): top-1 {100 * held['top1']:.2f} % (95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f}), on the images chosen on {100 * held['chosen_on']:.2f} %: {held['note']}"
    )


def load(options) -> list:
    if any(map(os.path.isdir, options.members)):
        from tiny_imagenet import members  # Caffe takes a moment to load; files need none

        return members.load(options.members, options.split, options.ten_crop, options.checkpoints, options.gpu)
    return [predictions.load(path) for path in options.members]


def main() -> None:
    parser = cli.Parser(
        __doc__, "tools/ensemble.py runs/model8/predictions.npz runs/model9/predictions.npz --out both.npz"
    )
    parser.add_argument(
        "members", nargs="+", metavar="PRED.npz|RUN", help="files that tools/evaluate.py wrote, or run folders with one"
    )
    parser.add_argument(
        "--checkpoints", action="store_true", help="a run folder stands for each of its checkpoints, not for the best"
    )
    parser.add_argument(
        "--split", default="val", choices=("train", "train_screened", "val", "test"), help="of run folders (val)"
    )
    parser.add_argument("--ten-crop", action="store_true", help="of run folders, the predictions by ten crops")
    parser.add_argument(
        "--gpu", type=cli.gpu, metavar="N", help="with --checkpoints: predict on the GPU of this number (on the CPU)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--weights", nargs="+", type=weight, metavar="W", help="one a member (default: all the same)")
    how.add_argument("--search", action="store_true", help="choose the weights greedily on these very images")
    parser.add_argument(
        "--folds",
        type=cli.positive_int,
        metavar="K",
        help="with --search: choose on K-1 folds, score on the other, too",
    )
    parser.add_argument("--seed", type=cli.count, default=0, metavar="S", help="of the folds (0)")
    parser.add_argument("--out", metavar="FILE.npz", help="write the average's predictions")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (tools/report.py --ensemble reads it)"
    )
    options = parser.parse_args()
    if len(options.members) < 2 and not options.checkpoints:
        parser.error("an ensemble needs at least two files or run folders, or one run folder with --checkpoints")
    if options.weights is not None and not options.checkpoints and len(options.weights) != len(options.members):
        parser.error(f"{len(options.weights)} weights for {len(options.members)} members: give one weight a member")
    if options.gpu is not None and not options.checkpoints:
        parser.error("--gpu is for what --checkpoints predicts: averages of files are made on the CPU")
    if options.folds is not None and not options.search:
        parser.error("--folds says how --search is scored: give both")
    if options.folds == 1:
        parser.error("--folds 1 leaves nothing to choose on: at least 2 are needed")
    if options.out is not None and not options.out.endswith(".npz"):
        parser.error(f"--out {options.out!r} does not end in .npz")
    members = load(options)
    found = ensemble.search(members) if options.search else None
    weights = found.weights if found else options.weights
    combined = ensemble.average(members, weights)
    result = ensemble.describe(members, combined, weights)
    if found:
        result["search"] = {"order": found.order, "top1": found.top1, "note": found.note}
    if options.folds:
        result["held_out"] = dataclasses.asdict(ensemble.hold_out(members, options.folds, options.seed))
    if options.out:
        predictions.save(options.out, combined)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    show(result)
    if found:
        print(f"note: {found.note}")
    if options.folds:
        show_held_out(result["held_out"])


if __name__ == "__main__":
    cli.run(main)
