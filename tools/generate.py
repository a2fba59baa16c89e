#!/usr/bin/env python3
"""Write the prototxt files of the models."""

import argparse
import shlex
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.errors import NetError
from tiny_imagenet.models import generate, zoo

TOOLS = Path(__file__).resolve().parent
PROTOTXT = TOOLS.parent / "prototxt"


def setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE as in draw=TEN_CROP, got {text!r}")
    return name, value


def main():
    parser = cli.Parser(
        __doc__, "tools/generate.py model8 --classes 10 --crop 48 --set draw=TEN_CROP --out /tmp/prototxt"
    )
    names = ", ".join(zoo.VARIANTS)
    parser.add_argument("models", metavar="MODEL", nargs="*", help=f"{zoo.NAMES} (default: all), or a variant: {names}")
    parser.add_argument("--name", metavar="NAME", help="name of the variant and its folder, for one MODEL")
    parser.add_argument("--out", type=Path, default=PROTOTXT, metavar="DIR", help="output folder (default: prototxt)")
    parser.add_argument("--classes", type=cli.positive_int, metavar="N", help="outputs of the last layer (200)")
    parser.add_argument("--crop", type=cli.positive_int, metavar="N", help="side of the input in pixels (56)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=setting,
        metavar="FIELD=VALUE",
        help="any other field of tiny_imagenet.models.zoo.Model, such as batch_norm=true, hidden=512,512, shallow=",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is missing or differs")
    parser.add_argument("--force", action="store_true", help="overwrite files that were edited by hand")
    args = parser.parse_args()

    if args.name and len(args.models) != 1:
        parser.error("--name needs exactly one MODEL")
    given = (("name", args.name), ("classes", args.classes), ("crop", args.crop))
    changes = {name: value for name, value in given if value}
    arguments = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in changes.items())
    for name, value in args.set:
        if name in changes:
            parser.error(f"{name} is set twice")
        changes[name] = zoo.parse_field(name, value)
        arguments += f" --set {shlex.quote(f'{name}={value}')}"
    if args.out.resolve() != PROTOTXT:
        arguments += f" --out {shlex.quote(args.out.resolve().name)}"
    models = [zoo.get(name).replace(**changes) for name in args.models or zoo.MODELS]
    origin = args.models[0] if args.name else ""
    if args.check:
        stale = [path for model in models for path in generate.differing(model, args.out, TOOLS, arguments, origin)]
        if stale:
            more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
            raise NetError(f"{stale[0]}{more} differs from what tools/generate.py writes: run it, or keep the edit")
        print(f"the files of {len(models)} models are up to date")
        return
    for path in generate.write(models, args.out, TOOLS, arguments, origin, args.force):
        print(path)


if __name__ == "__main__":
    cli.run(main)
