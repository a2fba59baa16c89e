#!/usr/bin/env python3
"""Describe a net: a table of its layers, a picture, its differences from another net, mistakes in an edited file."""

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
        raise argparse.ArgumentTypeError(f"expected a blob and its sizes as in data=64,3,56,56, got {text!r}")
    return name, sizes


def main():
    parser = cli.Parser(__doc__, "tools/describe.py model8 --draw model8.svg")
    parser.add_argument("source", metavar="MODEL|FILE", help=f"{zoo.NAMES}, or the prototxt of a net or a solver")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", metavar="MODEL|FILE", help="list the differences of this one")
    out = cli.checked(destination.check)
    what.add_argument("--draw", type=out, metavar="OUT", help="write a picture: .svg, .png or .pdf")
    what.add_argument("--check", action="store_true", help="list mistakes with their lines; fail on errors")
    what.add_argument(
        "--export-stock", type=out, metavar="OUT", help="write the net in upstream Caffe's own layer types"
    )
    parser.add_argument(
        "--phase", choices=("TRAIN", "TEST"), help="phase of the net (default: TRAIN, if it can be trained)"
    )
    parser.add_argument("--stage", action="append", default=[], metavar="NAME", help="a stage for include rules")
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="BLOB=N,C,H,W",
        help="shape of a blob of missing data",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    if args.json and (args.draw or args.export_stock):
        parser.error("--json applies to the table, --diff and --check only")
    if args.diff or args.export_stock or args.check:
        if args.phase or args.stage:
            parser.error("--phase and --stage apply to the table and --draw only")
        if args.shape and not args.check:
            parser.error("--shape applies to the table, --draw and --check only")

    from tiny_imagenet.inspect import describe, outline  # after the arguments: Caffe takes a moment to load

    describe.quiet()
    shapes = dict(args.shape)
    if args.check:
        return check(args, shapes)
    source = describe.load(args.source, PROTOTXT)
    if args.diff:
        return compare(args, source, describe.load(args.diff, PROTOTXT))
    if source.problem and (args.export_stock or args.draw):
        raise NetError(source.problem)
    if args.export_stock:
        return export(args, source)
    phase = args.phase or outline.default_phase(source.net)
    known = outline.stages(source.net)
    for stage in args.stage:
        if stage not in known:
            hint = cli.did_you_mean(stage, known)
            raise NetError(f"--stage {stage}: the rules of {source.name} name {', '.join(known) or 'no stage'}.{hint}")
    state = source.state(phase)
    net = outline.outline(source.net, phase, args.stage or state.stage, shapes, state.level)
    unknown = sorted(set(shapes) - {top for layer in net.layers if not layer.bottoms for top in layer.tops})
    if unknown:
        made = sorted({top for layer in net.layers if not layer.bottoms for top in layer.tops})
        hint = cli.did_you_mean(unknown[0], made)
        raise NetError(f"--shape {', '.join(unknown)}: the data layers of phase {phase} make {', '.join(made)}.{hint}")
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
    from tiny_imagenet.inspect import describe, lint

    findings = lint.check(describe.find(args.source, PROTOTXT), shapes)
    if args.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    errors = sum(finding.is_error for finding in findings)
    if errors:
        raise NetError(f"{args.source} has {counted(errors, 'error')}")
    if not args.json:
        print(f"{args.source}: {counted(len(findings), 'warning') if findings else 'no mistakes found'}")


def counted(number, what):
    return f"{number} {what}" + ("" if number == 1 else "s")


def compare(args, a, b):
    from tiny_imagenet.inspect import diff

    for source in (a, b):
        if source.problem:
            raise NetError(source.problem)
    changes = diff.solvers(a.solver, b.solver) if a.names_solver and b.names_solver else []
    if a.names_solver != b.names_solver:
        cli.note(f"{(b if a.names_solver else a).name} is a net: only the nets are compared")
    inner = a.names_solver and a.net_path == a.path and b.names_solver and b.net_path == b.path
    if not inner:  # nets written in solvers are compared with the solvers
        changes += diff.nets(a.net, b.net)
    lines = list(map(str, changes))
    print(json.dumps(lines, indent=2) if args.json else "\n".join(lines) or "no difference")


def export(args, source):
    from tiny_imagenet import files
    from tiny_imagenet.export import stock
    from tiny_imagenet.models import nets

    out = args.export_stock
    if os.path.lexists(out) and not (out.is_file() and out.read_text(errors="replace").startswith(EXPORTED)):
        raise NetError(f"{out} exists and is not an earlier export: name another file")
    header = f"{EXPORTED} of {files.shown(source.net_path)}: in upstream Caffe's layer types.\n\n"
    files.write_text(out, header + nets.to_text(stock.export(source.net)))
    print(args.export_stock)


if __name__ == "__main__":
    cli.run(main)
