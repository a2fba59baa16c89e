"""Which images a data set has, in order, with what the annotations say of them.

Images and lines go into a temporary SQLite database as they are read, so that a data set of any size takes a fixed
amount of memory, and come out of it in order. No image is opened here.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from tiny_imagenet.data.annotations import ADVICE, SPLITS, Box, Line, bad, box_lines, os_errors, read_classes, val_lines
from tiny_imagenet.errors import DatasetError

SUFFIXES = (".jpeg", ".jpg", ".png")

_NO_CLASS = -1  # the "class" in whose folder validation and test images are
_TRAIN, _VAL, _TEST = range(3)
_KEY = "split, place, name, class"
_TABLES = f"""
CREATE TABLE images (split INT, place INT, name BLOB, class INT, PRIMARY KEY ({_KEY})) WITHOUT ROWID;
CREATE TABLE lines (split INT, place INT, name BLOB, class INT, number INT, label INT, text TEXT,
                    x0 INT, y0 INT, x1 INT, y1 INT, PRIMARY KEY ({_KEY})) WITHOUT ROWID;
"""
_SAME = "l.split = i.split AND l.place = i.place AND l.name = i.name AND l.class = i.class"


class Entry(NamedTuple):
    """An image and what its line says of it.

    Attributes:
        name, path: of the image file.
        label: class index, -1 where it is unknown.
        box: its object's corners x0, y0, x1, y1 as the line has them, wherever they are; None without a box.
        line: FILE:NUMBER within the data set, "" without a line.
        malformed: what stands in place of a box, "" where nothing does.
    """

    name: str
    path: str
    label: int
    box: Box | None
    line: str
    malformed: str


class _Odd:
    """Counts lines that are not as they should be: an odd one or two are passed over, a file in another form is not."""

    def __init__(self) -> None:
        self._lines = 0
        self._boxes = 0
        self._first: dict[str, tuple[Path, Line]] = {}
        self._counts = {"tabs": 0, "class": 0, "box": 0}

    def add(self, path: Path, line: Line) -> None:
        self._lines += 1
        self._boxes += line.box is not None
        kind = "tabs" if not line.tabs else "class" if line.label is None else "box" if line.text else ""
        if kind:
            self._counts[kind] += 1
            self._first.setdefault(kind, (path, line))

    def check(self) -> None:
        """Raise DatasetError where most lines have no tabs, an unknown class or no box; begin anew."""
        counts = self._counts
        if 2 * counts["tabs"] > self._lines:
            path, line = self._first["tabs"]
            what = "has no tabs, which are needed between fields, and so it is in most lines"
            bad(path, line.number, f"{line.name[:80]!r} {what}")
        if counts["class"] > 10 and 2 * counts["class"] > self._lines:
            path, line = self._first["class"]
            bad(path, line.number, f"{line.text!r} is not a class of wnids.txt, and so in most lines")
        if counts["box"] > 10 and counts["box"] > self._boxes:
            path, line = self._first["box"]
            what = "is not a box, four whole numbers x0 y0 x1 y1 between tabs, and so in most lines"
            bad(path, line.number, f"{line.text!r} {what}")
        self._lines = self._boxes = 0
        self._first.clear()
        self._counts = dict.fromkeys(counts, 0)


class Catalogue:
    """The images of a data set in order, with their classes and boxes.

    Training images are in an order that `seed` draws, a function of the seed and the image's name alone, or by name
    where it is None; validation and test images are by name. Names are compared as bytes.

    Attributes:
        root, classes: the folder and its classes.
        empty: the wnids of classes without training images.
        missing: paths within `root` that an annotation names and that are not there, where `lenient`.
        unlabelled: paths within `root` of validation images without a class, where `lenient`; they are left out.
        repeated: of each line that is not the first for its image: its name and FILE:NUMBER; it does not count.
        counts: how many images each split has.
    """

    def __init__(
        self, root: str | os.PathLike[str], database: str = ":memory:", seed: int | None = None, lenient: bool = False
    ):
        """Read the data set in `root`; `database` is a file to make, or ":memory:" for data sets that fit.

        Raises:
            DatasetError: something is missing, half-unpacked or malformed; the message names the file and line.
                With `lenient`, an annotation without its image and a validation image without a class are noted.
        """
        self.root = Path(root)
        self.classes = read_classes(root)
        self.empty: list[str] = []
        self.missing: list[str] = []
        self.unlabelled: list[str] = []
        self.repeated: list[tuple[str, str]] = []
        self._keyed = None if seed is None else hashlib.blake2b(key=str(seed).encode(), digest_size=8)
        self._labels = {entry.wnid: index for index, entry in enumerate(self.classes)}
        self._lenient = lenient
        self._odd = _Odd()
        self._database = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def entries(self, split: str) -> Iterator[Entry]:
        """The images of "train", "val" or "test", in order."""
        number = SPLITS.index(split)
        rows = self._database.execute(
            f"SELECT i.name, i.class, l.number, l.label, l.text, l.x0, l.y0, l.x1, l.y1 FROM images i "
            f"LEFT JOIN lines l ON {_SAME} WHERE i.split = ? ORDER BY i.place, i.name, i.class",
            (number,),
        )
        folders = {where: f"{self._images(number, where)}/" for where in self._folders(number)}
        files = {where: self._file(number, where).relative_to(self.root).as_posix() for where in folders}
        for name, where, line, label, text, *corners in rows:
            if number == _TRAIN:
                label = where
            elif number == _TEST:
                label = -1
            elif label is None:
                continue  # in `unlabelled`
            name = os.fsdecode(name)
            box = None if corners[0] is None else tuple(corners)
            yield Entry(name, folders[where] + name, label, box, f"{files[where]}:{line}" if line else "", text or "")

    def _read(self) -> None:
        # A file that nobody reads after a crash needs no journal.
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; "
            f"PRAGMA cache_size = -{32 << 10}; {_TABLES} BEGIN"
        )
        self._no_other_class()
        for label, entry in enumerate(self.classes):
            if not self._add_images(_TRAIN, label):
                self.empty.append(entry.wnid)
            if entry.wnid not in self.empty or self._file(_TRAIN, label).exists():
                self._add_lines(_TRAIN, label)
        self._odd.check()
        if len(self.empty) == len(self.classes):
            self._no_image(self._images(_TRAIN, 0))
        if not self._add_images(_VAL, _NO_CLASS):
            self._no_image(self._images(_VAL, _NO_CLASS))
        self._add_lines(_VAL, _NO_CLASS)
        self._odd.check()
        if not self._add_images(_TEST, _NO_CLASS):
            self._no_image(self._images(_TEST, _NO_CLASS))
        self._without_image()
        self._without_class()
        rows = self._database.execute("SELECT split, count(*) FROM images GROUP BY split")
        self.counts = {SPLITS[split]: count for split, count in rows}
        self.counts["val"] -= len(self.unlabelled)
        self._database.execute("COMMIT")

    def _folders(self, split: int) -> range | tuple[int]:
        return range(len(self.classes)) if split == _TRAIN else (_NO_CLASS,)

    def _images(self, split: int, where: int) -> Path:
        folder = self.root / SPLITS[split]
        return (folder / self.classes[where].wnid if split == _TRAIN else folder) / "images"

    def _file(self, split: int, where: int) -> Path:
        wnid = self.classes[where].wnid
        return self._images(split, where).parent / (f"{wnid}_boxes.txt" if split == _TRAIN else "val_annotations.txt")

    def _key(self, split: int, name: bytes, where: int) -> tuple[int, int, bytes, int]:
        place = 0
        if split == _TRAIN and self._keyed is not None:
            keyed = self._keyed.copy()
            keyed.update(name)
            place = int.from_bytes(keyed.digest(), "big", signed=True)
        return split, place, name, where

    def _no_other_class(self) -> None:
        folder = self.root / "train"
        with os_errors(folder), os.scandir(folder) as entries:
            unknown = [entry.name for entry in entries if entry.is_dir() and entry.name not in self._labels]
        unknown = [name for name in unknown if not name.startswith(".")]
        if unknown:
            raise DatasetError(
                f"{folder / min(unknown)} is not a class of wnids.txt: add its line there or remove the folder"
            )

    def _add_images(self, split: int, where: int) -> int:
        """Add the image files of a folder; hidden ones are passed over. How many there are."""
        folder = self._images(split, where)
        before = self._database.total_changes
        with os_errors(folder), os.scandir(folder) as entries:
            self._database.executemany(
                "INSERT INTO images VALUES (?, ?, ?, ?)",
                (
                    self._key(split, os.fsencode(entry.name), where)
                    for entry in entries
                    if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
                ),
            )
        return self._database.total_changes - before

    def _lines(self, split: int, where: int) -> Iterator[Line]:
        path = self._file(split, where)
        return box_lines(path, where) if split == _TRAIN else val_lines(path, self._labels)

    def _add_lines(self, split: int, where: int) -> None:
        before, given = self._database.total_changes, 0
        path = self._file(split, where)

        def rows() -> Iterator[tuple]:
            nonlocal given
            for line in self._lines(split, where):
                given += 1
                self._odd.add(path, line)
                key = self._key(split, os.fsencode(line.name), where)
                yield (*key, line.number, line.label, line.text, *(line.box or (None,) * 4))

        self._database.executemany(f"INSERT OR IGNORE INTO lines VALUES (?{', ?' * 10})", rows())
        if self._database.total_changes - before < given:
            self._find_repeated(split, where)

    def _find_repeated(self, split: int, where: int) -> None:
        path = self._file(split, where)
        for line in self._lines(split, where):
            key = self._key(split, os.fsencode(line.name), where)
            query = "SELECT number, label FROM lines WHERE split = ? AND place = ? AND name = ? AND class = ?"
            number, label = self._database.execute(query, key).fetchone()
            if label != line.label:
                bad(path, line.number, f"{line.name!r} has another class in line {number}, only one is allowed")
            if number != line.number:
                self.repeated.append((line.name, f"{path.relative_to(self.root).as_posix()}:{line.number}"))

    def _without_image(self) -> None:
        rows = self._database.execute(
            f"SELECT l.split, l.class, l.number, l.name FROM lines l LEFT JOIN images i ON {_SAME} "
            "WHERE i.name IS NULL ORDER BY l.split, l.class, l.number"
        )
        for split, where, number, name in rows:
            folder, name = self._images(split, where), os.fsdecode(name)  # which may be no name of a file at all
            if not self._lenient:
                bad(
                    self._file(split, where),
                    number,
                    f"there is no image {name!r} in {folder}",
                    " (or leave such images out with --skip-unreadable)",
                )
            self.missing.append(f"{folder.relative_to(self.root).as_posix()}/{name}")

    def _without_class(self) -> None:
        rows = self._database.execute(
            f"SELECT i.name, l.number, l.text FROM images i LEFT JOIN lines l ON {_SAME} "
            "WHERE i.split = ? AND l.label IS NULL ORDER BY i.name",
            (_VAL,),
        )
        path = self._file(_VAL, _NO_CLASS)
        skip = " (or leave such images out with --skip-unreadable)"
        for name, number, text in rows:
            image = self._images(_VAL, _NO_CLASS) / os.fsdecode(name)
            if self._lenient:
                self.unlabelled.append(image.relative_to(self.root).as_posix())
            elif number:
                bad(path, number, f"{text!r} is not a class of wnids.txt", skip)
            else:
                raise DatasetError(
                    f"{image} has no line in {path}: add one (name, wnid, x0, y0, x1, y1) or {ADVICE}{skip}"
                )

    def _no_image(self, folder: Path) -> NoReturn:
        raise DatasetError(f"{folder} has no image (.JPEG, .jpg or .png): {ADVICE}")
