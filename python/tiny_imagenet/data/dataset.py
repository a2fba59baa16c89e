"""Reads data sets in the layout of `tiny-imagenet-200`, the folder in the public archive.

    wnids.txt                        one class per line; its index is the line's
    words.txt                        wnid <tab> words
    train/<wnid>/images/             training images of one class
    train/<wnid>/<wnid>_boxes.txt    name, x0, y0, x1, y1
    val/images/                      validation images of all classes
    val/val_annotations.txt          name, wnid, x0, y0, x1, y1
    test/images/                     images without labels

Fields are separated by tabs. Boxes are inclusive pixel indices: the width is x1 - x0 + 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from tiny_imagenet import files
from tiny_imagenet.data import screening
from tiny_imagenet.data.screening import Box
from tiny_imagenet.data.splits import FOLDERS
from tiny_imagenet.errors import DatasetError

SUFFIXES = (".jpeg", ".jpg", ".png")

_ADVICE = "unpack the archive again or name another folder"
_SKIP = "; --skip-unreadable leaves such images out"
_POINT = re.compile(r"(?<=\d)\.0*$")  # 12.0 is read as 12
_TOLERATED = 10  # invalid lines; more are an error if they are the majority


class Class(NamedTuple):
    """A class: its WordNet id and its name in words."""

    wnid: str
    words: str


class Record(NamedTuple):
    """An image and its annotation.

    Attributes:
        name, path: file name and path of the image.
        label: class index, -1 if unknown.
        box: corners x0, y0, x1, y1 of the object's bounding box; None without a valid one.
        line: FILE:NUMBER of the annotation, relative to the data set; "" without one.
        invalid: text of the annotation's box if it is malformed, else "".
    """

    name: str
    path: str
    label: int
    box: Box | None
    line: str = ""
    invalid: str = ""


class Dataset(NamedTuple):
    """Classes in the order of wnids.txt, and images by split ("train", "val", "test"), sorted by file name.

    Attributes:
        root, classes, splits: folder, classes and records.
        empty: wnids of classes without training images.
        missing: annotated images that do not exist, as paths relative to `root` (if `lenient`).
        unlabelled: validation images without a class, as paths relative to `root` (if `lenient`); they have no record.
        repeated: (name, FILE:NUMBER) of each further line about an image; the first line counts.
    """

    root: Path
    classes: list[Class]
    splits: dict[str, list[Record]]
    empty: list[str]
    missing: list[str]
    unlabelled: list[str]
    repeated: list[tuple[str, str]]


def read(root: str | os.PathLike[str]) -> Dataset:
    """Return the data set in `root` with boxes clipped to 64x64 pixels (`screening.mend`); no image is opened.

    Raises:
        DatasetError: a file or folder is missing or malformed; the message names the file and line.
    """
    data = scan(root)
    for split, records in data.splits.items():
        data.splits[split] = [r._replace(box=screening.mend(r.box)[0]) if r.box else r for r in records]
    return data


def scan(root: str | os.PathLike[str], lenient: bool = False) -> Dataset:
    """Return the data set in `root` with boxes as annotated, wherever they lie; no image is opened.

    Args:
        root: folder of the data set.
        lenient: whether annotations without an image and validation images without a class are listed instead of
            raising an error.

    Raises:
        DatasetError: a file or folder is missing or malformed; the message names the file and line.
    """
    classes = read_classes(root)
    data = Dataset(Path(root), classes, {split: [] for split in FOLDERS}, [], [], [], [])
    labels = {entry.wnid: index for index, entry in enumerate(classes)}
    _check_class_folders(data.root / "train", labels)
    folders = []
    for label, entry in enumerate(classes):
        path = data.root / "train" / entry.wnid
        folder = _folder(path / "images", path / f"{entry.wnid}_boxes.txt", label, data)
        if not folder.names:
            data.empty.append(entry.wnid)
        folders.append(folder)
        data.splits["train"] += _records(folder, data.root, label)
    if len(data.empty) == len(classes):
        _no_image(folders[0].images)
    folders.append(_folder(data.root / "val" / "images", data.root / "val" / "val_annotations.txt", labels, data))
    _check_form(folders[:-1])
    _check_form(folders[-1:])
    for folder in folders:
        _check_missing(folder, data, lenient)
    for record in _records(folders[-1], data.root, None):
        if record.label is not None:
            data.splits["val"].append(record)
        elif lenient:
            data.unlabelled.append(Path(record.path).relative_to(data.root).as_posix())
        else:
            _no_class(record, folders[-1])
    folder = _folder(data.root / "test" / "images", None, -1, data)
    data.splits["test"] += _records(folder, data.root, -1)
    for split in ("val", "test"):
        if not data.splits[split]:
            _no_image(data.root / split / "images")
    data.splits["train"].sort(key=lambda record: (os.fsencode(record.name), record.label))
    return data


def shuffled(records: list[Record], seed: int) -> list[Record]:
    """Return records sorted by name in random order; the place of each depends on `seed` and its own name alone."""
    keyed = hashlib.blake2b(key=str(seed).encode(), digest_size=8)

    def place(record: Record) -> int:
        own = keyed.copy()
        own.update(os.fsencode(record.name))
        return int.from_bytes(own.digest(), "big", signed=True)

    return sorted(records, key=place)


def read_classes(root: str | os.PathLike[str]) -> list[Class]:
    """Return the classes of the data set in `root`, in the order of wnids.txt.

    Raises:
        DatasetError: a file is missing or malformed.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: name one with wnids.txt, train/, val/ and test/")
    words = {wnid: rest[0] if rest else wnid for _, (wnid, *rest) in _rows(root / "words.txt")}
    path = root / "wnids.txt"
    wnids: dict[str, None] = {}
    for number, (wnid, *rest) in _rows(path):
        if rest or wnid in wnids or wnid in (".", "..") or "/" in wnid:
            _bad(path, number, f"expected one new wnid, got {' '.join((wnid, *rest))!r}")
        wnids[wnid] = None
    if not wnids:
        raise DatasetError(f"{path} contains no class: {_ADVICE}")
    return [Class(wnid, words.get(wnid, wnid)) for wnid in wnids]


class _Line(NamedTuple):
    """An annotation: line number, class (None if unknown), box, and the text of an unknown class or malformed box."""

    number: int
    label: int | None
    box: Box | None
    invalid: str


def _first_lines(path: Path, labels: Mapping[str, int] | int, data: Dataset) -> dict[str, _Line]:
    """Return the first line about each image; `labels` is the class of all, or maps the wnid in the lines."""
    found: dict[str, _Line] = {}
    for number, (name, *fields) in _rows(path):
        if not fields:
            _bad(path, number, f"expected fields separated by tabs, got {name[:80]!r}")
        label: int | None = labels if isinstance(labels, int) else labels.get(fields[0])
        if label is None:
            line = _Line(number, None, None, _printable(fields[:1]))
        else:
            corners = fields if isinstance(labels, int) else fields[1:]
            box = _box(corners)
            line = _Line(number, label, box, _printable(corners) if corners and not box else "")
        first = found.setdefault(name, line)
        if first.label != label:
            _bad(path, number, f"{name!r} has a different class in line {first.number}")
        if first is not line:
            data.repeated.append((name, f"{path.relative_to(data.root).as_posix()}:{number}"))
    return found


class _Folder(NamedTuple):
    """A folder of images: its path, their names, the annotation file and its first line about each image."""

    images: Path
    names: list[str]
    file: Path
    lines: dict[str, _Line]


def _folder(images: Path, file: Path | None, labels: Mapping[str, int] | int, data: Dataset) -> _Folder:
    names = _image_names(images)
    if file is None or (isinstance(labels, int) and not names and not file.exists()):
        return _Folder(images, names, file or images, {})
    return _Folder(images, names, file, _first_lines(file, labels, data))


def _records(folder: _Folder, root: Path, label: int | None) -> Iterator[Record]:
    """Yield a record per image; `label` is the class of images without a line."""
    file, unknown = folder.file.relative_to(root).as_posix(), _Line(0, label, None, "")
    for name in folder.names:
        line = folder.lines.get(name, unknown)
        where = f"{file}:{line.number}" if line.number else ""
        yield Record(name, f"{folder.images}/{name}", line.label, line.box, where, line.invalid)


def _image_names(folder: Path) -> list[str]:
    """Return the names of the image files in `folder`, sorted as bytes; hidden files are ignored."""
    with _os_errors(folder):
        names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and name[0] != "."]
    return sorted(names, key=os.fsencode)


def _check_class_folders(train: Path, labels: Mapping[str, int]) -> None:
    with _os_errors(train), os.scandir(train) as entries:
        unknown = [e.name for e in entries if e.is_dir() and e.name not in labels and not e.name.startswith(".")]
    if unknown:
        raise DatasetError(f"{train / min(unknown)} is not a class of wnids.txt: add a line there or remove the folder")


def _check_missing(folder: _Folder, data: Dataset, lenient: bool) -> None:
    names = set(folder.names)
    for name, line in folder.lines.items():
        if name in names:
            continue
        if not lenient:
            _bad(folder.file, line.number, f"the image {name!r} is missing in {folder.images}", _SKIP)
        data.missing.append(f"{folder.images.relative_to(data.root).as_posix()}/{name}")


def _check_form(folders: list[_Folder]) -> None:
    """Raise DatasetError if most lines are invalid: the files then have another format, rather than a few mistakes."""
    invalid = [(folder, line) for folder in folders for line in folder.lines.values() if line.invalid]
    if len(invalid) > _TOLERATED and 2 * len(invalid) > sum(len(folder.lines) for folder in folders):
        folder, line = invalid[0]
        wanted = "a class of wnids.txt" if line.label is None else "four integers x0, y0, x1, y1 separated by tabs"
        _bad(folder.file, line.number, f"expected {wanted}, got {line.invalid!r}, as in most lines")


def _no_class(record: Record, folder: _Folder) -> NoReturn:
    if record.name in folder.lines:
        number = folder.lines[record.name].number
        _bad(folder.file, number, f"{record.invalid!r} is not a class of wnids.txt", _SKIP)
    raise DatasetError(f"{record.path} has no line in {folder.file}: add one or {_ADVICE}{_SKIP}")


def _box(fields: list[str]) -> Box | None:
    try:
        x0, y0, x1, y1 = (int(field) if field.isdigit() else int(_POINT.sub("", field)) for field in fields)
    except ValueError:
        return None
    return x0, y0, x1, y1


def _printable(fields: list[str]) -> str:
    # Names may be any bytes; surrogates cannot be written to the manifest.
    return " ".join(fields)[:80].encode("utf-8", "backslashreplace").decode() or "nothing"


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number (from 1) and fields of each line that is not blank."""
    form = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": "\n"}
    with _os_errors(path), open(path, opener=files.plain, **form) as lines:
        for number, line in enumerate(lines, 1):
            if line := line.strip():
                yield number, [field.strip() for field in line.split("\t")]


def _no_image(folder: Path) -> NoReturn:
    raise DatasetError(f"{folder} has no image (.JPEG, .jpg or .png): {_ADVICE}")


def _bad(path: Path, number: int, problem: str, more: str = "") -> NoReturn:
    raise DatasetError(f"{path}, line {number}: {problem}: correct the line or {_ADVICE}{more}")


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{path} is missing: the data set is incomplete; {_ADVICE}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; {_ADVICE}") from error
