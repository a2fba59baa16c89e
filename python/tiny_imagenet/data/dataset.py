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
    train, val, test = (data.root / split for split in FOLDERS)
    _check_class_folders(train, labels)
    for label, (wnid, _) in enumerate(classes):
        records = _records(data, train / wnid / "images", train / wnid / f"{wnid}_boxes.txt", label, lenient)
        data.splits["train"] += records
        if not records:
            data.empty.append(wnid)
    annotated = _records(data, val / "images", val / "val_annotations.txt", labels, lenient)
    data.splits["test"] += _records(data, test / "images", None, -1, lenient)
    found = {"train/*": data.splits["train"], "val": annotated, "test": data.splits["test"]}
    for name, records in found.items():
        if not records:
            raise DatasetError(f"{data.root}/{name}/images has no image (.JPEG, .jpg or .png): {_ADVICE}")
        _check_form(data.root, records)
    for record in annotated:
        if record.label is not None:
            data.splits["val"].append(record)
        elif lenient:
            data.unlabelled.append(Path(record.path).relative_to(data.root).as_posix())
        elif record.line:
            _bad_line(data.root, record, f"{record.invalid!r} is not a class of wnids.txt", _SKIP)
        else:
            raise DatasetError(f"{record.path} has no line in {val}/val_annotations.txt: add one or {_ADVICE}{_SKIP}")
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


def _records(
    data: Dataset, images: Path, file: Path | None, labels: Mapping[str, int] | int, lenient: bool
) -> list[Record]:
    """Return a record for each image in the folder `images`, annotated in `file`; those of unknown class have None."""
    names, lines = _image_names(images), {}
    if file and (names or isinstance(labels, dict) or file.exists()):
        lines = _first_lines(file, labels, data)
    missing = sorted(lines.keys() - set(names), key=lambda name: lines[name].number)
    if missing and not lenient:
        _bad(file, lines[missing[0]].number, f"the image {missing[0]!r} is missing in {images}", _SKIP)
    data.missing.extend(f"{images.relative_to(data.root).as_posix()}/{name}" for name in missing)
    relative = file.relative_to(data.root).as_posix() if file else ""
    records = []
    for name in names:
        path, line = f"{images}/{name}", lines.get(name)
        if line:
            records.append(Record(name, path, line.label, line.box, f"{relative}:{line.number}", line.invalid))
        else:
            records.append(Record(name, path, labels if isinstance(labels, int) else None, None))
    return records


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


def _check_form(root: Path, records: list[Record]) -> None:
    """Raise DatasetError if most lines are invalid: the files then have another format, rather than a few mistakes."""
    invalid = [record for record in records if record.invalid]
    if len(invalid) > _TOLERATED and 2 * len(invalid) > sum(record.line != "" for record in records):
        first = invalid[0]
        wanted = "a class of wnids.txt" if first.label is None else "four integers x0, y0, x1, y1 separated by tabs"
        _bad_line(root, first, f"expected {wanted}, got {first.invalid!r}, as in most lines")


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


def _bad_line(root: Path, record: Record, problem: str, more: str = "") -> NoReturn:
    file, _, number = record.line.rpartition(":")
    _bad(root / file, int(number), problem, more)


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
