#!/usr/bin/env python3
"""Describe a net: a table of its layers, a picture, what differs from another, whether an edited file is sound."""

import argparse
import json
import os
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.errors import NetError
from tiny_imagenet.models import zoo

EXPORTED = "# Made by tools/describe.py --export-stock"
PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


def shape(text):
    name, _, dims = text.partition("=")
    try:
        sizes = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        sizes = ()
    if not name or not sizes or min(sizes) < 0 or max(sizes) > cli.LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: write a blob and its sizes, as in data=64,3,56,56")
    return name, sizes


def main():
    parser = cli.Parser(__doc__, "tools/describe.py model8 --draw model8.svg")
    parser.add_argument("source", metavar="MODEL|FILE", help=f"{zoo.NAMES}, or the prototxt of a net or a solver")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", metavar="MODEL|FILE", help="say what this one has otherwise")
    out = cli.checked(destination.check)
    what.add_argument("--draw", type=out, metavar="OUT", help="write a picture: .svg, .png or .pdf")
    what.add_argument("--check", action="store_true", help="say what is wrong and in which line; fail on errors")
    what.add_argument(
        "--export-stock", type=out, metavar="OUT", help="write the net in upstream's layer types, for other programs"
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
    if args.diff or args.export_stock or args.check:
        if args.phase or args.stage:
            parser.error("--phase and --stage go with the table or --draw: the rest looks at all of a file")
        if args.shape and not args.check:
            parser.error("--shape goes with the table, --draw or --check")

    from tiny_imagenet.inspect import describe, outline  # after the arguments: Caffe takes a moment to load

    describe.quiet()
    shapes = dict(args.shape)
    if args.check:
        return check(args, shapes)
    source = describe.load(args.source, PROTOTXT)
    if args.diff:
        return diff(args, source, describe.load(args.diff, PROTOTXT))
    if source.problem and (args.export_stock or args.draw):
        raise NetError(source.problem)
    if args.export_stock:
        return export(args, source)
    phase = args.phase or outline.default_phase(source.net)
    known = outline.stages(source.net)
    for stage in args.stage:
        if stage not in known:
            raise NetError(
                f"--stage {stage}: no include or exclude rule of {source.name} names it; they name "
                f"{', '.join(known) or 'no stage at all'}"
            )
    state = source.state(phase)
    net = outline.outline(source.net, phase, args.stage or state.stage, shapes, state.level)
    unknown = sorted(set(shapes) - {top for layer in net.layers if not layer.bottoms for top in layer.tops})
    if unknown:
        raise NetError(f"--shape {unknown[0]}: no data layer of the net makes a blob of that name in phase {phase}")
    if args.draw:
        from tiny_imagenet.inspect import drawing

        drawing.draw(net, args.draw)
        print(args.draw)
    elif args.json:
        print(json.dumps(describe.to_json(source, net, as_printed=not shapes), indent=2))
    else:
        print(describe.to_text(source, net, as_printed=not shapes), end="")
    return None


def check(args, shapes):
    from tiny_imagenet.inspect import describe, soundness

    findings = soundness.check(describe.find(args.source, PROTOTXT), shapes)
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    errors = sum(finding.error for finding in findings)
    if errors:
        raise NetError(f"{args.source} has {counted(errors, 'error')}")
    if not args.json:
        print(f"{args.source} is sound" + (f", with {counted(len(findings), 'warning')}" if findings else ""))


def counted(number, what):
    return f"{number} {what}" + ("" if number == 1 else "s")


def diff(args, a, b):
    from tiny_imagenet.inspect import net_diff

    for source in (a, b):
        if source.problem:
            raise NetError(source.problem)
    lines = net_diff.solvers(a.solver, b.solver) if a.names_solver and b.names_solver else []
    if a.names_solver != b.names_solver:
        cli.note(f"{(b if a.names_solver else a).name} is a net: the nets are compared, the solver is left out")
    inner = a.names_solver and a.net_path == a.path and b.names_solver and b.net_path == b.path
    if not inner:  # nets in their solvers have been compared with them
        lines += net_diff.nets(a.net, b.net)
    print(json.dumps(lines, indent=2) if args.json else "\n".join(lines) or "no difference")


def export(args, source):
    from tiny_imagenet import files
    from tiny_imagenet.export import stock
    from tiny_imagenet.models import nets

    out = args.export_stock
    if os.path.lexists(out) and not (out.is_file() and out.read_text(errors="replace").startswith(EXPORTED)):
        raise NetError(f"{out} exists and is no earlier export: name another file")
    header = f"{EXPORTED} of {files.shown(source.net_path)}: its net in the layer types of upstream's Caffe.\n\n"
    files.write_text(out, header + nets.to_text(stock.export(source.net)))
    print(args.export_stock)


if __name__ == "__main__":
    cli.run(main)
