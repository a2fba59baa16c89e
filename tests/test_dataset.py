"""Reading Tiny ImageNet's layout: what is there, and every way in which it can be incomplete."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_imagenet.data.catalogue import Catalogue

from tiny_imagenet.data import dataset, image_files
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


def empty(*names: str):
    def change(root: Path) -> None:
        for name in names:
            shutil.rmtree(root / name)
            (root / name).mkdir()
            for boxes in (root / name).parent.glob("*_boxes.txt"):
                boxes.write_text("")

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
        *(
            (edit("wnids.txt", "n01", name), ["wnids.txt, line 2", "not a class"])
            for name in (".", "..", "a\0b", "a/b")
        ),
        (edit("wnids.txt", "n01", "n02"), ["wnids.txt, line 2", "'n02'"]),
        (edit("wnids.txt", "n01\n", ""), ["train/n01", "wnids.txt"]),
        (edit("wnids.txt", "n01\n", "n01\nn03\n"), ["train/n03/images is missing"]),
        (remove("train"), ["train is missing"]),
        (remove("train/n01"), ["train/n01/images is missing"]),
        (empty("train/n01/images", "train/n02/images"), ["train/n02/images has no image", ".JPEG"]),
        (remove(BOXES), ["n02_boxes.txt is missing"]),
        (remove("train/n02/images/n02_1.JPEG"), ["n02_boxes.txt, line 2", "'n02_1.JPEG'"]),
        (edit(NOTES, "val_2.JPEG", "/etc/passwd"), ["val_annotations.txt, line 2", "no image '/etc/passwd'"]),
        (edit(NOTES, "val_2.JPEG", "../x.JPEG"), ["val_annotations.txt, line 2", "no image '../x.JPEG'"]),
        (remove("val/images"), ["val/images is missing"]),
        (remove(NOTES), ["val_annotations.txt is missing"]),
        (remove("val/images/val_2.JPEG"), ["val_annotations.txt, line 2", "'val_2.JPEG'"]),
        (edit(NOTES, "val_2.JPEG\tn02\t0\t0\t2\t63\n", ""), ["val_2.JPEG has no line in", "val_annotations.txt"]),
        (edit(NOTES, "val_2.JPEG\tn02", "val_2.JPEG\tn09"), ["val_annotations.txt, line 2", "'n09'", "wnids.txt"]),
        (edit(NOTES, "val_3.JPEG\tn01", "val_2.JPEG\tn01"), ["annotations.txt, line 2", "another class in line 1"]),
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


@pytest.mark.parametrize(
    ("change", "box"),
    [
        (edit(BOXES, "\t1\t1\t21\t63", "\t1\t-5\t21\t70"), (1, 0, 21, 63)),
        (edit(BOXES, "\t1\t1\t21\t63", "\t21\t63\t1\t1"), (1, 1, 21, 63)),
        (edit(BOXES, "\t1\t1\t21\t63", "\t64\t1\t80\t63"), None),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1\t1\t21\t" + "9" * 30), (1, 1, 21, 63)),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1\tone\t21\t63"), None),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1.0\t1.\t21.000\t63"), (1, 1, 21, 63)),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1.5\t1\t21\t63"), None),
        (edit(BOXES, "\t1\t1\t21\t63", "\t.0\t1\t21\tinf"), None),
        (edit(BOXES, "\t1\t1\t21\t63", "\t1\t1\t21"), None),
        (edit(BOXES, "n02_1.JPEG\t1\t1\t21\t63\n", ""), None),
        (edit(BOXES, "n02_1.JPEG\t1\t1\t21\t63", "n02_1.JPEG\t1\t1\t21\t63\nn02_1.JPEG\t2\t2\t2\t2"), (1, 1, 21, 63)),
    ],
)
def test_an_odd_box_is_mended(tree, change, box):
    change(tree)
    found = {record.name: record.box for record in dataset.read(tree).splits["train"]}
    assert found["n02_1.JPEG"] == box
    assert found["n02_0.JPEG"] == (0, 1, 20, 63)


def test_a_validation_image_needs_a_class_and_no_box(tree):
    edit(NOTES, "val_2.JPEG\tn02\t0\t0\t2\t63", "val_2.JPEG\tn02")(tree)
    assert dataset.read(tree).splits["val"][2][2:] == (0, None)


def test_a_file_in_another_form_is_refused(tree):
    for index in range(20):
        save(tree / "train" / "n02" / "images" / f"more_{index}.JPEG", picture(index))
    with open(tree / BOXES, "a") as file:
        file.writelines(f"more_{index}.JPEG\t1,1,5,5\n" for index in range(20))
    with pytest.raises(DatasetError, match=r"n02_boxes\.txt, line 3: '1,1,5,5' is not a box.* in most lines"):
        dataset.read(tree)


def test_a_class_without_images_keeps_its_index(tree):
    empty("train/n02/images")(tree)
    data = dataset.read(tree)
    assert {record.label for record in data.splits["train"]} == {1}
    with Catalogue(tree) as catalogue:
        assert catalogue.empty == ["n02"]


def test_names_need_not_be_text(tree):
    name = os.fsdecode(b"n02_\xff.JPEG")
    try:
        save(tree / "train" / "n02" / "images" / name, picture(1))
    except OSError:
        pytest.skip("this file system takes names in UTF-8 alone")
    with open(tree / BOXES, "ab") as file:
        file.write(b"n02_\xff.JPEG\t1\t2\t3\t\xfe\n")
    records = dataset.read(tree).splits["train"]
    assert [record.box for record in records if record.name == name] == [None]
    with Catalogue(tree) as catalogue:
        found = {entry.name: entry for entry in catalogue.entries("train")}
        assert (found[name].line, found[name].malformed) == ("train/n02/n02_boxes.txt:3", "1 2 3 \\udcfe")
        assert found["n02_1.JPEG"].line == "train/n02/n02_boxes.txt:2"


def test_order_is_a_function_of_seed_and_name(tree):
    def names(seed):
        with Catalogue(tree, seed=seed) as catalogue:
            return [entry.name for entry in catalogue.entries("train")]

    orders = {tuple(names(seed)) for seed in range(20)}
    assert len(orders) > 10
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


def test_what_is_left_out_when_asked(tree):
    remove("val/images/val_2.JPEG")(tree)
    edit(NOTES, "val_1.JPEG\tn01", "val_1.JPEG\tn09")(tree)
    save(tree / "val" / "images" / "val_9.JPEG", picture(9))
    with Catalogue(tree, lenient=True) as catalogue:
        assert catalogue.missing == ["val/images/val_2.JPEG"]
        assert catalogue.unlabelled == ["val/images/val_1.JPEG", "val/images/val_9.JPEG"]
        assert catalogue.counts["val"] == 2
        assert [entry.name for entry in catalogue.entries("val")] == ["val_0.JPEG", "val_3.JPEG"]


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


def references(folder):
    """Files of kinds that a data set may hold, with what Pillow makes of them."""
    image = pytest.importorskip("PIL.Image")  # scikit-image brings it
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
    # Ink as Photoshop stores it (an Adobe marker, inverted, YCCK) is what JPEGs in four channels are, to everyone.
    known = {name: np.asarray(image.open(folder / name).convert("RGB"))[:, :, ::-1] for name in cases}
    deep = np.random.default_rng(6).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    (folder / "deep.png").write_bytes(cv2.imencode(".png", deep)[1].tobytes())
    (folder / "deep_grey.png").write_bytes(cv2.imencode(".png", deep[:, :, 0])[1].tobytes())
    return {**known, "deep.png": deep / 257, "deep_grey.png": np.repeat(deep[:, :, :1], 3, axis=2) / 257}


def test_every_kind_of_file_is_what_pillow_reads(tmp_path):
    for name, expected in references(tmp_path).items():
        image = dataset.read_image(tmp_path / name)
        assert (image.shape, image.dtype) == ((64, 64, 3), np.uint8), name
        error = np.abs(image.astype(float) - expected)
        # Decoders of JPEG and conversions from CMYK round otherwise; 16 bits are cut to 8 and not rounded.
        assert error.max() <= {".jpg": 3, ".JPG": 3}.get(Path(name).suffix, 1 if "deep" in name else 0), name


def test_cmyk_of_photoshop(tmp_path):
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.fromarray(picture(7)[:, :, ::-1]).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert b"Adobe" in buffer.getvalue()[:100]  # so that the ink is stored inverted
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue())
    assert np.abs(dataset.read_image(tmp_path / "x.jpg").astype(int) - picture(7)).mean() < 6


def test_a_thumbnail_does_not_make_a_cut_off_image_whole(tmp_path):
    path = tmp_path / "x.jpg"
    save(path, picture(3))
    data = path.read_bytes()
    exif = b"Exif\0\0" + data  # a whole image in front
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2 : len(data) // 2])
    with pytest.raises(DatasetError, match="cut off"):
        dataset.read_image(path)


@pytest.mark.parametrize("shape", [(80, 100, 3), (20, 64, 3), (1, 1, 3), (64, 63), (63, 200, 3)])
def test_resizing(tmp_path, shape):
    path = tmp_path / "x.png"
    save(path, picture(4, shape))
    with pytest.raises(DatasetError, match=r"only 64x64 is allowed.*--resize"):
        dataset.read_image(path)
    image = dataset.read_image(path, resize=True)
    how = cv2.INTER_AREA if min(shape[:2]) >= 64 else cv2.INTER_LINEAR
    np.testing.assert_array_equal(image, cv2.resize(cv2.imread(str(path)), (64, 64), interpolation=how))


def test_wrong_size_and_missing_image(tmp_path):
    path = tmp_path / "wide.JPEG"
    save(path, picture(4, (64, 80, 3)))
    with pytest.raises(DatasetError, match=r"wide\.JPEG is 80x64: only 64x64"):
        dataset.read_image(path)
    with pytest.raises(DatasetError, match=r"cannot read .*none\.JPEG: No such file"):
        dataset.read_image(tmp_path / "none.JPEG")


def untab(name):
    def change(root):
        (root / name).write_text((root / name).read_text().replace("\t", " "))

    return change


@pytest.mark.parametrize("lenient", [False, True])
def test_spaces_for_tabs_are_refused(tree, lenient):
    untab(BOXES)(tree)
    Catalogue(tree, lenient=True).close()  # half of the training lines
    untab("train/n01/n01_boxes.txt")(tree)
    with pytest.raises(DatasetError, match=r"n02_boxes\.txt, line 1: 'n02_0.JPEG 0 1 20 63' has no tabs.* most lines"):
        Catalogue(tree, lenient=lenient)
    for path in (BOXES, "train/n01/n01_boxes.txt"):
        (tree / path).write_text((tree / path).read_text().replace(" ", "\t"))
    untab(NOTES)(tree)
    with pytest.raises(DatasetError, match=r"val_annotations\.txt, line 1: 'val_3.JPEG n01 0 0 3 63' has no tabs"):
        Catalogue(tree, lenient=lenient)


def test_classes_that_are_unknown_in_most_lines_are_refused(tree):
    with open(tree / NOTES, "a") as file:
        file.writelines(f"val_{index}.JPEG\tother\n" for index in range(10, 30))
    with pytest.raises(DatasetError, match=r"line 5: 'other' is not a class of wnids.txt, and so in most lines"):
        Catalogue(tree, lenient=True)


def test_names_that_are_no_names_are_listed(tree):
    edit(NOTES, "val_2.JPEG", "/etc/passwd")(tree)
    edit(NOTES, "val_1.JPEG", "../images/val_1.JPEG")(tree)
    with Catalogue(tree, lenient=True) as catalogue:
        assert catalogue.missing == ["val/images//etc/passwd", "val/images/../images/val_1.JPEG"]
        assert catalogue.unlabelled == ["val/images/val_1.JPEG", "val/images/val_2.JPEG"]


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", BOXES, NOTES])
def test_a_pipe_in_place_of_a_file(tree, name):
    (tree / name).unlink()
    os.mkfifo(tree / name)
    with pytest.raises(DatasetError, match=rf"cannot read .*{name}: it is not a plain file"):  # it waited before
        dataset.read(tree)


def test_images_that_are_no_plain_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(DatasetError, match=rf"cannot read .*{name}: it is not a plain file"):
            dataset.read_image(tmp_path / name)


def test_an_image_file_that_is_absurdly_large(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    os.truncate(tmp_path / "x.png", (32 << 20) + 1)
    with pytest.raises(DatasetError, match=r"x.png has 33,554,433 bytes: at most 32 MiB are allowed"):
        dataset.read_image(tmp_path / "x.png")


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(min(height * (3 * width + 1), 1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def large_jpeg(width, height):
    data = bytearray(cv2.imencode(".jpg", picture(1))[1].tobytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


LARGE = """
import resource, sys
from tiny_imagenet import errors
from tiny_imagenet.data import dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    dataset.read_image(sys.argv[1], resize=True)
except errors.DatasetError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize("make", [png, large_jpeg])
def test_a_huge_image_is_refused_before_it_takes_memory(tmp_path, make):
    path = tmp_path / "x"
    path.write_bytes(make(20000, 20000))
    done = subprocess.run([sys.executable, "-c", LARGE, path], capture_output=True, text=True, check=True)
    kilobytes, message = done.stdout.split(" ", 1)
    assert int(kilobytes) < 50_000  # 1.2 GB and more before
    assert "x is 20000x20000: at most 4096 pixels a side are decoded; make it smaller first" in message
    path.write_bytes(make(64, 64))
    assert dataset.read_image(path).shape == (64, 64, 3)


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".tiff", ".ppm"])
def test_other_kinds_of_images_are_refused(tmp_path, suffix):
    (tmp_path / "x.JPEG").write_bytes(cv2.imencode(suffix, picture(1))[1].tobytes())
    with pytest.raises(DatasetError, match=r"x.JPEG: it is of another kind or no image; a whole JPEG or PNG"):
        dataset.read_image(tmp_path / "x.JPEG")


def test_headers_of_damaged_files_are_read_or_not_there():
    generator = np.random.default_rng(0)
    for suffix in (".jpg", ".png"):
        good = cv2.imencode(suffix, picture(1))[1].tobytes()
        assert image_files.header(good) == (64, 64, False)
        assert image_files.header(good[:10]) is None
        for _ in range(300):
            data = bytearray(good[: generator.integers(len(good))])
            for at in generator.integers(max(len(data), 1), size=3):
                data[at : at + 1] = bytes([generator.integers(256)])
            image_files.header(bytes(data))
    good = cv2.imencode(".jpg", picture(1))[1].tobytes()
    odd = good[:2] + b"xx\xff\xff\xff\xe1\0\x08Exif\0\0" + good[2:]  # other bytes and filling between segments
    assert image_files.header(odd) == (64, 64, True)
    assert image_files.header(good.replace(b"\xff\xda", b"\xff\xd9", 1)) is None
