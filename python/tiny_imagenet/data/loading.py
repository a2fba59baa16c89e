"""Decodes and screens batches of images; runs in worker processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from tiny_imagenet.data import datum, images, screening
from tiny_imagenet.data.dataset import Record
from tiny_imagenet.data.images import SIZE
from tiny_imagenet.errors import DatasetError

BATCH = 128  # images
SHAPE = (3, SIZE, SIZE)

_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 9]


@dataclass(frozen=True)
class Options:
    """Options of a conversion.

    Attributes:
        seed: seed of the shuffle.
        encoded: whether records hold image files instead of pixels. A file that Caffe would not decode to the same
            8-bit image (16 bits per channel, transparency, rotated by Exif, resized) is stored as PNG.
        resize: whether images of another size are resized to 64x64 instead of refused.
        skip_unreadable: whether unreadable images, validation images without a class and annotations without an image
            are left out and listed.
        crop: screening: side of a crop in pixels, 1 to 64.
        min_visible: screening: fraction of an object that every crop must show, 0 to 1.
    """

    seed: int = 0
    encoded: bool = False
    resize: bool = False
    skip_unreadable: bool = False
    crop: int = screening.CROP
    min_visible: Fraction | float = screening.MIN_VISIBLE

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= SIZE:
            raise DatasetError(f"expected a crop from 1 to {SIZE} pixels, got {self.crop}")
        if not 0 <= self.min_visible <= 1:
            raise DatasetError(f"expected min_visible from 0 to 1, got {self.min_visible}")


class Mended(NamedTuple):
    """A box that differs from its annotation.

    Attributes:
        name, line: name of the image; FILE:NUMBER of the annotation, relative to the data set.
        was, now: the annotation's text; the box used, None without one.
        why: the problem.
    """

    name: str
    line: str
    was: str
    now: list[int] | None
    why: str


class Loaded(NamedTuple):
    """A decoded batch; images are given by their position in it.

    Attributes:
        values: Datum of each image and its sha256; None if the image is unreadable.
        errors: position and message of each unreadable image.
        total: sum of the images, float32 (64, 64, 3), exact.
        small, dropped, without_box: images whose box is under 8x8 pixels in area, whose box screening drops, and
            that have no box.
        mended: boxes that differ from their annotations.
        resized, reencoded: images that had another size, and whose file could not be stored as it is.
    """

    values: list[tuple[bytes, bytes] | None]
    errors: list[tuple[int, str]]
    total: np.ndarray
    small: list[int]
    dropped: list[int]
    without_box: list[int]
    mended: list[Mended]
    resized: list[int]
    reencoded: list[int]


def load(records: list[Record], options: Options) -> Loaded:
    """Read, decode and screen the images of at most BATCH records."""
    total = np.zeros((SIZE, SIZE, 3), np.float32)  # exact: 255 * BATCH is far below 2**24
    loaded = Loaded([], [], total, [], [], [], [], [], [])
    boxes: list[tuple[int, screening.Box]] = []
    planes = np.empty(SHAPE, np.uint8)
    with images.quiet():
        for position, record in enumerate(records):
            try:
                content = images.read_bytes(record.path)
                decoded = images.decode(content, record.path)
                image = images.fit(decoded, record.path, options.resize)
            except DatasetError as error:
                loaded.values.append(None)
                loaded.errors.append((position, str(error)))
                continue
            cv2.accumulate(image, total)
            if image is not decoded:
                loaded.resized.append(position)
            if options.encoded:
                if image is not decoded or not _caffe_decodes_to(content, image):
                    content = cv2.imencode(".png", image, _PNG)[1].tobytes()
                    loaded.reencoded.append(position)
                value = datum.encode_file(content, SHAPE, record.label)
            else:
                cv2.split(image, list(planes))
                value = datum.encode(planes, record.label)
            loaded.values.append((value, hashlib.sha256(value).digest()))
            box = _box(record, decoded.shape, loaded.mended)
            if box:
                boxes.append((position, box))
            else:
                loaded.without_box.append(position)
    if boxes:
        corners = np.array([box for _, box in boxes])
        kept = screening.keep(corners, SIZE, options.crop, options.min_visible)
        loaded.dropped.extend(boxes[index][0] for index in np.flatnonzero(~kept))
        loaded.small.extend(boxes[index][0] for index in np.flatnonzero(screening.is_small(corners)))
    return loaded


def _box(record: Record, shape: tuple[int, ...], mended: list[Mended]) -> screening.Box | None:
    """Return the record's box in the 64x64 image; `shape` is the original image's height, width and channels."""
    if record.invalid:
        mended.append(Mended(record.name, record.line, record.invalid, None, "not four whole numbers"))
    if record.box is None:
        return None
    height, width = shape[:2]
    box, problem = screening.mend(record.box, width, height)
    if box and (width, height) != (SIZE, SIZE):
        box = screening.scale(box, width, height, SIZE)
    if problem:
        was = " ".join(map(str, record.box))
        mended.append(Mended(record.name, record.line, was, list(box) if box else None, problem))
    return box


def _caffe_decodes_to(content: bytes, image: np.ndarray) -> bool:
    """Whether Caffe, which decodes a file unchanged, gets the same 8-bit image, in three channels or grey."""
    if content[:2] == images.JPEG and b"Exif\0" not in content:
        return True  # only Exif data can rotate a JPEG
    kept = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if kept is None or kept.dtype != np.uint8 or kept.shape not in (image.shape, image.shape[:2]):
        return False
    return np.array_equal(kept if kept.ndim == 3 else cv2.cvtColor(kept, cv2.COLOR_GRAY2BGR), image)
