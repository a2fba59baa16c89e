"""Argument parsing, one-line errors, exit statuses and progress for the scripts of tools/.

Exit status 0 is success, 1 a failure, 2 bad use, 130 an interruption. Errors are one line on stderr.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, TypeVar

from tiny_imagenet.errors import TinyImageNetError

T = TypeVar("T")
LARGEST = 2**31 - 1  # limit of the int32 fields of Caffe's messages


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with an example in its help and errors of one line."""

    def __init__(self, description: str, example: str):
        super().__init__(
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ").split("=")[0].split(" ")[0]
        if unknown != message and unknown.startswith("-"):
            message += f":{did_you_mean(unknown, self._option_string_actions)}".rstrip(":")
        chosen = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if chosen:
            message += did_you_mean(chosen[1], re.findall(r"[^', ]+", chosen[2]))
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" with the nearest of the `known` names, or "" if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


class Command(Parser):
    """Parser of a subcommand; argparse passes it the name of the whole command."""

    def __init__(self, *, prog: str, **options: str):
        super().__init__(**options)
        self.prog = prog


def positive_int(text: str) -> int:
    """An argparse type: an integer from 1 to 2**31 - 1."""
    return _whole(text, 1)


def count(text: str) -> int:
    """An argparse type: an integer from 0 to 2**31 - 1."""
    return _whole(text, 0)


def _whole(text: str, least: int, most: int = LARGEST) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}, got {text!r}")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def factor(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    value = positive_float(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and below 1, got {text!r}")
    return value


def gpu(text: str) -> int | None:
    """An argparse type: the number of one GPU, or "none" for None."""
    if "," in text or text == "all":
        raise argparse.ArgumentTypeError(f"expected the number of one GPU, got {text!r}: only training uses several")
    return None if text == "none" else _gpu(text)


def gpus(text: str) -> tuple[int, ...] | str:
    """An argparse type: the numbers of GPUs, "all", or "none" for no GPU."""
    if text == "all":
        return text
    numbers = () if text == "none" else tuple(map(_gpu, text.split(",")))
    for number in numbers:
        if numbers.count(number) > 1:
            raise argparse.ArgumentTypeError(f"GPU {number} is named twice in {text!r}: name each once")
    return numbers


def _gpu(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5):
        raise argparse.ArgumentTypeError(
            f"expected GPU numbers as listed by nvidia-smi -L, separated by commas, or none for the CPU; got {text!r}"
        )
    return int(text)


def at_most(limit: int) -> Callable[[str], int]:
    """An argparse type: an integer from 1 to `limit`."""
    return lambda text: _whole(text, 1, limit)


def checked(*checks: Callable[[str], None]) -> Callable[[str], Path]:
    """An argparse type: a path accepted by all `checks`, which raise TinyImageNetError otherwise."""

    def path(text: str) -> Path:
        try:
            for check in checks:
                check(text)
        except TinyImageNetError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return Path(text)

    return path


def share(text: str) -> Fraction:
    """An argparse type: a fraction from 0 to 1, written as 1/4 or 0.25."""
    try:
        value = Fraction(text) if len(text) <= 20 and "e" not in text.lower() else Fraction(-1)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a fraction from 0 to 1 such as 1/4 or 0.25, got {text[:40]!r}")
    return value


def add_gpus(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --gpu (described by `what`), --tf32 and --deterministic; each is None by default."""
    parser.add_argument("--gpu", type=gpus, dest="gpus", metavar="N[,N...]|all|none", help=what)
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--tf32", action=switch, help="GPU: round factors to TF32, which is faster (default: no)")
    parser.add_argument(
        "--deterministic", action=switch, help="GPU: the same bits in every run, but slower (default: no)"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint: best, last or an iteration; None by default."""
    parser.add_argument("--checkpoint", metavar="best|last|ITER", help="weights of the run to use (default: best)")


def add_predicting(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every prediction: --checkpoint, --ten-crop, --data and --gpu."""
    add_checkpoint(parser)
    crops = "average the four corners, the centre and their mirrors"
    parser.add_argument("--ten-crop", action="store_true", help=crops)
    parser.add_argument("--data", type=Path, metavar="DIR", help="converted data set (default: the run's)")
    parser.add_argument("--gpu", type=gpu, metavar="N", help="compute on this GPU (default: the CPU)")


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and exit with the status described above."""
    prog = os.path.basename(sys.argv[0])
    try:
        main()
        if sys.stdout:  # None if it is closed
            sys.stdout.flush()
    except TinyImageNetError as error:
        sys.exit(_fail(prog, error, getattr(error, "status", 1)))
    except BrokenPipeError:  # the reader of our output (head, for example) was closed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, UnicodeError) as error:  # a disk, a permission, a file that is not UTF-8
        sys.exit(_fail(prog, error, 1))
    except KeyboardInterrupt:
        sys.exit(_fail(prog, "interrupted", 130))
    sys.exit(0)


def _fail(prog: str, error: object, status: int) -> int:
    print(f"{prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def say(*lines: str) -> None:
    """Print results; a closed or full stdout is not an error."""
    try:
        sys.stdout.reconfigure(errors="backslashreplace")
        print(*lines, sep="\n", flush=True)
    except (AttributeError, OSError, ValueError):  # closed, a pipe without a reader, or a full disk
        null = open(os.devnull, "w")  # noqa: SIM115
        if sys.stdout is None:
            sys.stdout = null
        else:
            os.dup2(null.fileno(), sys.stdout.fileno())


def note(text: str) -> None:
    """Print a progress line on stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items` with a progress bar on a terminal, or a line every ten seconds elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, total=total, description=what, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for index, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > 10 and index < total:
            last = time.monotonic()
            note(f"{what}: {index} of {total}")
