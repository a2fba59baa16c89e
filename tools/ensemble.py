#!/usr/bin/env python3
"""Average the predictions of several nets and print the scores of each member and of the average."""

import argparse
import dataclasses
import functools
import json
import os

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.evaluation import ensemble, metrics, predictions, provenance


def weight(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def show(result: dict, names: list[str]) -> None:
    titles = [score.title for score in metrics.SCORES]
    titles.insert(1, "95 % interval")
    rows = [["", "weight", *titles, "images"]]
    members = zip(names, (f"{share:.3f}" for share in result["weights"]), result["members"])
    for name, share, scores in [*members, ("ensemble", "", result["ensemble"])]:
        values = [score.text(scores) for score in metrics.SCORES]
        values.insert(1, metrics.TOP1.interval(scores))
        rows.append([name, share, *values, str(scores["count"] or f"{scores['unlabelled']} unlabelled")])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())
    of = provenance.Provenance("ensemble", split=result["split"], crops=result["crops"])
    if not of.like_paper:
        print(f"images: {of.images}")


def show_held_out(held: dict) -> None:
    score = f"top-1 {metrics.TOP1.text(held)} % (95 % interval {metrics.TOP1.interval(held)})"
    chosen_on = f"{metrics.percent(held['chosen_on'])} % on the images chosen on"
    print(f"held out, {len(held['folds'])} folds (seed {held['seed']}): {score}, {chosen_on}: {held['note']}")


def refuse_twice(parser: cli.Parser, paths: list[str]) -> None:
    """Exit with an error if a file or folder is named twice."""
    seen: dict[str, str] = {}
    for path in paths:
        if os.path.realpath(path) in seen:
            parser.error(f"{path} is given twice: name each member once; --weights sets how much it counts")
        seen[os.path.realpath(path)] = path


def notes(several: list[provenance.Provenance], names: list[str], crops: str | None) -> None:
    """Print notes about members that are out of date, differ in their crops or are alone."""
    for one in several:
        if provenance.stale(one):
            cli.note(f"note: {one.path} is {provenance.stale(one)}: evaluate it again")
    if crops == provenance.MIXED:
        own = (f"{name}: {provenance.crops_text(one.crops)}" for name, one in zip(names, several))
        cli.note(f"note: the members differ in their crops: {', '.join(own)}")
    if len(several) == 1:
        cli.note(f"note: {names[0]} is the only member: the average is its own predictions")


def check(parser: cli.Parser, options: argparse.Namespace) -> None:
    """Exit with an error if the options do not fit together."""
    if len(options.members) < 2 and not options.checkpoints:
        parser.error("an ensemble needs at least two files or run folders, or one run folder with --checkpoints")
    if options.weights is not None:
        if not options.checkpoints and len(options.weights) != len(options.members):
            parser.error(f"--weights: expected {len(options.members)}, one per member, got {len(options.weights)}")
        if not any(options.weights):
            parser.error("--weights are all 0: at least one must be above 0")
    if (options.split or options.ten_crop) and not any(map(os.path.isdir, options.members)):
        parser.error("--split and --ten-crop need a run folder")
    for flag in ("gpu", "data"):
        if getattr(options, flag) is not None and not options.checkpoints:
            parser.error(f"--{flag} needs --checkpoints")
    if options.folds is not None and not options.search:
        parser.error("--folds needs --search")
    if options.seed is not None and options.folds is None:
        parser.error("--seed needs --folds")
    if options.folds == 1:
        parser.error("--folds: expected at least 2, got 1")
    refuse_twice(parser, options.members)


def main() -> None:
    example = "tools/ensemble.py runs/model8/predictions.npz runs/model9/predictions.npz --out both.npz"
    parser = cli.Parser(__doc__, example)
    members = "files written by tools/evaluate.py, or run folders that contain one"
    parser.add_argument("members", nargs="+", metavar="PRED.npz|RUN", help=members)
    checkpoints = "use all checkpoints of a run folder, not the best one"
    parser.add_argument("--checkpoints", action="store_true", help=checkpoints)
    parser.add_argument("--split", choices=SPLITS, help="split to take from run folders (default: val)")
    parser.add_argument("--ten-crop", action="store_true", help="take the predictions with ten crops from run folders")
    data = "with --checkpoints: predict the data in this folder of tools/convert.py (default: the run's)"
    parser.add_argument("--data", metavar="DIR", help=data)
    gpu = "with --checkpoints: compute on this GPU (default: the CPU)"
    parser.add_argument("--gpu", type=cli.gpu, metavar="N", help=gpu)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--weights", nargs="+", type=weight, metavar="W", help="one per member (default: equal weights)")
    how.add_argument("--search", action="store_true", help="choose the weights greedily on the images themselves")
    folds = "with --search: also choose on K-1 folds and score on the remaining one"
    parser.add_argument("--folds", type=cli.positive_int, metavar="K", help=folds)
    parser.add_argument("--seed", type=cli.count, metavar="S", help="of the folds (default: 0)")
    out = cli.checked(functools.partial(destination.check, ending=".npz"))
    parser.add_argument("--out", type=out, metavar="FILE.npz", help="write the average's predictions")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for tools/report.py --ensemble")
    options = parser.parse_args()
    check(parser, options)
    wanted = options.split or "val", options.ten_crop, options.checkpoints, options.data, options.gpu
    members = ensemble.load(options.members, *wanted)
    refuse_twice(parser, [member.path for member in members])
    found = ensemble.search(members) if options.search else None
    weights = found.weights if found else options.weights
    combined = ensemble.average(members, weights)
    result = ensemble.describe(members, combined, weights)
    if found:
        result["search"] = {"order": found.order, "top1": found.top1, "note": found.note}
    if options.folds:
        result["held_out"] = dataclasses.asdict(ensemble.hold_out(members, options.folds, options.seed or 0))
    if options.out:
        predictions.save(options.out, combined)
        result["out"] = str(options.out)
    several = [provenance.of(member) for member in members]
    names = provenance.labels(several)
    notes(several, names, result["crops"])
    if options.json:
        print(json.dumps(result, indent=2))
        return
    show(result, names)
    if found:
        print(f"note: {found.note}")
    if options.folds:
        show_held_out(result["held_out"])
    if options.out:
        print(f"wrote the average's predictions to {options.out}")


if __name__ == "__main__":
    cli.run(main)
