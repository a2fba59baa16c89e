"""Image files of any size that a camera makes, as small images; of a large one no more is decoded than is needed."""

from __future__ import annotations

import contextlib
import os

import cv2
import numpy as np

from tiny_imagenet.data import dataset, image_files
from tiny_imagenet.errors import DatasetError

MOST_BYTES = 128 << 20
MOST_PIXELS = 128 << 20
MOST_DECODED = image_files.LARGEST**2  # pixels; of a larger image a half or a quarter of the rows and columns

_FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """The image file as a uint8 array of 64x64x3, channels in the order BGR: `dataset.read_image` with larger limits.

    Up to 4096 pixels a side it is the same. A larger one is made a half or a quarter as wide and high while it is
    decoded, which takes at most 0.1 GB of memory for a usual JPEG, and 1 GB for any file.

    Raises:
        DatasetError: the file cannot be read or decoded, or has more than 128 MiB or 134 million pixels.
    """
    data = image_files.read(path, MOST_BYTES)
    header = image_files.header(data)
    with dataset.quiet():
        if header and max(header.width, header.height) > image_files.LARGEST:
            image = _decode_large(data, header, path)
        else:
            image = dataset.decode_image(data, path)
    return dataset.fit(image, path, resize=True)


def _decode_large(data: bytes, header: image_files.Header, path: str | os.PathLike[str]) -> np.ndarray:
    pixels = header.width * header.height
    if pixels > MOST_PIXELS:
        raise DatasetError(
            f"the image {path} is {header.width}x{header.height}: at most {MOST_PIXELS / 1e6:.0f} million pixels are "
            "decoded; make it smaller first"
        )
    step = next(step for step in _FLAGS if pixels <= MOST_DECODED * step**2)
    image = None
    if image_files.is_whole(data):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[step])
    if image is None:
        raise DatasetError(f"cannot read the image {path}: it is damaged or cut off; a whole file is needed")
    return image
