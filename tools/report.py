#!/usr/bin/env python3
"""Write a self-contained HTML page about runs: results and the paper's, curves, errors, nets, commands."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import _venv  # noqa: F401
from tiny_imagenet import cli, destination
from tiny_imagenet.inspect import describe
from tiny_imagenet.report import page


def main() -> None:
    parser = cli.Parser(__doc__, "tools/report.py runs/model1 runs/model2 --ensemble both.json --out report.html")
    runs = "run folders of tools/train.py, also of a training that is still running"
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=runs)
    ensembles = {"nargs": "+", "action": "extend", "default": [], "type": Path, "metavar": "FILE.json"}
    parser.add_argument("--ensemble", **ensembles, help="output of tools/ensemble.py --json")
    data = "folder with the misclassified images (default: the runs' data)"
    parser.add_argument("--data", type=Path, metavar="DIR", help=data)
    every = "rewrite the page at this interval until no run is training; the page reloads itself"
    parser.add_argument("--every", type=cli.positive_int, metavar="SECONDS", help=every)
    out = cli.checked(functools.partial(destination.check, ending=".html"))
    parser.add_argument("--out", required=True, type=out, metavar="FILE.html", help="the page to write")
    options = parser.parse_args()
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data: {options.data} is not a folder")
    describe.quiet()
    while page.build(options.runs, options.out, options.ensemble, options.data, options.every) and options.every:
        time.sleep(options.every)
    print(options.out)


if __name__ == "__main__":
    cli.run(main)
