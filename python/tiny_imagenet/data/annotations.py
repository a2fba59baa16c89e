"""Reads the text files of a data set in Tiny ImageNet's layout, the folder `tiny-imagenet-200` of the public archive.

    wnids.txt                        one class a line; a class's index is its line's
    words.txt                        wnid <tab> words
    train/<wnid>/images/             the training images of one class
    train/<wnid>/<wnid>_boxes.txt    name, x0, y0, x1, y1
    val/images/                      the validation images of all classes
    val/val_annotations.txt          name, wnid, x0, y0, x1, y1
    test/images/                     images without labels

Fields are separated by tabs, lines end in LF or CRLF. A box holds inclusive pixel indexes: its width is x1 - x0 + 1.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

from tiny_imagenet import files
from tiny_imagenet.errors import DatasetError

SPLITS = ("train", "val", "test")
ADVICE = "unpack the archive again or name another folder"
Box = tuple[int, int, int, int]

_POINT = re.compile(r"(?<=\d)\.0*$")  # 12.0 is 12
_FAR = 2**31  # corners are cut to this: far outside of any image


class Class(NamedTuple):
    """A class: its WordNet id and what it is called."""

    wnid: str
    words: str


class Line(NamedTuple):
    """A line of an annotation file: its number from 1, the image's name and class, and its box or what is in its place.

    `label` is None where the line names no class of the data set; `text` is then what it names, else "" or the
    malformed box. `tabs` is False where no tab is in the line.
    """

    number: int
    name: str
    label: int | None
    text: str
    box: Box | None
    tabs: bool = True


def read_classes(root: str | os.PathLike[str]) -> list[Class]:
    """The classes of the data set in `root`, in the order of wnids.txt.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder: name one in Tiny ImageNet's layout (it has wnids.txt, train/, val/)"
        )
    words = {}
    for _, fields in _rows(root / "words.txt"):
        words[fields[0]] = fields[1] if len(fields) > 1 else fields[0]
    path = root / "wnids.txt"
    wnids: dict[str, None] = {}
    for number, fields in _rows(path):
        wnid = fields[0]
        if len(fields) != 1 or wnid in wnids or wnid in (".", "..") or {"/", "\0"} & {*wnid}:
            bad(path, number, f"{' '.join(fields)!r} is not a class of its own: one wnid a line, each once")
        wnids[wnid] = None
    if not wnids:
        raise DatasetError(f"{path} names no class: {ADVICE}")
    return [Class(wnid, words.get(wnid, wnid)) for wnid in wnids]


def box_lines(path: Path, label: int) -> Iterator[Line]:
    """The lines of a training class's boxes file."""
    for number, (name, *corners) in _rows(path):
        box = _box(corners)
        yield Line(number, name, label, "" if box else _shown(corners), box, bool(corners))


def val_lines(path: Path, labels: dict[str, int]) -> Iterator[Line]:
    """The lines of val_annotations.txt; one that ends after the class has no box."""
    for number, (name, *fields) in _rows(path):
        wnid, corners = fields[0] if fields else "", fields[1:]
        if wnid not in labels:
            yield Line(number, name, None, _shown([wnid]), None, bool(fields))
            continue
        box = _box(corners)
        yield Line(number, name, labels[wnid], _shown(corners) if corners and not box else "", box)


def _box(fields: list[str]) -> Box | None:
    try:
        x0, y0, x1, y1 = map(int, fields)
    except ValueError:
        try:
            x0, y0, x1, y1 = (int(_POINT.sub("", field)) for field in fields)
        except ValueError:
            return None
    if min(x0, y0, x1, y1) < -_FAR or max(x0, y0, x1, y1) > _FAR:
        x0, y0, x1, y1 = (max(-_FAR, min(corner, _FAR)) for corner in (x0, y0, x1, y1))
    return x0, y0, x1, y1


def _shown(fields: list[str]) -> str:
    # Bytes that are no UTF-8 are shown, as \udc.. they could not be stored.
    return " ".join(fields)[:80].encode("utf-8", "backslashreplace").decode() or "nothing"


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1 and fields of the lines that are not blank."""
    with os_errors(path), _open(path) as lines:
        for number, line in enumerate(lines, 1):
            line = line.strip()
            if line:
                fields = line.split("\t")
                yield number, [field.strip() for field in fields] if " " in line else fields


def _open(path: Path) -> TextIO:
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n", opener=files.plain)


def bad(path: Path, number: int, what: str, more: str = "") -> NoReturn:
    """Raise the DatasetError that line `number` of `path` is not what it should be."""
    raise DatasetError(f"{path}, line {number}: {what}: correct the line or {ADVICE}{more}")


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Turn a missing file or folder into a DatasetError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: the data set is not there or half-unpacked; {ADVICE}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; {ADVICE}") from error
