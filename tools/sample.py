#!/usr/bin/env python3
"""Write a small data set of handwritten digits in Tiny ImageNet's layout."""

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.data import sample


def main() -> None:
    parser = cli.Parser(__doc__, "tools/sample.py data/sample --train 4000 --val 500")
    parser.add_argument("out", metavar="OUT", help="folder to create; it must not exist or be empty")
    for split, default in (("train", 4000), ("val", 500), ("test", 500)):
        text = f"number of {split} images, at least {sample.CLASSES} (default: {default})"
        parser.add_argument(f"--{split}", type=cli.positive_int, default=default, metavar="N", help=text)
    parser.add_argument(
        "--seed", type=cli.count, default=0, metavar="S", help="seed of the random drawing (default: 0)"
    )
    args = parser.parse_args()
    for split in ("train", "val", "test"):
        number = getattr(args, split)
        if number < sample.CLASSES:
            parser.error(f"argument --{split}: expected at least {sample.CLASSES}, one image per class, got {number}")

    sample.write(args.out, train=args.train, val=args.val, test=args.test, seed=args.seed)
    print(f"wrote {args.out}: {args.train} train, {args.val} val, {args.test} test images of {sample.CLASSES} classes")


if __name__ == "__main__":
    cli.run(main)
