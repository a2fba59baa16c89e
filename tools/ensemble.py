#!/usr/bin/env python3
"""Average the predictions of several nets and print how good each member and the average are."""

import argparse
import dataclasses
import functools
import json
import os

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.evaluation import ensemble, origin, pedigree, predictions


def weight(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value


def show(result: dict, names: list[str]) -> None:
    rows = [("", "weight", "top-1 %", "95 % interval", "top-5 %", "error %", "images")]
    for scores, name, share in [
        *((member, name, f"{share:.3f}") for member, name, share in zip(result["members"], names, result["weights"])),
        (result["ensemble"], "ensemble", ""),
    ]:
        low, high = scores["top1_interval"] or (None, None)
        interval = "-" if low is None else f"{100 * low:.2f} to {100 * high:.2f}"
        values = ["-" if scores[key] is None else f"{100 * scores[key]:.2f}" for key in ("top1", "top5", "error")]
        images = str(scores["count"]) if scores["count"] else f"{scores['unlabelled']} without labels"
        rows.append((name, share, values[0], interval, values[1], values[2], images))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        print("  ".join(cells).rstrip())
    if (result["split"], result["crops"]) != ("val", pedigree.CENTRE):
        print(f"these are of the {pedigree.say(result['split'], result['crops'])}")


def show_held_out(held: dict) -> None:
    low, high = held["top1_interval"]
    print(
        f"held out, {len(held['folds'])} folds (seed {held['seed']}): top-1 {100 * held['top1']:.2f} % (95 % interval "
        f"{100 * low:.2f} to {100 * high:.2f}), on the images chosen on {100 * held['chosen_on']:.2f} %: {held['note']}"
    )


def load(options) -> list:
    if any(map(os.path.isdir, options.members)):
        from tiny_imagenet.evaluation import members  # Caffe takes a moment to load; files need none

        how = (options.split or "val", options.ten_crop, options.checkpoints, options.gpu, options.data)
        return members.load(options.members, *how)
    return [predictions.load(path) for path in options.members]


def refuse_twice(parser: cli.Parser, paths: list[str]) -> None:
    """End with bad use where a file or folder is named twice, under whatever names."""
    seen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            also = "" if seen[real] == path else f", as {seen[real]} too"
            parser.error(f"{path} is given twice{also}: name each member once; --weights says how much one counts")
        seen[real] = path


def tell(several: list[pedigree.Pedigree], names: list[str], crops: str | None) -> None:
    """Say what a person may not expect of the members."""
    for one in several:
        if pedigree.moved(one):
            cli.note(f"note: {one.path} is {pedigree.moved(one)}: evaluate it again")
    if crops == pedigree.MIXED:
        own = ((name, pedigree.say_crops(one.crops)) for name, one in zip(names, several))
        said = ", ".join(name if crops in name else f"{name} {crops}" for name, crops in own)
        cli.note(f"note: the members differ in their crops: {said}")
    if len(several) == 1:
        cli.note(f"note: {names[0]} is the only member, so that the average is its own predictions")


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
    parser.add_argument("--split", choices=origin.SPLITS, help="of run folders (val)")
    parser.add_argument("--ten-crop", action="store_true", help="of run folders, the predictions by ten crops")
    parser.add_argument(
        "--data", metavar="DIR", help="with --checkpoints: predict what tools/convert.py wrote there (the run's data)"
    )
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
    parser.add_argument("--seed", type=cli.count, metavar="S", help="of the folds (0)")
    out = cli.checked(functools.partial(destination.check, ending=".npz"))
    parser.add_argument("--out", type=out, metavar="FILE.npz", help="write the average's predictions")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (tools/report.py --ensemble reads it)"
    )
    options = parser.parse_args()
    if len(options.members) < 2 and not options.checkpoints:
        parser.error("an ensemble needs at least two files or run folders, or one run folder with --checkpoints")
    if options.weights is not None and not options.checkpoints and len(options.weights) != len(options.members):
        parser.error(f"{len(options.weights)} weights for {len(options.members)} members: give one weight a member")
    if options.weights is not None and not any(options.weights):
        parser.error("the weights are all 0: at least one must be above 0")
    if (options.split or options.ten_crop) and not any(map(os.path.isdir, options.members)):
        parser.error("--split and --ten-crop say which predictions of run folders: files are taken as they are")
    for flag in ("gpu", "data"):
        if getattr(options, flag) is not None and not options.checkpoints:
            parser.error(f"--{flag} is for what --checkpoints predicts: averages are made of files that are there")
    if options.folds is not None and not options.search:
        parser.error("--folds says how --search is scored: give both")
    if options.seed is not None and options.folds is None:
        parser.error("--seed deals out the folds of --folds: give both")
    if options.folds == 1:
        parser.error("--folds 1 leaves nothing to choose on: at least 2 are needed")
    refuse_twice(parser, options.members)
    members = load(options)
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
    several = [pedigree.of(member) for member in members]
    names = pedigree.labels(several)
    tell(several, names, result["crops"])
    if options.json:
        print(json.dumps(result, indent=2))
        return
    show(result, names)
    if found:
        print(f"note: {found.note}")
    if options.folds:
        show_held_out(result["held_out"])
    if options.out:
        print(f"the average's predictions are in {options.out}")


if __name__ == "__main__":
    cli.run(main)
