#!/usr/bin/env python3
"""Converts a data set in Tiny ImageNet's layout to LMDBs, a mean image and a manifest."""

import time

import _venv  # noqa: F401
from tiny_imagenet import cli, convert


def main() -> None:
    parser = cli.Parser(__doc__, "tools/convert.py data/tiny-imagenet-200 data/lmdb")
    parser.add_argument("dataset", metavar="DATASET", help="the folder with wnids.txt, train/, val/ and test/")
    parser.add_argument("out", metavar="OUT", help="the folder to make; it must not exist or be empty")
    parser.add_argument("--workers", type=cli.positive_int, metavar="N", help="processes (default: one a core)")
    parser.add_argument("--seed", type=cli.count, default=0, metavar="S", help="of the shuffle (default: 0)")
    parser.add_argument("--encoded", action="store_true", help="keep the image files' bytes: smaller, slower to read")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave unreadable images out and list them")
    args = parser.parse_args()

    start = time.monotonic()
    manifest = convert.convert(
        args.dataset,
        args.out,
        workers=args.workers,
        seed=args.seed,
        encoded=args.encoded,
        skip_unreadable=args.skip_unreadable,
    )
    for name, entry in manifest["lmdbs"].items():
        print(f"{name + '.lmdb':<20}{entry['count']:>8,} images")
    print(
        f"{'dropped':<20}{len(manifest['screening']['dropped']):>8,} by screening (the paper, on the real data: 1,535)"
    )
    print(f"{'under 8x8':<20}{manifest['small_objects']:>8,} training objects (the paper: 1,891)")
    if manifest["screening"]["without_box"]:
        print(f"{'without a box':<20}{manifest['screening']['without_box']:>8,} training images, kept")
    if manifest["unreadable"]:
        print(f"{'unreadable':<20}{len(manifest['unreadable']):>8,} images, left out (see {args.out}/manifest.json)")
    print(f"wrote {args.out} in {time.monotonic() - start:.1f} seconds")


if __name__ == "__main__":
    cli.run(main)
