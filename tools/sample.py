#!/usr/bin/env python3
"""Write a small data set of handwritten digits in Tiny ImageNet's layout."""

import _venv  # noqa: F401
from tiny_imagenet import cli
from tiny_imagenet.data import sample


def main() -> None:
    parser = cli.Parser(__doc__, "tools/sample.py data/sample --train 4000 --val 500")
    parser.add_argument("out", metavar="OUT", help="the folder to make; it must not exist or be empty")
    for split, default in (("train", 4000), ("val", 500), ("test", 500)):
        text = f"{split} images, at least {sample.CLASSES} (default: {default})"
        parser.add_argument(f"--{split}", type=cli.positive_int, default=default, metavar="N", help=text)
    parser.add_argument(
        "--seed", type=cli.count, default=0, metavar="S", help="another seed, other images (default: 0)"
    )
    args = parser.parse_args()
    for split in ("train", "val", "test"):
        number = getattr(args, split)
        if number < sample.CLASSES:
            parser.error(f"argument --{split}: {number} is too few: at least {sample.CLASSES}, one image a class")

    sample.write(args.out, train=args.train, val=args.val, test=args.test, seed=args.seed)
    print(f"wrote {args.out}: {args.train} train, {args.val} val, {args.test} test images of {sample.CLASSES} classes")


if __name__ == "__main__":
    cli.run(main)
