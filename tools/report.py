#!/usr/bin/env python3
"""Write one self-contained HTML page about runs: results beside the paper's, curves, errors, nets, commands."""

from __future__ import annotations

import functools
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.inspect import describe
from tiny_imagenet.report import page


def main() -> None:
    parser = cli.Parser(__doc__, "tools/report.py runs/model1 runs/model2 --ensemble both.json --out report.html")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders of tools/train.py")
    parser.add_argument(
        "--ensemble", nargs="+", action="extend", default=[], type=Path, metavar="FILE.json",
        help="what tools/ensemble.py --json printed",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="where the images are that the runs get wrong (the runs' data)"
    )
    out = cli.checked(functools.partial(destination.check, ending=".html"))
    parser.add_argument("--out", required=True, type=out, metavar="FILE.html", help="the page to write")
    options = parser.parse_args()
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {str(options.data)!r} is no folder: name one that tools/convert.py wrote")
    describe.quiet()
    page.build(options.runs, options.out, options.ensemble, options.data)
    print(options.out)


if __name__ == "__main__":
    cli.run(main)
