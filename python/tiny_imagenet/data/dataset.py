"""A data set in Tiny ImageNet's layout as lists in memory, and its image files as arrays.

`annotations` says what the layout is. What a notebook, a figure or the sample needs is here; `convert`, whose memory
must not grow with the data set, takes the catalogue itself.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tiny_imagenet.data import image_files, screening
from tiny_imagenet.data.annotations import ADVICE, SPLITS, Box, Class
from tiny_imagenet.data.catalogue import SUFFIXES, Catalogue
from tiny_imagenet.errors import DatasetError

__all__ = ["SIZE", "SPLITS", "SUFFIXES", "Class", "Dataset", "Record", "read", "read_image"]

SIZE = 64


class Record(NamedTuple):
    """An image: file name, path, class index (-1: unknown) and its object's box (x0, y0, x1, y1), inclusive."""

    name: str
    path: str
    label: int
    box: Box | None


class Dataset(NamedTuple):
    """Classes in the order of wnids.txt, and the records of "train", "val" and "test", sorted by file name."""

    root: Path
    classes: list[Class]
    splits: dict[str, list[Record]]


def read(root: str | os.PathLike[str]) -> Dataset:
    """Read the annotations and list the images of the data set in `root`; no image is opened.

    A training image that no boxes file names has the box None, and so has one whose box is malformed or outside the
    image; other boxes are put in order and cut to the image (`screening.mend`). Test images have the label -1.

    Raises:
        DatasetError: something is missing, half-unpacked or malformed; the message names the file and line.
    """
    with Catalogue(root) as catalogue:
        splits = {
            split: [
                Record(e.name, e.path, e.label, screening.mend(e.box, SIZE, SIZE)[0] if e.box else None)
                for e in catalogue.entries(split)
            ]
            for split in SPLITS
        }
        return Dataset(catalogue.root, catalogue.classes, splits)


def read_image(path: str | os.PathLike[str], resize: bool = False) -> np.ndarray:
    """The image file as a uint8 array of 64x64x3, channels in the order BGR.

    Grey becomes three channels, CMYK is converted, 16 bits a channel become 8 and transparency is left out.

    Args:
        path: a JPEG or PNG file.
        resize: whether an image of another size is made 64x64 (its shape is not kept) instead of refused.

    Raises:
        DatasetError: the file cannot be read or decoded, or has another size.
    """
    with quiet():
        image = decode_image(read_bytes(path), path)
    return fit(image, path, resize)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The file's bytes; DatasetError where it cannot be read, is no plain file or absurdly large."""
    try:
        return image_files.read(path)
    except DatasetError as error:
        raise DatasetError(f"{error}; {ADVICE}") from error


def decode_image(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of the image file `path` as a uint8 array of height x width x 3 in BGR, up to 4096 pixels a side.

    Raises:
        DatasetError: they are not a whole JPEG or PNG file, or of a larger image.
    """
    complete = data and image_files.is_whole(data)
    image, header = None, image_files.header(data) if complete else None
    if header and max(header.width, header.height) > image_files.LARGEST:
        raise DatasetError(
            f"the image {path} is {header.width}x{header.height}: at most {image_files.LARGEST} pixels a side are "
            "decoded; make it smaller first"
        )
    if header:
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        state = "damaged" if image_files.is_known(data) else "of another kind or no image"
        state = state if complete else "cut off" if data else "empty"
        raise DatasetError(f"cannot read the image {path}: it is {state}; a whole JPEG or PNG file is needed: {ADVICE}")
    return image


def fit(image: np.ndarray, path: str | os.PathLike[str], resize: bool) -> np.ndarray:
    """The image as 64x64 where it is or may be resized: by areas when it shrinks, linearly when it grows.

    Raises:
        DatasetError: it has another size.
    """
    height, width = image.shape[:2]
    if (width, height) == (SIZE, SIZE):
        return image
    if not resize:
        raise DatasetError(
            f"the image {path} is {width}x{height}: only {SIZE}x{SIZE} is allowed; resize it first (or all such images "
            "with --resize)"
        )
    shrinks = width >= SIZE and height >= SIZE
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class _Stderr:
    """How many blocks keep file descriptor 2 quiet, and where it leads after them."""

    lock = threading.Lock()
    users = 0
    saved = -1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Image libraries write their complaints to file descriptor 2 itself; our one-line error says it instead.

    What else the process writes there meanwhile is lost too, so decode in it and nothing more. Blocks may overlap in
    several threads.
    """
    with _Stderr.lock:
        if not _Stderr.users:
            _Stderr.saved = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
        _Stderr.users += 1
    try:
        yield
    finally:
        with _Stderr.lock:
            _Stderr.users -= 1
            if not _Stderr.users:
                os.dup2(_Stderr.saved, 2)
                os.close(_Stderr.saved)
