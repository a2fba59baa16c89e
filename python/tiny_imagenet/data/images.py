"""Reads JPEG and PNG files as 64x64 arrays."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import cv2
import numpy as np

from tiny_imagenet import files
from tiny_imagenet.errors import DatasetError

SIZE = 64
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"


def read_image(path: str | os.PathLike[str], resize: bool = False) -> np.ndarray:
    """Return the image file as a uint8 array of 64 x 64 x 3, channels in the order BGR.

    Grey images get three channels, CMYK is converted, 16 bits per channel become 8 and transparency is dropped.

    Args:
        path: JPEG or PNG file.
        resize: whether an image of another size is resized to 64x64 (ignoring its aspect ratio) instead of refused.

    Raises:
        DatasetError: the file cannot be read or decoded, or has another size.
    """
    with quiet():
        image = decode(read_bytes(path), path)
    return fit(image, path, resize)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of an image file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=files.plain) as file:
            return file.read()
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


def decode(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """Decode the contents of the image file `path` to a uint8 array of height x width x 3, BGR.

    Raises:
        DatasetError: the data is not a whole JPEG or PNG file.
    """
    image, known = None, data[:2] == JPEG or data[:8] == PNG
    if known and not _is_cut_off(data):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        problem = "it is damaged or cut off" if known else "it is not a JPEG or PNG file" if data else "it is empty"
        raise DatasetError(f"cannot decode the image {path}: {problem}")
    return image


def fit(image: np.ndarray, path: str | os.PathLike[str], resize: bool) -> np.ndarray:
    """Return the image at 64x64: as it is, or resized by area averaging (down) or linear interpolation (up).

    Raises:
        DatasetError: it has another size and `resize` is false.
    """
    height, width = image.shape[:2]
    if (height, width) == (SIZE, SIZE):
        return image
    if not resize:
        raise DatasetError(f"the image {path} is {width}x{height}, expected {SIZE}x{SIZE}: resize it or use --resize")
    method = cv2.INTER_AREA if min(height, width) >= SIZE else cv2.INTER_LINEAR
    return cv2.resize(image, (SIZE, SIZE), interpolation=method)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG file lacks its end marker; decoders fill the rest of such an image with grey.

    The marker is searched after the last scan starts, because an embedded thumbnail has one too.
    """
    end = b"\xff\xd9"
    return data[:2] == JPEG and not data.endswith(end) and data.find(end, data.rfind(b"\xff\xda")) < 0


class _Stderr:
    """Number of blocks that silence file descriptor 2, and a copy of it."""

    lock = threading.Lock()
    users = 0
    saved = -1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence file descriptor 2, to which image libraries print warnings; blocks may overlap in several threads."""
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
