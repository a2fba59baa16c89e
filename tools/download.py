#!/usr/bin/env python3
"""Fetch Tiny ImageNet's public archive, check it and unpack it; after a break, the same command goes on."""

import re
import sys

import _venv  # noqa: F401
from tiny_imagenet import cli

DAY = 24 * 60 * 60


def main() -> None:
    from tiny_imagenet.data import download, safe_zip  # here: Ctrl-C meanwhile is one line too

    parser = cli.Parser(__doc__, "tools/download.py tiny-imagenet-200")
    parser.add_argument("out", metavar="OUT", help="the folder to make; it must not exist or be empty")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", default=download.URL, metavar="URL", help=f"of the archive (default: {download.URL})")
    source.add_argument("--archive", metavar="FILE", help="unpack this archive; nothing is fetched")
    parser.add_argument(
        "--md5",
        default=download.MD5,
        metavar="SUM",
        help=f"of the archive (default: {download.MD5}); none: another archive, not compared",
    )
    parser.add_argument("--keep-archive", action="store_true", help="keep the fetched archive as OUT.zip")
    parser.add_argument(
        "--timeout",
        type=cli.positive_float,
        default=download.TIMEOUT,
        metavar="SECONDS",
        help=f"without a byte from the server that end a try (default: {download.TIMEOUT:g})",
    )
    parser.add_argument(
        "--tries",
        type=cli.positive_int,
        default=download.TRIES,
        metavar="N",
        help=f"in a row that may fail (default: {download.TRIES})",
    )
    args = parser.parse_args()
    if not args.url.lower().startswith(download.SCHEMES):
        parser.error(f"argument --url: {args.url!r} does not begin with {' or '.join(download.SCHEMES)}")
    if args.md5 != "none" and not re.fullmatch("[0-9a-fA-F]{32}", args.md5):
        parser.error(f"argument --md5: {args.md5!r} is neither 32 hexadecimal digits nor none")
    if args.timeout > DAY:
        parser.error(f"argument --timeout: {args.timeout:g} is too long: at most {DAY} seconds")
    if args.archive and args.keep_archive:
        parser.error("argument --keep-archive: not with --archive, whose file stays where it is")

    try:
        kept = download.download(
            args.out,
            url=args.url,
            md5=None if args.md5 == "none" else args.md5,
            archive=args.archive,
            timeout=args.timeout,
            tries=args.tries,
            keep_archive=args.keep_archive,
        )
    except KeyboardInterrupt:
        size = download.kept(args.out)
        state = f": {safe_zip.megabytes(size)} are kept: {safe_zip.AGAIN}" if size else ""
        print(f"{parser.prog}: error: interrupted{state}", file=sys.stderr)
        sys.exit(130)
    cli.say(f"wrote {args.out}" + (f", kept {kept}" if kept else ""))


if __name__ == "__main__":
    cli.run(main)
