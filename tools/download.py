#!/usr/bin/env python3
"""Fetch the public archive of Tiny ImageNet, check it and unpack it; run again to resume after an interruption."""

import re
import sys

import _venv  # noqa: F401
from tiny_imagenet import cli

DAY = 24 * 60 * 60


def main() -> None:
    from tiny_imagenet.data import download  # slow to import: Ctrl-C during it is handled by cli.run

    parser = cli.Parser(__doc__, "tools/download.py tiny-imagenet-200")
    parser.add_argument("out", metavar="OUT", help="folder to create; it must not exist or be empty")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", default=download.URL, metavar="URL", help=f"archive (default: {download.URL})")
    source.add_argument("--archive", metavar="FILE", help="unpack this archive instead of fetching one")
    parser.add_argument(
        "--md5", default=download.MD5, metavar="SUM", help=f"its checksum, or none (default: {download.MD5})"
    )
    parser.add_argument("--keep-archive", action="store_true", help="keep the fetched archive as OUT.zip")
    parser.add_argument(
        "--timeout",
        type=cli.positive_float,
        default=download.TIMEOUT,
        metavar="SECONDS",
        help=f"a try fails after this time without data (default: {download.TIMEOUT:g})",
    )
    parser.add_argument(
        "--tries",
        type=cli.positive_int,
        default=download.TRIES,
        metavar="N",
        help=f"failed tries in a row before giving up (default: {download.TRIES})",
    )
    args = parser.parse_args()
    if not args.url.lower().startswith(download.SCHEMES):
        parser.error(f"argument --url: expected {' or '.join(download.SCHEMES)}..., got {args.url!r}")
    if args.md5 != "none" and not re.fullmatch("[0-9a-fA-F]{32}", args.md5):
        parser.error(f"argument --md5: expected 32 hexadecimal digits or none, got {args.md5!r}")
    if args.timeout > DAY:
        parser.error(f"argument --timeout: expected at most {DAY} seconds, got {args.timeout:g}")
    if args.archive and args.keep_archive:
        parser.error("argument --keep-archive: not allowed with argument --archive")
    md5 = None if args.md5 == "none" else args.md5
    kept = None
    try:
        if args.archive:
            download.unpack(args.archive, args.out, md5)
        else:
            kept = download.fetch(args.out, args.url, md5, args.timeout, args.tries, args.keep_archive)
    except KeyboardInterrupt:
        print(f"{parser.prog}: error: interrupted: run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    cli.say(f"wrote {args.out}" + (f", kept {kept}" if kept else ""))


if __name__ == "__main__":
    cli.run(main)
