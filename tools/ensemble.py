#!/usr/bin/env python3
"""Average the predictions of several nets and print how good each member and the average are."""

import argparse
import json

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


def main() -> None:
    parser = cli.Parser(
        __doc__, "tools/ensemble.py runs/model8/predictions.npz runs/model9/predictions.npz --out both.npz"
    )
    parser.add_argument(
        "predictions", nargs="+", metavar="PRED.npz", help="files that tools/evaluate.py wrote; at least two"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--weights", nargs="+", type=weight, metavar="W", help="one a file (default: all the same)")
    how.add_argument("--search", action="store_true", help="choose the weights greedily on these very images")
    parser.add_argument("--out", metavar="FILE.npz", help="write the average's predictions")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object (tools/report.py --ensemble reads it)"
    )
    options = parser.parse_args()
    if len(options.predictions) < 2:
        parser.error("an ensemble needs at least two files of predictions")
    if options.weights is not None and len(options.weights) != len(options.predictions):
        parser.error(f"{len(options.weights)} weights for {len(options.predictions)} files: give one weight a file")
    if options.out is not None and not options.out.endswith(".npz"):
        parser.error(f"--out {options.out!r} does not end in .npz")
    members = [predictions.load(path) for path in options.predictions]
    found = ensemble.search(members) if options.search else None
    weights = found.weights if found else options.weights
    combined = ensemble.average(members, weights)
    result = ensemble.describe(members, combined, weights)
    if found:
        result["search"] = {"order": found.order, "top1": found.top1, "note": found.note}
    if options.out:
        predictions.save(options.out, combined)
    if options.json:
        print(json.dumps(result, indent=2))
        return
    show(result)
    if found:
        print(f"note: {found.note}")


if __name__ == "__main__":
    cli.run(main)
