"""Verification finds what is wrong in a converted data set, and names the record."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from tiny_imagenet.data import convert, datum, lmdb_reader, sample, verify
from tiny_imagenet.data.splits import SPLITS
from tiny_imagenet.errors import DatasetError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify")
    sample.write(folder / "digits", train=300, val=20, test=10, seed=2)
    for name in ("raw", "encoded"):
        manifest = convert.convert(folder / "digits", folder / name, workers=1, encoded=name == "encoded")
    assert manifest["screening"]["dropped"]
    return folder


@pytest.fixture
def out(outputs, tmp_path):
    return shutil.copytree(outputs / "raw", tmp_path / "out")


def script(*arguments):
    command = [sys.executable, ROOT / "tools" / "convert.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


@pytest.mark.parametrize("name", ["raw", "encoded"])
def test_a_good_output_passes(outputs, name):
    done = script("--verify", outputs / name)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{name}.lmdb" for name in SPLITS] + ["dropped", "mean"]
    assert "300 records" in lines[0]


def rewrite(path, change):
    """Replace the LMDB by one with its list of [key, value] after `change`."""
    records = [[key.encode(), value] for key, value in lmdb_reader.raw_records(path)]
    change(records)
    shutil.rmtree(path)
    path.mkdir()
    with lmdb.open(str(path), map_size=64 << 20, lock=False) as environment, environment.begin(write=True) as writer:
        for key, value in records:
            writer.put(key, value)


def set_value(index, **fields):
    def change(records):
        message = datum.Datum.FromString(records[index][1])
        for name, value in fields.items():
            setattr(message, name, value)
        records[index][1] = message.SerializeToString()

    return change


def set_key(index, key):
    def change(records):
        records[index][0] = key

    return change


def drop(index):
    def change(records):
        del records[index]
        for position in range(len(records)):
            records[position][0] = b"%08d_%b" % (position, records[position][0].split(b"_", 1)[1])

    return change


def swap_images(records):
    records[3][1], records[4][1] = records[4][1], records[3][1]


def next_label(records):
    label = datum.Datum.FromString(records[4][1]).label
    set_value(4, label=(label + 1) % 10)(records)


BLACK = bytes(3 * 64 * 64)
PNG = cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("val", set_value(7, label=10), ["record 00000007_val_", "got 10"]),
        ("test", set_value(0, label=0), ["record 00000000_test_0", "got 0"]),
        ("val", set_value(2, height=32, data=bytes(3 * 32 * 64)), ["record 00000002_", "(3, 32, 64)"]),
        ("val", set_value(2, data=PNG, encoded=True), ["record 00000002_", "encoded"]),
        ("val", lambda records: records[5].__setitem__(1, b"\xff\xff"), ["record 00000005_", "Datum"]),
        ("val", set_key(4, b"4_x"), ["record 00000005_", "00000004_"]),
        ("val", set_key(4, b"00000004_other.JPEG"), ["val.lmdb", "sha256"]),
        ("val", drop(4), ["val.lmdb", "20", "19"]),
        ("val", next_label, ["val.lmdb", "sha256"]),
        ("train", set_value(8, data=BLACK), ["mean.binaryproto", "train.lmdb"]),
        ("train_screened", set_value(8, data=BLACK), ["train_screened.lmdb", "record 0000"]),
        ("test", set_value(8, data=BLACK), ["test.lmdb", "values_sha256"]),
        ("val", swap_images, ["val.lmdb"]),
        ("train_screened", swap_images, ["train_screened.lmdb"]),
    ],
)
def test_a_changed_record_is_named(out, name, change, words):
    rewrite(out / f"{name}.lmdb", change)
    with pytest.raises(DatasetError) as caught:
        verify.verify(out)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words)


def edit(out, **changes):
    manifest = json.loads((out / "manifest.json").read_text())
    for path, value in changes.items():
        *parts, last = path.split("__")
        place = manifest
        for part in parts:
            place = place[part]
        place[last] = value(place[last])
    (out / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"screening__dropped": lambda names: names[1:]}, "train_screened.lmdb"),
        ({"screening__dropped": lambda names: [*names, "x.JPEG"]}, r"x\.JPEG"),
        ({"lmdbs__train__sha256": lambda digest: digest[::-1]}, "train.lmdb.*sha256"),
        ({"lmdbs__test__count": lambda count: count + 1}, "test.lmdb.*11.*10"),
        ({"image__width": lambda width: 32}, r"record 00000000_.*\(3, 64, 32\)"),
        ({"image": lambda image: []}, "manifest.json"),
        ({"lmdbs": lambda lmdbs: {"train": lmdbs["train"]}}, "train_screened"),
        ({"encoded": lambda encoded: True}, "record 00000000_.*encoded"),
        ({"mean": lambda mean: "manifest.json"}, "BlobProto"),
        ({"lmdbs__val__values_sha256": lambda digest: digest[::-1]}, r"val\.lmdb.*values_sha256"),
    ],
)
def test_a_manifest_that_does_not_match(out, changes, words):
    edit(out, **changes)
    with pytest.raises(DatasetError, match=words):
        verify.verify(out)


def test_an_encoded_image_that_does_not_decode(outputs, tmp_path):
    out = shutil.copytree(outputs / "encoded", tmp_path / "out")
    rewrite(out / "train_screened.lmdb", set_value(11, data=b"no image"))
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and "train_screened.lmdb, record 00000011_" in done.stderr


@pytest.mark.parametrize("kept", [0, 8192, -4096])
def test_a_file_cut_short(out, kept):
    file = out / "val.lmdb" / "data.mdb"
    with open(file, "r+b") as stream:
        stream.truncate(kept if kept >= 0 else file.stat().st_size + kept)
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and str(out / "val.lmdb") in done.stderr


def test_damaged_pages_are_one_line(out):
    file = out / "val.lmdb" / "data.mdb"
    data = bytearray(file.read_bytes())
    at = data.index(b"00000003_") - 8  # its node: the size's low and high half, flags, size of the key
    data[at + 3] ^= 0x40
    file.write_bytes(data)
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and str(out / "val.lmdb") in done.stderr


def test_a_folder_that_is_not_converted(tmp_path, outputs):
    for folder in (tmp_path, outputs / "digits"):
        done = script("--verify", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1 and str(folder / "manifest.json") in done.stderr


def test_a_manifest_of_an_earlier_version(out):
    manifest = json.loads((out / "manifest.json").read_text())
    for entry in manifest["lmdbs"].values():
        del entry["values_sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert sum("values_sha256" in line for line in verify.verify(out)) == 4


@pytest.mark.parametrize("flag", [["--encoded"], ["--workers", "2"]])
def test_verify_takes_no_other_flag(outputs, flag):
    done = script("--verify", outputs / "raw", *flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert flag[0] in done.stderr and done.stderr.count("\n") == 1
