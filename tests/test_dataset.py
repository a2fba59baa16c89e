"""Reading Tiny ImageNet's layout: classes, images and annotations, and every way in which they can be incomplete."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tiny_imagenet.data import dataset
from tiny_imagenet.errors import DatasetError

WNIDS = ("n02", "n01")  # the order of wnids.txt is not alphabetical


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


def test_classes_and_records(tree):
    data = dataset.read(tree)
    assert data.classes == [("n02", "toad"), ("n01", "goldfish, Carassius auratus")]
    train = data.splits["train"]
    assert [record.name for record in train] == sorted(f"{wnid}_{index}.JPEG" for wnid in WNIDS for index in range(3))
    assert [record.label for record in train] == [1, 1, 1, 0, 0, 0]
    assert [record.box for record in train[:3]] == [(0, 1, 20, 63), (1, 1, 21, 63), None]
    assert all(Path(record.path).is_file() for records in data.splits.values() for record in records)
    assert [(r.label, r.box) for r in data.splits["val"]] == [(i % 2, (0, 0, i, 63)) for i in range(4)]
    assert [(r.label, r.box) for r in data.splits["test"]] == [(-1, None)] * 4


def test_line_ends_suffixes_and_other_files_do_not_matter(tree):
    for path in (*tree.glob("*.txt"), *tree.glob("*/*.txt"), *tree.glob("train/*/*.txt")):
        text = path.read_text().rstrip("\n").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    before = dataset.read(tree)
    folder = tree / "test" / "images"
    for name in (".DS_Store", "._test_0.JPEG", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
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


def empty(*names: str):
    def change(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name)
            (root / name).mkdir()
            for boxes in (root / name).parent.glob("*_boxes.txt"):
                boxes.write_text("")

    return change


def without_tabs(name: str):
    def change(root: Path) -> None:
        (root / name).write_text((root / name).read_text().replace("\t", " "))

    return change


def append(name: str, lines: list[str]):
    def change(root: Path) -> None:
        with open(root / name, "a") as file:
            file.writelines(f"{line}\n" for line in lines)

    return change


BOXES = "train/n02/n02_boxes.txt"
NOTES = "val/val_annotations.txt"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("."), ["tiny", "wnids.txt"]),
        (remove("wnids.txt"), ["wnids.txt"]),
        (remove("words.txt"), ["words.txt"]),
        (edit("wnids.txt", "n02\nn01\n", "\n"), ["wnids.txt"]),
        (edit("wnids.txt", "n01", ".."), ["wnids.txt, line 2", "'..'"]),
        (edit("wnids.txt", "n01", "n02"), ["wnids.txt, line 2", "'n02'"]),
        (edit("wnids.txt", "n01\n", ""), ["train/n01", "wnids.txt"]),
        (edit("wnids.txt", "n01\n", "n01\nn03\n"), ["train/n03/images"]),
        (remove("train"), ["/train "]),
        (remove("train/n01"), ["train/n01/images"]),
        (empty("train/n01/images", "train/n02/images"), ["train/", ".JPEG"]),
        (remove(BOXES), ["n02_boxes.txt"]),
        (remove("train/n02/images/n02_1.JPEG"), ["n02_boxes.txt, line 2", "'n02_1.JPEG'"]),
        (remove("val/images"), ["val/images"]),
        (remove(NOTES), ["val_annotations.txt"]),
        (remove("val/images/val_2.JPEG"), ["val_annotations.txt, line 2", "'val_2.JPEG'"]),
        (edit(NOTES, "val_2.JPEG\tn02\t0\t0\t2\t63\n", ""), ["val_2.JPEG", "val_annotations.txt"]),
        (edit(NOTES, "val_2.JPEG\tn02", "val_2.JPEG\tn09"), ["val_annotations.txt, line 2", "'n09'", "wnids.txt"]),
        (edit(NOTES, "val_3.JPEG\tn01", "val_2.JPEG\tn01"), ["val_annotations.txt, line 2", "line 1"]),
        (empty("test/images"), ["test/images"]),
        (remove("test"), ["test/images"]),
        (without_tabs(BOXES), ["n02_boxes.txt, line 1", "tabs"]),
        (without_tabs(NOTES), ["val_annotations.txt, line 1", "tabs"]),
    ],
)
def test_incomplete_or_malformed_data(tree, change, words):
    change(tree)
    with pytest.raises(DatasetError) as error:
        dataset.read(tree)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1\t-5\t21\t70", (1, 0, 21, 63)),
        ("21\t63\t1\t1", (1, 1, 21, 63)),
        ("64\t1\t80\t63", None),
        ("1\t1\t21\t" + "9" * 30, (1, 1, 21, 63)),
        ("1\tone\t21\t63", None),
        ("1.0\t1.\t21.000\t63", (1, 1, 21, 63)),
        ("1.5\t1\t21\t63", None),
        ("1\t1\t21", None),
        ("1\t1\t21\t63\nn02_1.JPEG\t2\t2\t2\t2", (1, 1, 21, 63)),
    ],
)
def test_a_box_is_clipped_or_ignored(tree, text, box):
    edit(BOXES, "1\t1\t21\t63", text)(tree)
    found = {record.name: record.box for record in dataset.read(tree).splits["train"]}
    assert found["n02_1.JPEG"] == box
    assert found["n02_0.JPEG"] == (0, 1, 20, 63)


def test_a_validation_image_needs_a_class_but_no_box(tree):
    edit(NOTES, "val_2.JPEG\tn02\t0\t0\t2\t63", "val_2.JPEG\tn02")(tree)
    record = dataset.read(tree).splits["val"][2]
    assert (record.label, record.box, record.invalid) == (0, None, "")


def test_files_of_another_format_are_refused(tree):
    for index in range(20):
        save(tree / "train" / "n02" / "images" / f"more_{index:02}.JPEG", picture(index))
    append(BOXES, [f"more_{index:02}.JPEG\t1,1,5,5" for index in range(20)])(tree)
    with pytest.raises(DatasetError, match=r"n02_boxes\.txt, line 3: .*'1,1,5,5'"):
        dataset.read(tree)


def test_unknown_classes_in_most_lines_are_refused(tree):
    for index in range(10, 30):
        save(tree / "val" / "images" / f"val_{index}.JPEG", picture(index))
    append(NOTES, [f"val_{index}.JPEG\tother" for index in range(10, 30)])(tree)
    with pytest.raises(DatasetError, match=r"val_annotations\.txt, line 5: .*'other'"):
        dataset.scan(tree, lenient=True)


def test_a_class_without_images_keeps_its_index(tree):
    empty("train/n02/images")(tree)
    data = dataset.scan(tree)
    assert data.empty == ["n02"]
    assert {record.label for record in data.splits["train"]} == {1}


def test_file_names_may_be_any_bytes(tree):
    name = os.fsdecode(b"n02_\xff.JPEG")
    try:
        save(tree / "train" / "n02" / "images" / name, picture(1))
    except OSError:
        pytest.skip("this file system accepts only UTF-8 names")
    with open(tree / BOXES, "ab") as file:
        file.write(b"n02_\xff.JPEG\t1\t2\t3\t\xfe\n")
    found = {record.name: record for record in dataset.scan(tree).splits["train"]}
    assert (found[name].box, found[name].line) == (None, "train/n02/n02_boxes.txt:3")
    assert found[name].invalid == "1 2 3 \\udcfe"
    assert found["n02_1.JPEG"].line == "train/n02/n02_boxes.txt:2"


def test_the_order_is_a_function_of_seed_and_name(tree):
    def names(seed):
        return [record.name for record in dataset.shuffled(dataset.scan(tree).splits["train"], seed)]

    assert len({tuple(names(seed)) for seed in range(20)}) > 10
    before = names(3)
    (tree / "train" / "n01" / "images" / "n01_1.JPEG").unlink()
    edit("train/n01/n01_boxes.txt", "n01_1.JPEG\t1\t1\t21\t63\n", "")(tree)
    assert names(3) == [name for name in before if name != "n01_1.JPEG"]
    keyed = [(hashlib.blake2b(name.encode(), key=b"3", digest_size=8).digest(), name) for name in before]
    signed = sorted(keyed, key=lambda entry: (int.from_bytes(entry[0], "big", signed=True), entry[1]))
    assert before == [name for _, name in signed]


def test_a_name_in_two_classes_is_two_images(tree):
    save(tree / "train" / "n01" / "images" / "n02_0.JPEG", picture(9))
    twice = [record for record in dataset.read(tree).splits["train"] if record.name == "n02_0.JPEG"]
    assert [(record.label, record.box) for record in twice] == [(0, (0, 1, 20, 63)), (1, None)]


def test_lenient_reading_lists_what_it_leaves_out(tree):
    remove("val/images/val_2.JPEG")(tree)
    edit(NOTES, "val_1.JPEG\tn01", "val_1.JPEG\tn09")(tree)
    save(tree / "val" / "images" / "val_9.JPEG", picture(9))
    data = dataset.scan(tree, lenient=True)
    assert data.missing == ["val/images/val_2.JPEG"]
    assert data.unlabelled == ["val/images/val_1.JPEG", "val/images/val_9.JPEG"]
    assert [record.name for record in data.splits["val"]] == ["val_0.JPEG", "val_3.JPEG"]


def test_a_file_instead_of_a_folder(tree):
    with pytest.raises(DatasetError, match=r"wnids\.txt"):
        dataset.read(tree / "wnids.txt")
    shutil.rmtree(tree / "test" / "images")
    (tree / "test" / "images").write_text("")
    with pytest.raises(DatasetError, match="test/images"):
        dataset.read(tree)
