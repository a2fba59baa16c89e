"""What a JPEG or PNG file says of itself before it is decoded: whether it is one, and whole, its size, Exif data."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from tiny_imagenet import files
from tiny_imagenet.errors import DatasetError

JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
LARGEST = 4096  # pixels a side of an image that is decoded
MOST = 32 << 20  # bytes of a file that is read

_SEGMENT = struct.Struct(">BBH").unpack_from  # 0xff, the marker and, behind most markers, the segment's length
_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # start-of-frame markers
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers without a segment, and no marker


def read(path: str | os.PathLike[str], most: int = MOST) -> bytes:
    """The bytes of a file.

    Raises:
        DatasetError: it cannot be read, is no plain file, or has more than `most` bytes.
    """
    try:
        with open(path, "rb", opener=files.plain) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise DatasetError(f"the image {path} has {size:,} bytes: at most {most >> 20} MiB are allowed")
            return file.read(size)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


class Header(NamedTuple):
    """Width and height in pixels, and whether there is Exif data, which may say to turn the image."""

    width: int
    height: int
    exif: bool


def is_known(data: bytes) -> bool:
    """Whether the bytes begin as those of a JPEG or PNG file."""
    return data[:2] == JPEG or data[:8] == PNG


def is_whole(data: bytes) -> bool:
    """Whether the bytes have a JPEG's end, or are not a JPEG's.

    Decoders fill the rest of one that is cut off with grey. The end is looked for behind the last start of a scan: a
    thumbnail in front has one of its own.
    """
    end = b"\xff\xd9"
    return data[:2] != JPEG or data.endswith(end) or data.find(end, data.rfind(b"\xff\xda")) > 0


def header(data: bytes) -> Header | None:
    """The header of a JPEG or PNG file's bytes; None where they have none, so that they cannot be decoded either."""
    found = _jpeg(data) if data[:2] == JPEG else _png(data) if data[:8] == PNG else None
    return found if found and found.width and found.height else None


def _png(data: bytes) -> Header | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return Header(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"), False)


def _jpeg(data: bytes) -> Header | None:
    """What stands before the scan; decoders pass over bytes between segments, and so does this."""
    at, width, height, exif = 2, 0, 0, False
    last = len(data) - 4
    while at <= last:
        mark, marker, length = _SEGMENT(data, at)
        if mark != 0xFF:
            at = data.find(b"\xff", at)
            if at < 0:
                return None
            continue
        if marker == 0xFF:  # a byte of filling
            at += 1
            continue
        if marker == 0xDA:  # the scan
            return Header(width, height, exif)
        at += 2
        if marker in _ALONE:
            continue
        if marker in _SIZES:
            height = max(height, data[at + 3] << 8 | data[at + 4]) if at + 7 <= len(data) else 0
            width = max(width, data[at + 5] << 8 | data[at + 6]) if at + 7 <= len(data) else 0
        elif marker == 0xE1 and data[at + 2 : at + 7] == b"Exif\0":
            exif = True
        at += length if length > 2 else 2
    return None
