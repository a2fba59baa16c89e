#!/usr/bin/env python3
"""Write the prototxt files of the paper's models."""

from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli, generate, zoo
from tiny_imagenet.errors import NetError

PROTOTXT = Path(__file__).resolve().parent.parent / "prototxt"


def main():
    parser = cli.Parser(__doc__, "tools/generate.py model8 --classes 10 --out /tmp/prototxt")
    parser.add_argument("models", metavar="MODEL", nargs="*", help="model1 ... model9 (default: all)")
    parser.add_argument("--out", type=Path, default=PROTOTXT, metavar="DIR", help="where to (default: prototxt)")
    parser.add_argument("--classes", type=cli.positive_int, metavar="N", help="outputs of the last layer (200)")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is not what would be written"
    )
    parser.add_argument("--force", action="store_true", help="write over files that were edited by hand")
    args = parser.parse_args()

    models = [zoo.get(name) for name in args.models or zoo.MODELS]
    arguments = ""
    if args.classes:
        models = [model.replace(classes=args.classes) for model in models]
        arguments = f"--classes {args.classes}"
    if args.check:
        stale = [path for model in models for path in generate.differing(model, args.out, arguments)]
        if stale:
            raise NetError(
                f"{stale[0]} is not what tools/generate.py makes ({len(stale)} such): run it, or keep the edit"
            )
        print(f"{len(models)} models are what tools/generate.py makes")
        return
    for model in models:
        for path in generate.write(model, args.out, arguments, args.force):
            print(path)


if __name__ == "__main__":
    cli.run(main)
