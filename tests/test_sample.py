"""The sample of digits: layout, boxes, fractions of hard objects, separate digits per split, reproducibility."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiny_imagenet.data import dataset, images, sample, screening
from tiny_imagenet.errors import DatasetError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample") / "digits"
    sample.write(out, train=1203, val=200, test=57, seed=3)
    return out


@pytest.fixture(scope="module")
def data(folder):
    return dataset.read(folder)


def boxes(records):
    return np.array([record.box for record in records])


def test_counts_and_classes(data):
    assert [entry.words for entry in data.classes] == list(sample.WORDS)
    assert {split: len(records) for split, records in data.splits.items()} == {"train": 1203, "val": 200, "test": 57}
    for split in ("train", "val"):
        counts = np.bincount([record.label for record in data.splits[split]])
        assert len(counts) == 10
        assert counts.max() - counts.min() <= 1
    assert all(record.box for split in ("train", "val") for record in data.splits[split])


def test_fractions_of_hard_objects(data):
    train = boxes(data.splits["train"])
    height = train[:, 3] - train[:, 1] + 1
    assert np.mean((height >= 20) & (height <= 48)) > 0.85
    assert 0.01 < screening.is_small(train).mean() < 0.07
    assert 0.01 < 1 - screening.keep(train).mean() < 0.08
    val = boxes(data.splits["val"])
    assert screening.is_small(val).mean() < 0.04
    assert screening.keep(val).all()
    assert val.min() >= 4
    assert val.max() < 60


def test_boxes_are_the_bounds_of_the_digits(monkeypatch):
    monkeypatch.setattr(sample, "_ground", lambda rng: np.zeros((64, 64, 3), np.float32))
    rng = np.random.default_rng(0)
    digits = [digit for members in sample._sources(0)["train"] for digit in members]
    for digit in digits[::4]:
        image, box = sample._draw(digit, "train", rng)
        level = image if image.ndim == 2 else image.max(axis=2)
        rows, columns = np.nonzero(level >= level.max() * 0.5)
        found = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        assert (np.abs(found - box) <= 1).all(), (found, box)


def test_boxes_match_the_files(data):
    off = []
    for record in data.splits["train"]:
        grey = cv2.cvtColor(images.read_image(record.path), cv2.COLOR_BGR2GRAY)
        rows, columns = np.nonzero(grey > (np.median(grey) + grey.max()) / 2)
        off.append(np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - record.box).max())
    assert np.mean(np.array(off) <= 2) > 0.85


def test_files_are_64x64_jpegs_and_some_are_gray(data):
    grey = 0
    for record in data.splits["train"]:
        content = Path(record.path).read_bytes()
        assert content[:2] == b"\xff\xd8"
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape[:2] == (64, 64)
        grey += image.ndim == 2
    assert 0.005 * 1203 < grey < 0.05 * 1203


def test_splits_use_different_digits():
    from sklearn.datasets import load_digits

    digits = load_digits()
    known = {}
    for index, image in enumerate(digits.images):
        known.setdefault(sample._cut(image).tobytes(), set()).add(index)
    sources = sample._sources(5)
    used = {}
    for split, classes in sources.items():
        used[split] = [index for members in classes for digit in members for index in known[digit.tobytes()]]
        assert {digits.target[index] for index in used[split]} == set(range(10))
    everything = [index for indexes in used.values() for index in indexes]
    assert len(everything) == len(set(everything)) > 1700


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sample.write(tmp_path / name, train=20, val=10, test=10, seed=seed)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert tree(tmp_path / "a") != tree(tmp_path / "c")
    assert tree(tmp_path / "a").keys() == tree(tmp_path / "c").keys()


def test_too_few_images(tmp_path):
    with pytest.raises(DatasetError, match="val"):
        sample.write(tmp_path / "x", val=9)
    assert not list(tmp_path.iterdir())


def script(*arguments):
    return subprocess.run(
        [sys.executable, "tools/sample.py", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_script(tmp_path):
    done = script(tmp_path / "x", "--train", 12, "--val", 10, "--test", 11, "--seed", 4)
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 train, 10 val, 11 test" in done.stdout
    assert len(dataset.read(tmp_path / "x").splits["train"]) == 12
    again = script(tmp_path / "x")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert str(tmp_path / "x") in again.stderr


@pytest.mark.parametrize("arguments", [["--train", "9"], ["--val", "0"], ["--test", "x"], ["--seed", "-1"], ["--nope"]])
def test_script_bad_use(tmp_path, arguments):
    done = script(tmp_path / "x", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert arguments[0] in done.stderr
    assert not list(tmp_path.iterdir())
