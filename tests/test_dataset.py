"""Reading Tiny ImageNet's layout: what is there, and every way in which it can be incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiny_imagenet import dataset
from tiny_imagenet.errors import DatasetError

WNIDS = ("n02", "n01")  # the file's order counts, not the alphabet's


def picture(seed: int, shape=(64, 64, 3)) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, *shape[2:]), dtype=np.uint8)
    return cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tiny"
    for label, wnid in enumerate(WNIDS):
        for index in range(3):
            save(root / "train" / wnid / "images" / f"{wnid}_{index}.JPEG", picture(10 * label + index))
        lines = [f"{wnid}_{index}.JPEG\t{index}\t1\t{index + 20}\t63\n" for index in range(2)]
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(lines))
    for index in range(4):
        save(root / "val" / "images" / f"val_{index}.JPEG", picture(50 + index))
        save(root / "test" / "images" / f"test_{index}.JPEG", picture(80 + index))
    lines = [f"val_{index}.JPEG\t{WNIDS[index % 2]}\t0\t0\t{index}\t63\n" for index in reversed(range(4))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttoad\n")
    return root


def test_reads_classes_and_records(tree):
    data = dataset.read(tree)
    assert data.classes == [("n02", "toad"), ("n01", "goldfish, Carassius auratus")]
    train = data.splits["train"]
    assert [record.name for record in train] == sorted(f"{wnid}_{index}.JPEG" for wnid in WNIDS for index in range(3))
    assert [record.label for record in train] == [1, 1, 1, 0, 0, 0]
    assert [record.box for record in train[:3]] == [(0, 1, 20, 63), (1, 1, 21, 63), None]
    assert all(Path(record.path).is_file() for records in data.splits.values() for record in records)
    assert [record[2:] for record in data.splits["val"]] == [(i % 2, (0, 0, i, 63)) for i in range(4)]
    assert [record[2:] for record in data.splits["test"]] == [(-1, None)] * 4


def test_line_ends_suffixes_and_stray_files_do_not_matter(tree):
    for path in (*tree.glob("*.txt"), *tree.glob("*/*.txt"), *tree.glob("train/*/*.txt")):
        text = path.read_text().rstrip("\n").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    before = dataset.read(tree)
    folder = tree / "test" / "images"
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "._test_0.JPEG").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    for index, suffix in enumerate((".jpg", ".JPG", ".jpeg", ".PnG")):
        save(folder / f"more_{index}{suffix}", picture(index))
    after = dataset.read(tree)
    assert after.splits["train"] == before.splits["train"]
    assert len(after.splits["test"]) == len(before.splits["test"]) + 4
    assert after.classes[1].words == "goldfish, Carassius auratus"


def edit(name: str, old: str, new: str):
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def remove(name: str):
    def change(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def empty(name: str):
    def change(root: Path) -> None:
        shutil.rmtree(root / name)
        (root / name).mkdir()

    return change


BOXES = "train/n02/n02_boxes.txt"
NOTES = "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("."), ["tiny is not a folder", "wnids.txt"]),
        (remove("wnids.txt"), ["wnids.txt is missing"]),
        (remove("words.txt"), ["words.txt is missing"]),
        (edit("wnids.txt", "n02\nn01\n", "\n"), ["wnids.txt names no class"]),
        (edit("wnids.txt", "n01", "n02"), ["wnids.txt, line 2", "'n02'"]),
        (edit("wnids.txt", "n01\n", ""), ["train/n01", "wnids.txt"]),
        (edit("wnids.txt", "n01\n", "n01\nn03\n"), ["train/n03/images is missing"]),
        (remove("train"), ["train is missing"]),
        (remove("train/n01"), ["train/n01/images is missing"]),
        (empty("train/n01/images"), ["train/n01/images has no image", ".JPEG"]),
        (remove(BOXES), ["n02_boxes.txt is missing"]),
        (remove("train/n02/images/n02_1.JPEG"), ["n02_boxes.txt, line 2", "'n02_1.JPEG'"]),
        (edit(BOXES, "n02_1.JPEG", "n02_0.JPEG"), ["n02_boxes.txt, line 2", "second line"]),
        (edit(BOXES, "\t1\t1\t21\t", "\t1\tone\t21\t"), ["n02_boxes.txt, line 2", "1 one 21 63"]),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1\t1\t21"), ["n02_boxes.txt, line 2", "4 fields, needs 5"]),
        (edit(BOXES, "\t21\t63", "\t21\t64"), ["n02_boxes.txt, line 2", "x0 <= x1 <= 63"]),
        (edit(BOXES, "\t1\t1\t21", "\t22\t1\t21"), ["n02_boxes.txt, line 2", "22 1 21 63"]),
        (edit(BOXES, "\t1\t1\t21", "\t-1\t1\t21"), ["n02_boxes.txt, line 2", "-1 1 21 63"]),
        (remove("val/images"), ["val/images is missing"]),
        (remove(NOTES), ["val_annotations.txt is missing"]),
        (remove("val/images/val_2.JPEG"), ["val_annotations.txt, line 2", "'val_2.JPEG'"]),
        (edit(NOTES, "val_2.JPEG\tn02\t0\t0\t2\t63\n", ""), ["val_2.JPEG has no line in", "val_annotations.txt"]),
        (edit(NOTES, "val_2.JPEG\tn02", "val_2.JPEG\tn09"), ["val_annotations.txt, line 2", "'n09'", "wnids.txt"]),
        (edit(NOTES, "\t0\t0\t2\t63", ""), ["val_annotations.txt, line 2", "2 fields, needs 6"]),
        (empty("test/images"), ["test/images has no image"]),
        (remove("test"), ["test/images is missing"]),
    ],
)
def test_incomplete_or_malformed(tree, change, words):
    change(tree)
    with pytest.raises(DatasetError) as error:
        dataset.read(tree)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_file_in_place_of_a_folder(tree):
    with pytest.raises(DatasetError, match=r"wnids\.txt is not a folder"):
        dataset.read(tree / "wnids.txt")
    shutil.rmtree(tree / "test" / "images")
    (tree / "test" / "images").write_text("")
    with pytest.raises(DatasetError, match=r"cannot read .*test/images"):
        dataset.read(tree)


@pytest.mark.parametrize("suffix", [".JPEG", ".png"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 64)])
def test_read_image_is_imread_in_colour(tmp_path, suffix, shape):
    path = tmp_path / f"x{suffix}"
    save(path, picture(1, shape))
    image = dataset.read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, cv2.imread(str(path), cv2.IMREAD_COLOR))
    if len(shape) == 2:
        assert (image == image[:, :, :1]).all()


@pytest.mark.parametrize("suffix", [".JPEG", ".png"])
@pytest.mark.parametrize(
    "damage", [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: d[:-2], lambda d: b"hello" * 9]
)
def test_damaged_images(tmp_path, capfd, suffix, damage):
    path = tmp_path / f"x{suffix}"
    save(path, picture(2))
    path.write_bytes(damage(path.read_bytes()))
    try:
        dataset.read_image(path)
    except DatasetError as error:
        assert str(path) in str(error)
        assert "JPEG or PNG" in str(error)
    else:  # a PNG is whole without the last bytes of its end marker, to some versions of OpenCV
        assert suffix == ".png"
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert path.read_bytes()[-6:-4] == b"IE" or path.read_bytes()[-6:-2] == b"IEND"
    assert capfd.readouterr() == ("", "")


def test_noise_of_image_libraries_is_kept_out(tmp_path, capfd):
    path = tmp_path / "x.jpg"
    save(path, picture(3))
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes(range(1, 60)) + data[-2:])  # libjpeg warns of bytes before the end marker
    dataset.read_image(path)
    assert capfd.readouterr() == ("", "")
    cv2.imread(str(path))
    assert "Corrupt JPEG" in capfd.readouterr().err  # so the case does make noise


def test_wrong_size_and_missing_image(tmp_path):
    path = tmp_path / "wide.JPEG"
    save(path, picture(4, (64, 80, 3)))
    with pytest.raises(DatasetError, match=r"wide\.JPEG is 80x64: only 64x64"):
        dataset.read_image(path)
    with pytest.raises(DatasetError, match=r"cannot read .*none\.JPEG: No such file"):
        dataset.read_image(tmp_path / "none.JPEG")
