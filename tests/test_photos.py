"""Photos of any size a camera makes: beside their own pixels averaged, in little memory; what only says it is one."""

import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from tiny_imagenet.data import dataset, image_files
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.evaluation import photos

QUICK = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def scene(width, height):
    """Something with edges, gradients and colours at all sizes: (height, width, 3) uint8, BGR."""
    generator = np.random.default_rng(0)
    image = np.zeros((96, 128, 3), np.float32)
    for size in (3, 12, 48, 96):
        image += cv2.resize(generator.random((size, size, 3), np.float32), (128, 96), interpolation=cv2.INTER_CUBIC)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    cv2.circle(image, (64, 40), 25, (30, 40, 220), -1)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def means(image):
    """What 64x64 pixels of an image are: the means of its pixels, by numpy alone; sides are multiples of 64."""
    height, width = image.shape[:2]
    return image.reshape(64, height // 64, 64, width // 64, 3).mean(axis=(1, 3))


@pytest.mark.parametrize(("width", "height"), [(4160, 320), (4608, 3072), (5120, 3840), (9600, 7680)])
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_large_photo_is_the_mean_of_its_pixels(tmp_path, ending, width, height):
    image = scene(width, height)
    path = tmp_path / f"photo{ending}"
    cv2.imwrite(str(path), image, QUICK if ending == ".png" else [])
    with pytest.raises(DatasetError, match="at most (4096 pixels a side|32 MiB) are"):  # a data set has none
        dataset.read_image(path, resize=True)
    found = photos.read(path)
    assert found.shape == (64, 64, 3) and found.dtype == np.uint8
    difference = np.abs(found - means(image))
    assert difference.mean() < 1 and difference.max() < 8


def test_a_usual_image_is_what_a_data_set_makes_of_it(tmp_path):
    for width, height in ((64, 64), (40, 300), (1000, 700), (4096, 512)):
        path = tmp_path / f"{width}.jpg"
        cv2.imwrite(str(path), scene(width, height))
        assert (photos.read(path) == dataset.read_image(path, resize=True)).all()


def turned(jpeg):
    """A JPEG's bytes with Exif data that says the camera was held upright (orientation 6)."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + jpeg[2:]


@pytest.mark.parametrize(("width", "height"), [(1280, 960), (5120, 3840)])
def test_a_photo_is_turned_as_its_camera_was(tmp_path, width, height):
    image = scene(width, height)
    path = tmp_path / "photo.jpg"
    path.write_bytes(turned(cv2.imencode(".jpg", image)[1].tobytes()))
    difference = np.abs(photos.read(path) - means(cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)))
    assert difference.mean() < 1 and difference.max() < 8


MEASURE = """
import resource, sys
from tiny_imagenet import errors
from tiny_imagenet.evaluation import photos
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    said = photos.read(sys.argv[1]).shape
except errors.DatasetError as error:
    said = error
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said)
"""


def measure(path):
    """What reading says, and how many megabytes it takes at most in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    kilobytes, said = done.stdout.strip().split(" ", 1)
    return int(kilobytes) / 1000, said


def test_a_photo_of_108_million_pixels_takes_little_memory(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.jpg"), scene(12000, 9000))
    megabytes, said = measure(tmp_path / "photo.jpg")
    assert said == "(64, 64, 3)" and megabytes < 150  # decoded it has 324


def huge(width, height, kind):
    """Bytes that say they are a huge image."""
    if kind == "jpg":
        data = bytearray(cv2.imencode(".jpg", scene(64, 64))[1].tobytes())
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", height, width)
        return bytes(data)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "kind"), [(20000, 20000, "jpg"), (20000, 20000, "png"), (2**31 - 1, 2**31 - 1, "png")]
)
def test_what_says_it_is_too_large_is_refused_before_it_takes_memory(tmp_path, width, height, kind):
    path = tmp_path / "photo"
    path.write_bytes(huge(width, height, kind))
    megabytes, said = measure(path)
    assert f"photo is {width}x{height}: at most 134 million pixels are decoded; make it smaller first" in said
    assert megabytes < 20


@pytest.mark.parametrize(("width", "height"), [(2**26, 2), (2, 2**26), (1, 2**27)])
def test_shapes_that_no_camera_makes_are_refused(tmp_path, width, height):
    path = tmp_path / "photo"
    path.write_bytes(huge(width, height, "png"))
    with pytest.raises(DatasetError, match="it is damaged or cut off"):
        photos.read(path)


def test_a_photo_that_is_cut_off_is_refused(tmp_path):
    whole = turned(cv2.imencode(".jpg", scene(5120, 640))[1].tobytes())
    path = tmp_path / "photo.jpg"
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DatasetError, match=r"cannot read the image .*photo\.jpg: it is damaged or cut off"):
            photos.read(path)
    assert image_files.is_whole(whole) and not image_files.is_whole(whole[:-2])


def test_files_that_are_no_photos_are_refused(tmp_path):
    (tmp_path / "large").write_bytes(b"")
    os.truncate(tmp_path / "large", photos.MOST_BYTES + 1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no photo")
    for name, message in (
        ("large", "large has 134,217,729 bytes: at most 128 MiB are allowed"),
        ("pipe", "cannot read .*pipe: it is not a plain file"),
        ("none", "cannot read .*none: No such file or directory"),
        ("empty", "it is empty"),
        ("text", "it is of another kind or no image"),
    ):
        with pytest.raises(DatasetError, match=message):
            photos.read(tmp_path / name)
