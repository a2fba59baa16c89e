"""Reads a data set in Tiny ImageNet's layout (the folder `tiny-imagenet-200` of the public archive).

    wnids.txt                        one class a line; a class's index is its line's
    words.txt                        wnid <tab> words
    train/<wnid>/images/             the training images of one class
    train/<wnid>/<wnid>_boxes.txt    name, x0, y0, x1, y1
    val/images/                      the validation images of all classes
    val/val_annotations.txt          name, wnid, x0, y0, x1, y1
    test/images/                     images without labels

Fields are separated by tabs. A box holds inclusive pixel indexes: its width is x1 - x0 + 1.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import cv2
import numpy as np

from tiny_imagenet.errors import DatasetError

SIZE = 64
SPLITS = ("train", "val", "test")
SUFFIXES = (".jpeg", ".jpg", ".png")

_ADVICE = "unpack the archive again or name another folder"
_stderr_lock = threading.Lock()


class Class(NamedTuple):
    """A class: its WordNet id and what it is called."""

    wnid: str
    words: str


class Record(NamedTuple):
    """An image: file name, path, class index (-1: unknown) and its object's box (x0, y0, x1, y1), inclusive."""

    name: str
    path: str
    label: int
    box: tuple[int, int, int, int] | None


class Dataset(NamedTuple):
    """Classes in the order of wnids.txt, and the records of "train", "val" and "test", sorted by file name."""

    root: Path
    classes: list[Class]
    splits: dict[str, list[Record]]


def read(root: str | os.PathLike[str]) -> Dataset:
    """Read the annotations and list the images of the data set in `root`; no image is opened.

    A training image that no boxes file names has the box None. Test images have the label -1.

    Raises:
        DatasetError: something is missing, half-unpacked or malformed; the message names the file and line.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(
            f"{root} is not a folder: name one in Tiny ImageNet's layout (it has wnids.txt, train/, val/)"
        )
    classes = _read_classes(root)
    labels = {entry.wnid: index for index, entry in enumerate(classes)}
    train = _read_train(root / "train", labels)
    val = _read_val(root / "val", labels)
    test = [Record(name, path, -1, None) for name, path in _images(root / "test" / "images")]
    return Dataset(root, classes, {"train": train, "val": val, "test": test})


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """The image file as a uint8 array of 64x64x3, channels in the order BGR; grey becomes three channels.

    Raises:
        DatasetError: the file cannot be read or decoded, or has another size.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes; DatasetError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


def decode_image(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """What `read_image` does, for the bytes of the file `path`."""
    # Older OpenCV fills the rest of a cut-off JPEG with grey: look for the end-of-image marker ourselves.
    complete = data and not (data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data)
    image = None
    if complete:
        with _quiet_stderr(), contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        state = "damaged or no image" if complete else "cut off" if data else "empty"
        raise DatasetError(
            f"cannot read the image {path}: it is {state}; a whole JPEG or PNG file is needed: {_ADVICE}"
        )
    if image.shape != (SIZE, SIZE, 3):
        height, width = image.shape[:2]
        raise DatasetError(f"the image {path} is {width}x{height}: only {SIZE}x{SIZE} is allowed; resize it first")
    return image


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Image libraries write their complaints to file descriptor 2 itself; our one-line error says it instead."""
    with _stderr_lock:
        saved = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(null)
            os.close(saved)


def _read_classes(root: Path) -> list[Class]:
    words = {}
    for _, fields in _lines(root / "words.txt"):
        words[fields[0]] = fields[1] if len(fields) > 1 else fields[0]
    path = root / "wnids.txt"
    wnids: dict[str, None] = {}
    for number, fields in _lines(path):
        wnid = fields[0]
        if len(fields) != 1 or wnid in wnids or "/" in wnid:
            _bad(path, number, f"{' '.join(fields)!r} is not a class of its own: one wnid a line, each once")
        wnids[wnid] = None
    if not wnids:
        raise DatasetError(f"{path} names no class: {_ADVICE}")
    return [Class(wnid, words.get(wnid, wnid)) for wnid in wnids]


def _read_train(folder: Path, labels: dict[str, int]) -> list[Record]:
    with _os_errors(folder), os.scandir(folder) as entries:
        unknown = sorted(entry.name for entry in entries if entry.is_dir() and entry.name not in labels)
    unknown = [name for name in unknown if not name.startswith(".")]
    if unknown:
        raise DatasetError(
            f"{folder / unknown[0]} is not a class of wnids.txt: add its line there or remove the folder"
        )
    records = []
    for wnid, label in labels.items():
        images = _images(folder / wnid / "images")
        boxes_file = folder / wnid / f"{wnid}_boxes.txt"
        names = {name for name, _ in images}
        boxes: dict[str, tuple[int, int, int, int]] = {}
        for number, fields in _lines(boxes_file):
            if len(fields) != 5:
                _bad(boxes_file, number, f"{len(fields)} fields, needs 5: name, x0, y0, x1, y1")
            _check_name(boxes_file, number, fields[0], names, boxes)
            boxes[fields[0]] = _box(boxes_file, number, fields[1:])
        records += [Record(name, path, label, boxes.get(name)) for name, path in images]
    return sorted(records)


def _read_val(folder: Path, labels: dict[str, int]) -> list[Record]:
    images = _images(folder / "images")
    names = {name for name, _ in images}
    path = folder / "val_annotations.txt"
    known: dict[str, tuple[int, tuple[int, int, int, int]]] = {}
    for number, fields in _lines(path):
        if len(fields) != 6:
            _bad(path, number, f"{len(fields)} fields, needs 6: name, wnid, x0, y0, x1, y1")
        name, wnid = fields[:2]
        _check_name(path, number, name, names, known)
        if wnid not in labels:
            _bad(path, number, f"{wnid!r} is not a class of wnids.txt")
        known[name] = labels[wnid], _box(path, number, fields[2:])
    for name, image in images:
        if name not in known:
            raise DatasetError(f"{image} has no line in {path}: add one (name, wnid, x0, y0, x1, y1) or {_ADVICE}")
    return [Record(name, image, *known[name]) for name, image in images]


def _images(folder: Path) -> list[tuple[str, str]]:
    """Names and paths of the image files in `folder`, sorted by name; hidden files are passed over."""
    with _os_errors(folder), os.scandir(folder) as entries:
        found = [
            (entry.name, entry.path)
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        ]
    if not found:
        raise DatasetError(f"{folder} has no image (.JPEG, .jpg or .png): {_ADVICE}")
    return sorted(found)


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers from 1 and fields of the lines that are not blank."""
    with _os_errors(path):
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append((number, [field.strip() for field in line.strip().split("\t")]))
    return rows


def _check_name(path: Path, number: int, name: str, names: set[str], seen: dict) -> None:
    if name not in names:
        _bad(path, number, f"there is no image {name!r} in {path.parent / 'images'}")
    if name in seen:
        _bad(path, number, f"a second line for {name!r}, only one is allowed")


def _box(path: Path, number: int, fields: list[str]) -> tuple[int, int, int, int]:
    try:
        x0, y0, x1, y1 = (int(field) for field in fields)
    except ValueError:
        _bad(path, number, f"the box {' '.join(fields)!r} is not four whole numbers x0 y0 x1 y1")
    if not (0 <= x0 <= x1 < SIZE and 0 <= y0 <= y1 < SIZE):
        _bad(
            path,
            number,
            f"the box {' '.join(fields)!r} is not x0 y0 x1 y1 with 0 <= x0 <= x1 <= {SIZE - 1} and y alike",
        )
    return x0, y0, x1, y1


def _bad(path: Path, number: int, what: str) -> NoReturn:
    raise DatasetError(f"{path}, line {number}: {what}: correct the line or {_ADVICE}")


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn a missing file or folder into a DatasetError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: the data set is not there or half-unpacked; {_ADVICE}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
