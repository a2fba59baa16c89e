#!/usr/bin/env python3
"""Convert a data set in Tiny ImageNet's layout to LMDBs, a mean image and a manifest; or verify the result."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from fractions import Fraction

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.experiment import schedulers

OPTIONS = ("seed", "encoded", "resize", "skip_unreadable", "crop", "min_visible")


def identity(path: str) -> tuple[int, int] | None:
    return (os.stat(path).st_dev, os.stat(path).st_ino) if os.path.exists(path) else None


def main() -> None:
    parser = cli.Parser(__doc__, "tools/convert.py tiny-imagenet-200 data")
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="folder with wnids.txt, train/, val/ and test/")
    parser.add_argument("out", metavar="OUT", nargs="?", help="folder to create; it must not exist or be empty")
    parser.add_argument(
        "--verify", metavar="OUT", help="check every record of a converted data set against its manifest"
    )
    parser.add_argument("--replace", action="store_true", help="replace a converted data set in OUT")
    parser.add_argument("--workers", type=cli.positive_int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--seed", type=cli.count, default=0, metavar="S", help="seed of the shuffle (default: 0)")
    parser.add_argument("--encoded", action="store_true", help="store image files: smaller, slower to read")
    parser.add_argument(
        "--resize", action="store_true", help="resize images of another size to 64x64 instead of refusing them"
    )
    parser.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out unreadable images, validation images without a class and annotations without an image",
    )
    parser.add_argument(
        "--crop", type=cli.at_most(64), default=56, metavar="N", help="screening: side of a crop in pixels (56)"
    )
    parser.add_argument(
        "--min-visible",
        type=cli.share,
        default=Fraction(1, 4),
        metavar="SHARE",
        help="screening: fraction of an object that every crop must show (1/4)",
    )
    schedulers.add_scheduler(
        parser, "decode on the workers of a Dask cluster; with local or slurm, --workers (2) start"
    )
    args = parser.parse_args()
    if args.verify is not None:
        given = [name for name, value in vars(args).items() if name != "verify" and value != parser.get_default(name)]
        if given:
            flag = repr(args.dataset) if args.dataset else f"--{given[0].replace('_', '-')}"
            parser.error(f"--verify takes OUT alone, not {flag} as well")
        from tiny_imagenet.data import verify

        cli.say(*verify.verify(args.verify))
        return
    schedulers.check_arguments(parser, args.scheduler, args.workers)
    if not args.out:
        parser.error("DATASET and OUT are needed, or --verify OUT")

    from tiny_imagenet.data import convert  # slow to import

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: cleans up
    start, before = time.monotonic(), identity(args.out)
    options = {name: getattr(args, name) for name in OPTIONS}
    try:
        with contextlib.ExitStack() as stack:
            executor = None
            if args.scheduler:
                from tiny_imagenet.experiment import cluster

                executor = stack.enter_context(cluster.executor(args.scheduler, args.workers, args.dataset))
            manifest = convert.convert(
                args.dataset, args.out, workers=args.workers, replace=args.replace, executor=executor, **options
            )
    except KeyboardInterrupt:
        state = "unchanged" if identity(args.out) == before else "complete"
        print(f"{parser.prog}: error: interrupted: {args.out} is {state}", file=sys.stderr)
        sys.exit(130)
    lines = [f"{name + '.lmdb':<20}{entry['count']:>8,} images" for name, entry in manifest["lmdbs"].items()]
    screening = manifest["screening"]
    default = (args.crop, args.min_visible) == (56, Fraction(1, 4))
    of_paper = " (in the paper: 1,535)" if default else f" (crop {args.crop}, {args.min_visible})"
    lines.append(f"{'dropped':<20}{len(screening['dropped']):>8,} by screening{of_paper}")
    lines.append(f"{'under 8x8':<20}{manifest['small_objects']:>8,} training objects (in the paper: 1,891)")
    rest = [
        ("without a box", screening["without_box"], "training images, kept"),
        ("mended boxes", len(manifest["mended_boxes"]), "lines, sorted, clipped or ignored"),
        ("empty classes", len(manifest["empty_classes"]), "without training images"),
        ("resized", len(manifest["resized"]), "images"),
        ("re-encoded", len(manifest["reencoded"]), "images, stored as PNG"),
        ("unreadable", len(manifest["unreadable"]), "images, left out"),
        ("unlabelled", len(manifest["unlabelled"]), "validation images, left out"),
        ("missing", len(manifest["missing"]), "annotated images, ignored"),
    ]
    for what, count, more in rest:
        if count:
            lines.append(f"{what:<20}{count:>8,} {more} (see {args.out}/manifest.json)")
    cli.say(*lines, f"wrote {args.out} in {time.monotonic() - start:.1f} seconds")


if __name__ == "__main__":
    cli.run(main)
