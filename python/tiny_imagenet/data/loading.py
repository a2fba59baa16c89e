"""Reads, decodes and screens images for `convert`, a batch at a time; `pool` does it in several processes.

What a batch becomes lies in a slot, a piece of memory.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from tiny_imagenet.data import dataset, datum, image_files, screening
from tiny_imagenet.data.catalogue import Entry
from tiny_imagenet.data.dataset import SIZE
from tiny_imagenet.errors import DatasetError

BATCH = 128
SHAPE = (3, SIZE, SIZE)

_TOTAL = 4 * 3 * SIZE * SIZE  # bytes of the sum of a batch's images, at the end of a slot
SLOT = BATCH * (3 * SIZE * SIZE + 64) + _TOTAL  # a Datum of a raw image has less than 64 bytes besides the pixels
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 9]


class Rule(NamedTuple):
    """What to do with images.

    Attributes:
        encoded: keep the files' bytes.
        resize: make images of another size 64x64.
        crop, min_visible: of screening.
    """

    encoded: bool = False
    resize: bool = False
    crop: int = screening.CROP
    min_visible: Fraction = screening.MIN_VISIBLE


class Mended(NamedTuple):
    """A box that is not as its line has it.

    Attributes:
        name, line: of the image; FILE:NUMBER within the data set.
        was, now: the box in the line, and what counts for screening, None for no box.
        why: what was wrong with it.
    """

    name: str
    line: str
    was: str
    now: list[int] | None
    why: str


class Loaded(NamedTuple):
    """What a batch of entries became.

    Attributes:
        sizes: of each entry's Datum, in bytes, one behind the other in the slot (or in `data`); -1: unreadable.
        digests: the sha256 of each entry's Datum; of an unreadable one nothing.
        data: the Datums, where they are more than a slot holds.
        errors: for each unreadable one its position in the batch and what to say.
        total: the sum of the images, float32 (64, 64, 3), exact.
        small, dropped, without_box: positions of the readable entries whose box is under 8x8 pixels, whose box
            screening drops, and that have none.
        mended: the boxes that are not as in their lines.
        resized, reencoded: positions of images that had another size, and whose file's bytes could not be kept.
    """

    sizes: list[int]
    digests: list[bytes]
    data: bytes | None
    errors: list[tuple[int, str]]
    total: np.ndarray
    small: list[int]
    dropped: list[int]
    without_box: list[int]
    mended: list[Mended]
    resized: list[int]
    reencoded: list[int]


def load(entries: list[Entry], slot: memoryview, rule: Rule) -> Loaded:
    """Read, decode and screen the images of `entries` and put their Datums into `slot`, or into the result."""
    values: list[bytes] = []
    sizes: list[int] = []
    errors: list[tuple[int, str]] = []
    digests: list[bytes] = []
    summed = total(slot)  # exact: 255 * BATCH is far below 2**24
    summed[:] = 0
    boxes: list[tuple[int, screening.Box]] = []
    found = Loaded(sizes, digests, None, errors, summed, [], [], [], [], [], [])
    at = 0
    for position, entry in enumerate(entries):
        try:
            content = dataset.read_bytes(entry.path)
            decoded = dataset.decode_image(content, entry.path)
            image = dataset.fit(decoded, entry.path, rule.resize)
        except DatasetError as error:
            sizes.append(-1)
            digests.append(b"")
            errors.append((position, str(error)))
            continue
        cv2.accumulate(image, summed)
        if image is not decoded:
            found.resized.append(position)
        if rule.encoded:
            if image is not decoded or not _decodes_to(content, image):
                content = cv2.imencode(".png", image, _PNG)[1].tobytes()
                found.reencoded.append(position)
            values.append(datum.encode_file(content, SHAPE, entry.label))
            sizes.append(len(values[-1]))
            digests.append(hashlib.sha256(values[-1]).digest())
        else:
            start, end = datum.frame(SHAPE, image.size, entry.label, False)
            pixels = at + len(start)
            behind = pixels + image.size
            slot[at:pixels] = start
            cv2.split(image, list(np.frombuffer(slot[pixels:behind], np.uint8).reshape(SHAPE)))
            slot[behind : behind + len(end)] = end
            behind += len(end)
            sizes.append(behind - at)
            digests.append(hashlib.sha256(slot[at:behind]).digest())
            at = behind
        box = _box(entry, decoded.shape, found.mended)
        if box:
            boxes.append((position, box))
        else:
            found.without_box.append(position)
    if boxes:
        corners = np.array([box for _, box in boxes])
        kept = screening.keep(corners, SIZE, rule.crop, rule.min_visible)
        found.dropped.extend(boxes[index][0] for index in np.flatnonzero(~kept))
        found.small.extend(boxes[index][0] for index in np.flatnonzero(screening.is_small(corners)))
    if values:
        joined = b"".join(values)
        if len(joined) > len(slot) - _TOTAL:
            return found._replace(data=joined)
        slot[: len(joined)] = joined
    return found


def _box(entry: Entry, shape: tuple[int, ...], mended: list[Mended]) -> screening.Box | None:
    """The entry's box in the 64x64 image, of a picture that had `shape` (height, width, channels)."""
    if entry.malformed:
        mended.append(Mended(entry.name, entry.line, entry.malformed, None, "not four whole numbers"))
    if entry.box is None:
        return None
    height, width = shape[:2]
    box, wrong = screening.mend(entry.box, width, height)
    if box and (width, height) != (SIZE, SIZE):
        box = screening.scale(box, width, height, SIZE)
    if wrong:
        was = " ".join(map(str, entry.box))
        mended.append(Mended(entry.name, entry.line, was, list(box) if box else None, wrong))
    return box


def _decodes_to(content: bytes, image: np.ndarray) -> bool:
    """Whether Caffe, which decodes a file to what is in it, sees the same 8-bit image in three channels or in one."""
    header = image_files.header(content)
    if content[:2] == image_files.JPEG and header and not header.exif:
        return True  # a JPEG is that, if nothing in it says to turn it
    kept = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if kept is None or kept.dtype != np.uint8 or kept.shape not in (image.shape, image.shape[:2]):
        return False
    return np.array_equal(kept if kept.ndim == 3 else cv2.cvtColor(kept, cv2.COLOR_GRAY2BGR), image)


def total(slot: memoryview) -> np.ndarray:
    """Where in a slot the sum of its images is."""
    return np.frombuffer(slot[-_TOTAL:], np.float32).reshape(SIZE, SIZE, 3)
