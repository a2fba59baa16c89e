"""Image files: every common kind compared with OpenCV and Pillow, and damaged ones."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from test_dataset import picture, save
from tiny_imagenet.data import images
from tiny_imagenet.errors import DatasetError


@pytest.mark.parametrize("suffix", [".JPEG", ".png"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64)])
def test_pixels_are_those_of_opencv(tmp_path, suffix, shape):
    path = tmp_path / f"x{suffix}"
    save(path, picture(1, shape))
    image = images.read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, cv2.imread(str(path), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("suffix", [".JPEG", ".png"])
@pytest.mark.parametrize("damage", [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: b"hello" * 9])
def test_a_damaged_image_is_an_error_without_noise(tmp_path, capfd, suffix, damage):
    path = tmp_path / f"x{suffix}"
    save(path, picture(2))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=path.name):
        images.read_image(path)
    assert capfd.readouterr() == ("", "")


def test_warnings_of_image_libraries_are_silenced(tmp_path, capfd):
    path = tmp_path / "x.jpg"
    save(path, picture(3))
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes(range(1, 60)) + data[-2:])  # libjpeg warns of bytes before the end marker
    images.read_image(path)
    assert capfd.readouterr() == ("", "")


def references(folder):
    """Write files of kinds that a data set may contain; return the pixels that Pillow reads."""
    image = pytest.importorskip("PIL.Image")  # installed with scikit-image
    colour = image.fromarray(picture(5)[:, :, ::-1])
    cases = {
        "cmyk.jpg": (colour.convert("CMYK"), {"quality": 95}),
        "palette.png": (colour.quantize(32), {}),
        "transparent.png": (colour.quantize(32), {"transparency": 3}),
        "alpha.png": (image.merge("RGBA", (*colour.split(), colour.split()[0])), {}),
        "grey.png": (colour.convert("L"), {}),
        "grey_alpha.png": (colour.convert("LA"), {}),
        "bits.png": (colour.convert("1"), {}),
        "progressive.JPG": (colour, {"quality": 90, "progressive": True}),
    }
    for name, (made, options) in cases.items():
        made.save(folder / name, **options)
    known = {name: np.asarray(image.open(folder / name).convert("RGB"))[:, :, ::-1] for name in cases}
    deep = np.random.default_rng(6).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    (folder / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    (folder / "deep_grey.png").write_bytes(cv2.imencode(".png", deep[:, :, 0])[1].tobytes())
    return {**known, "deep.png": deep / 257, "deep_grey.png": np.repeat(deep[:, :, :1], 3, axis=2) / 257}


def test_every_kind_of_file_has_the_pixels_of_pillow(tmp_path):
    for name, expected in references(tmp_path).items():
        image = images.read_image(tmp_path / name)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8), name
        error = np.abs(image.astype(float) - expected)
        # JPEG decoders and CMYK conversions round differently; 16 bits are truncated to 8 instead of rounded.
        assert error.max() <= {".jpg": 3, ".JPG": 3}.get(Path(name).suffix, 1 if "deep" in name else 0), name


def test_cmyk_of_photoshop(tmp_path):
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.fromarray(picture(7)[:, :, ::-1]).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert b"Adobe" in buffer.getvalue()[:100]  # the ink is stored inverted
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue())
    assert np.abs(images.read_image(tmp_path / "x.jpg").astype(int) - picture(7)).mean() < 6


def test_a_truncated_image_with_a_whole_thumbnail_is_damaged(tmp_path):
    path = tmp_path / "x.jpg"
    save(path, picture(3))
    data = path.read_bytes()
    exif = b"Exif\0\0" + data
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2 : len(data) // 2])
    with pytest.raises(DatasetError, match=path.name):
        images.read_image(path)


@pytest.mark.parametrize("shape", [(80, 100, 3), (20, 64, 3), (1, 1, 3), (64, 63), (63, 200, 3), (3000, 4500, 3)])
def test_other_sizes_are_resized_on_request(tmp_path, shape):
    path = tmp_path / "x.png"
    save(path, picture(4, shape))
    with pytest.raises(DatasetError, match=f"{shape[1]}x{shape[0]}"):
        images.read_image(path)
    image = images.read_image(path, resize=True)
    how = cv2.INTER_AREA if min(shape[:2]) >= 64 else cv2.INTER_LINEAR
    np.testing.assert_array_equal(image, cv2.resize(cv2.imread(str(path)), (64, 64), interpolation=how))


@pytest.mark.parametrize("suffix", [".bmp", ".webp"])
def test_other_kinds_of_images_are_refused(tmp_path, suffix):
    (tmp_path / "x.JPEG").write_bytes(cv2.imencode(suffix, picture(1))[1].tobytes())
    with pytest.raises(DatasetError, match=r"x\.JPEG"):
        images.read_image(tmp_path / "x.JPEG")


def test_files_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("pipe.png", "none.JPEG"):
        with pytest.raises(DatasetError, match=name):
            images.read_image(tmp_path / name)
