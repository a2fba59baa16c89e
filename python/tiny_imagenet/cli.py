"""What every script of tools/ shares: argument parsing, one-line errors, exit statuses and progress.

Exit status 0 is success, 1 a failure, 2 bad use, 130 an interruption. Errors are one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, TypeVar

from tiny_imagenet.errors import TinyImageNetError

T = TypeVar("T")
LARGEST = 2**31 - 1  # what the int32 fields of Caffe's messages hold


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
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class Command(Parser):
    """A subcommand's parser: argparse passes it the name of the whole command."""

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
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least} and at most {most}")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def gpu(text: str) -> int | None:
    """An argparse type: the number of one GPU; "none" is None."""
    if "," in text or text == "all":
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the number of one GPU: several work together in training alone"
        )
    return None if text == "none" else _gpu(text)


def gpus(text: str) -> tuple[int, ...] | str:
    """An argparse type: the numbers of GPUs; "all" stays as it is, "none" is no number."""
    if text == "all":
        return text
    numbers = () if text == "none" else tuple(map(_gpu, text.split(",")))
    for number in numbers:
        if numbers.count(number) > 1:
            raise argparse.ArgumentTypeError(f"GPU {number} is named twice in {text!r}: name each once")
    return numbers


def add_gpus(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --gpu (`gpus`; `what` says what they do), --tf32 and --deterministic, each None where it is not given."""
    parser.add_argument("--gpu", type=gpus, dest="gpus", metavar="N[,N...]|all|none", help=what)
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--tf32", action=switch, help="GPU: round the factors of products to TF32; faster (not)")
    parser.add_argument("--deterministic", action=switch, help="GPU: the same bits in every run; slower (not)")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint, None where it is not given: best, last or an iteration."""
    parser.add_argument("--checkpoint", metavar="best|last|ITER", help="which weights of the run (default: best)")


def add_predicting(parser: argparse.ArgumentParser) -> None:
    """Add what says which weights predict, on what data, and how: --checkpoint, --ten-crop, --data and --gpu."""
    add_checkpoint(parser)
    crops = "average the corners, the centre and their mirrors, not the centre alone"
    parser.add_argument("--ten-crop", action="store_true", help=crops)
    parser.add_argument("--data", type=Path, metavar="DIR", help="what tools/convert.py wrote (the run's)")
    parser.add_argument("--gpu", type=gpu, metavar="N", help="compute on the GPU of this number (on the CPU)")


def _gpu(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 5):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the number of a GPU: they count from 0, as nvidia-smi -L lists them; several have commas "
            "between them; none stands for the CPU"
        )
    return int(text)


def at_most(limit: int) -> Callable[[str], int]:
    """An argparse type: an integer from 1 to `limit`."""
    return lambda text: _whole(text, 1, limit)


def checked(*checks: Callable[[str], None]) -> Callable[[str], Path]:
    """An argparse type: a path that all `checks` accept; they raise TinyImageNetError for one that they do not."""

    def path(text: str) -> Path:
        try:
            for check in checks:
                check(text)
        except TinyImageNetError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return Path(text)

    return path


def share(text: str) -> Fraction:
    """An argparse type: a share from 0 to 1, as a fraction or a decimal."""
    try:
        value = Fraction(text) if len(text) <= 20 and "e" not in text.lower() else Fraction(-1)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a share from 0 to 1, such as 1/4 or 0.25")
    return value


def run(main: Callable[[], None]) -> NoReturn:
    """Call `main` and end the process with the contract's exit status."""
    prog = os.path.basename(sys.argv[0])
    try:
        main()
        if sys.stdout:  # None where it was closed from the start
            sys.stdout.flush()
    except TinyImageNetError as error:
        sys.exit(_fail(prog, error, getattr(error, "status", 1)))
    except BrokenPipeError:  # the reader of our output (head, say) has gone
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
    """Print what has been done; that nobody can read it, or a name in it, does not undo it."""
    try:
        sys.stdout.reconfigure(errors="backslashreplace")
        print(*lines, sep="\n", flush=True)
    except (AttributeError, OSError, ValueError):  # it is closed, a pipe without a reader, or a full disk
        null = open(os.devnull, "w")  # noqa: SIM115
        if sys.stdout is None:
            sys.stdout = null
        else:
            os.dup2(null.fileno(), sys.stdout.fileno())


def note(text: str) -> None:
    """Print a line about what is going on (stderr, so that stdout stays the result's)."""
    print(text, file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items` and show how far it is: a bar on a terminal, at most a line every ten seconds elsewhere."""
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
