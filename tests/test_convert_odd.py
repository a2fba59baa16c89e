"""Conversion of data sets with unusual boxes, classes, sizes, kinds of files and annotations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from test_dataset import picture, save
from test_images import references
from tiny_imagenet.data import convert, datum, lmdb_reader, sample, verify
from tiny_imagenet.errors import DatasetError

ROOT = Path(__file__).resolve().parent.parent
ZERO, ONE = sample.WNIDS[:2]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "odd"
    sample.write(folder, train=40, val=10, test=10)
    return folder


def boxes(root, wnid):
    return root / "train" / wnid / f"{wnid}_boxes.txt"


def set_box(root, wnid, number, *box):
    lines = boxes(root, wnid).read_text().splitlines()
    name = lines[number].split("\t")[0]
    lines[number] = "\t".join(map(str, (name, *box)))
    boxes(root, wnid).write_text("\r\n".join(lines))
    return name


def by_name(folder, split="train"):
    return {key.split("_", 1)[1]: image for key, _, image in lmdb_reader.records(folder / f"{split}.lmdb")}


def test_odd_boxes_are_clipped_screened_and_listed(root, tmp_path):
    rows = [
        ((-9, -9, 3, 3), [0, 0, 3, 3], "sticks out"),
        ((63, 20, 40, 90), [40, 20, 63, 63], "inside out"),
        ((0, 64, 10, 70), None, "outside the image"),
        ((0, 1, "NaN", 5), None, "not four whole numbers"),
    ]
    names = [set_box(root, ZERO, number, *box) for number, (box, _, _) in enumerate(rows)]
    with open(boxes(root, ZERO), "a") as file:
        file.write(f"\r\n{names[0]}\t5\t5\t60\t60")
    manifest = convert.convert(root, tmp_path / "x", workers=1)
    where = boxes(root, ZERO).relative_to(root).as_posix()
    expected = [
        {"name": name, "line": f"{where}:{number}", "was": " ".join(map(str, box)), "now": now, "why": why}
        for number, (name, (box, now, why)) in enumerate(zip(names, rows), 1)
    ]
    second = {"name": names[0], "line": f"{where}:5", "was": "a second line", "now": None, "why": "the first counts"}
    assert manifest["mended_boxes"] == [*expected, second]
    assert names[0] in manifest["screening"]["dropped"]  # 16 pixels in a corner, outside the opposite crop
    assert names[0] in manifest["screening"]["small"]
    assert manifest["screening"]["without_box"] == 2
    assert manifest["lmdbs"]["train"]["count"] == 40
    verify.verify(tmp_path / "x")


def test_a_class_without_images_keeps_its_index(root, tmp_path):
    for path in (root / "train" / ZERO / "images").iterdir():
        path.unlink()
    boxes(root, ZERO).unlink()
    manifest = convert.convert(root, tmp_path / "x", workers=1)
    assert manifest["empty_classes"] == [ZERO]
    assert len(manifest["classes"]) == 10
    assert {label for _, label, _ in lmdb_reader.records(tmp_path / "x" / "train.lmdb")} == set(range(1, 10))
    verify.verify(tmp_path / "x")


def test_other_sizes_are_refused_or_resized(root, tmp_path):
    folder = root / "train" / ONE / "images"
    first, second = sorted(path.name for path in folder.iterdir())[:2]
    large, flat = picture(1, (128, 256, 3)), picture(2, (32, 64))
    (folder / first).write_bytes(cv2.imencode(".png", large)[1].tobytes())
    (folder / second).write_bytes(cv2.imencode(".png", flat)[1].tobytes())
    numbers = {line.split("\t")[0]: i for i, line in enumerate(boxes(root, ONE).read_text().splitlines())}
    set_box(root, ONE, numbers[first], 252, 0, 300, 15)  # 1x8 pixels at the upper right after resizing
    set_box(root, ONE, numbers[second], 0, 0, 63, 31)
    with pytest.raises(DatasetError, match=r"(256x128|64x32)"):
        convert.convert(root, tmp_path / "x", workers=1)
    manifest = convert.convert(root, tmp_path / "x", workers=1, resize=True)
    prefix = f"train/{ONE}/images"
    assert manifest["resized"] == [f"{prefix}/{first}", f"{prefix}/{second}"]
    assert [(box["name"], box["now"]) for box in manifest["mended_boxes"]] == [(first, [63, 0, 63, 7])]
    assert first in manifest["screening"]["small"] and first in manifest["screening"]["dropped"]
    images = by_name(tmp_path / "x")
    smaller = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(images[first], smaller.transpose(2, 0, 1))
    grown = cv2.resize(flat, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(images[second], np.stack([grown] * 3))
    manifest = convert.convert(root, tmp_path / "y", workers=1, resize=True, encoded=True)
    assert manifest["reencoded"] == manifest["resized"] == [f"{prefix}/{first}", f"{prefix}/{second}"]
    np.testing.assert_array_equal(by_name(tmp_path / "y")[first], images[first])
    verify.verify(tmp_path / "y")


def test_every_kind_of_file_raw_and_encoded(root, tmp_path):
    folder = root / "test" / "images"
    known = references(folder)
    convert.convert(root, tmp_path / "raw", workers=1)
    manifest = convert.convert(root, tmp_path / "encoded", workers=2, encoded=True)
    raw, encoded = by_name(tmp_path / "raw", "test"), by_name(tmp_path / "encoded", "test")
    for name, expected in known.items():
        np.testing.assert_array_equal(raw[name], encoded[name])
        assert np.abs(raw[name].transpose(1, 2, 0) - expected).max() <= 3
    kept = {Path(name).name for name in manifest["reencoded"]}
    assert kept == {"transparent.png", "alpha.png", "grey_alpha.png", "deep.png", "deep_grey.png"}
    for key, value in lmdb_reader.raw_records(tmp_path / "encoded" / "test.lmdb"):
        data = datum.Datum.FromString(value).data
        name = key.split("_", 1)[1]
        if name not in kept:
            assert data == (folder / name).read_bytes()
        # Caffe decodes it unchanged: 8 bits, in three channels or one.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.dtype == np.uint8 and image.shape in ((64, 64, 3), (64, 64))
    verify.verify(tmp_path / "encoded")


@pytest.mark.parametrize("far", [False, True])
def test_an_image_rotated_by_exif_is_encoded_as_it_is_seen(root, tmp_path, far):
    image = pytest.importorskip("PIL.Image")
    path = root / "test" / "images" / "turned.jpg"
    exif = image.Exif()
    exif[0x0112] = 6  # a quarter turn
    image.fromarray(picture(3)).save(path, exif=exif)
    if far:
        data, comment = path.read_bytes(), b"\xff\xfe\xff\xff" + bytes(65533)
        path.write_bytes(data[:2] + comment + comment + data[2:])
    manifest = convert.convert(root, tmp_path / "x", workers=1, encoded=True)
    assert manifest["reencoded"] == ["test/images/turned.jpg"]
    found = by_name(tmp_path / "x", "test")["turned.jpg"]
    np.testing.assert_array_equal(found, cv2.imread(str(path)).transpose(2, 0, 1))


def test_what_cannot_be_used_is_left_out_on_request(root, tmp_path):
    notes = root / "val" / "val_annotations.txt"
    lines = notes.read_text().splitlines()
    notes.write_text("\n".join([*lines[1:], "gone.JPEG\tn00000000"]))
    orphan = lines[0].split("\t")[0]
    with pytest.raises(DatasetError, match=r"line 10: .*gone\.JPEG.*--skip-unreadable"):
        convert.convert(root, tmp_path / "x")
    notes.write_text("\n".join(lines[1:]))
    with pytest.raises(DatasetError, match=f"{orphan}.*--skip-unreadable"):
        convert.convert(root, tmp_path / "x")
    notes.write_text("\n".join([*lines[1:], "gone.JPEG\tn00000000"]))
    (root / "train" / ONE / "images" / "folder.JPEG").mkdir()
    save(root / "test" / "images" / "wide.png", picture(1, (64, 70, 3)))
    (root / "test" / "images" / "other.JPEG").write_bytes(cv2.imencode(".webp", picture(1))[1].tobytes())
    manifest = convert.convert(root, tmp_path / "x", workers=1, skip_unreadable=True)
    assert manifest["unlabelled"] == [f"val/images/{orphan}"]
    assert manifest["unreadable"] == [
        *("test/images/other.JPEG", "test/images/wide.png"),
        f"train/{ONE}/images/folder.JPEG",
    ]
    assert manifest["missing"] == ["val/images/gone.JPEG"]
    assert [manifest["lmdbs"][split]["count"] for split in ("train", "val", "test")] == [40, 9, 10]
    verify.verify(tmp_path / "x")


def test_the_script_reports_all_of_it(root, tmp_path):
    set_box(root, ZERO, 0, -9, -9, 3, 3)
    save(root / "test" / "images" / "wide.png", picture(1, (64, 70, 3)))
    os.truncate(next((root / "train" / ONE / "images").iterdir()), 100)
    command = [sys.executable, ROOT / "tools" / "convert.py", root, tmp_path / "x", "--resize", "--skip-unreadable"]
    done = subprocess.run([*command, "--crop", "48", "--min-visible", "0.5"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("by screening (crop 48, 1/2)", "1,891", "mended boxes", "resized", "unreadable"):
        assert words in done.stdout
    assert "1,535" not in done.stdout  # that is for the paper's own rule
