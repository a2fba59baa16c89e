#!/usr/bin/env python3
"""Describe a net: a table of its layers, a picture, what differs from another, whether an edited file is sound."""

import argparse
import json
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.errors import NetError

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


def shape(text):
    name, _, dims = text.partition("=")
    try:
        sizes = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        sizes = ()
    if not name or not sizes or min(sizes) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write a blob and its sizes, as in data=64,3,56,56")
    return name, sizes


def main():
    parser = cli.Parser(__doc__, "tools/describe.py model8 --draw model8.svg")
    parser.add_argument("source", metavar="MODEL|FILE", help="model1 ... model9, or the prototxt of a net or a solver")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", metavar="MODEL|FILE", help="say what this one has otherwise")
    what.add_argument("--draw", type=Path, metavar="OUT", help="write a picture: .svg, .png or .pdf")
    what.add_argument("--check", action="store_true", help="say what is wrong and in which line; fail on errors")
    what.add_argument(
        "--export-stock", type=Path, metavar="OUT", help="write the net in upstream's layer types, for other programs"
    )
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), help="which of its nets (default: training, if it has one)"
    )
    parser.add_argument("--stage", action="append", default=[], help="a stage that include rules ask for")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="BLOB=N,C,H,W",
        help="of a blob whose data is not here",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    args = parser.parse_args()
    if args.json and (args.draw or args.export_stock):
        parser.error("--json goes with the table, --diff or --check")

    from tiny_imagenet import describe, outline  # after the arguments: Caffe takes a moment to load

    shapes = dict(args.shape)
    if args.check:
        return check(args, shapes)
    source = describe.load(args.source, PROTOTXT)
    if args.diff:
        return diff(args, source, describe.load(args.diff, PROTOTXT))
    if args.export_stock:
        return export(args, source)
    phase = args.phase or outline.default_phase(source.net)
    net = outline.outline(source.net, phase, args.stage or source.stages(phase), shapes)
    unknown = sorted(set(shapes) - {top for layer in net.layers for top in layer.tops})
    if unknown:
        raise NetError(f"--shape {unknown[0]}: the net has no blob of that name in its {phase} phase")
    if args.draw:
        from tiny_imagenet import drawing

        drawing.draw(net, args.draw)
        print(args.draw)
    elif args.json:
        print(json.dumps(describe.to_json(source, net), indent=2))
    else:
        print(describe.to_text(source, net), end="")
    return None


def check(args, shapes):
    from tiny_imagenet import describe, soundness

    file = Path(args.source)
    if not file.exists():
        file = describe.load(args.source, PROTOTXT).solver_path
    findings = soundness.check(file, shapes)
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    errors = sum(finding.error for finding in findings)
    if errors:
        raise NetError(f"{args.source} has {errors} error{'s' if errors > 1 else ''}")
    if not args.json:
        print(f"{args.source} is sound" + (f", with {len(findings)} warnings" if findings else ""))


def diff(args, a, b):
    from tiny_imagenet import net_diff

    if bool(a.solver) != bool(b.solver):
        raise NetError(f"{args.source} and {args.diff} are a net and a solver: compare two of a kind")
    lines = net_diff.solvers(a.solver, b.solver) if a.solver else []
    if not (a.solver and a.net_path == a.solver_path and b.net_path == b.solver_path):
        lines += net_diff.nets(a.net, b.net)
    print(json.dumps(lines, indent=2) if args.json else "\n".join(lines) or "no difference")


def export(args, source):
    from tiny_imagenet import files, nets, stock

    files.write_text(args.export_stock, nets.to_text(stock.export(source.net)))
    print(args.export_stock)


if __name__ == "__main__":
    cli.run(main)
