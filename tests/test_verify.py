"""Verification finds what is wrong in a converted data set, and names the record."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from tiny_imagenet.data import convert, datum, lmdb_reader, sample, verify
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
def test_a_good_output(outputs, name):
    done = script("--verify", outputs / name)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [f"{name}.lmdb" for name in convert.LMDBS] + ["dropped", "mean"]
    assert "300 records" in lines[0]


def rewrite(path, change):
    """Write the LMDB anew with its list of [key, value] as `change` leaves it, in whatever order."""
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


GREY = cv2.imencode(".png", np.zeros((8, 8), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("val", set_value(7, label=10), ["record 00000007_val_", "label is 10", "0 to 9"]),
        ("val", set_value(7, label=-1), ["record 00000007_val_", "label is -1"]),
        ("test", set_value(0, label=0), ["record 00000000_test_0", "label is 0", "-1 to -1"]),
        ("val", set_value(2, height=32, data=bytes(3 * 32 * 64)), ["record 00000002_", "(3, 32, 64), not (3, 64, 64)"]),
        ("val", set_value(2, data=b"short"), ["record 00000002_", "5 bytes"]),
        ("val", set_value(2, data=GREY, encoded=True), ["record 00000002_", "encoded"]),
        ("val", lambda records: records[5].__setitem__(1, b"\xff\xff"), ["record 00000005_", "not a Datum"]),
        ("val", set_key(4, b"4_x"), ["record 00000005_", "the key should be 00000004_"]),
        ("val", set_key(4, b"00000004_"), ["record 00000004_: ", "the key should be"]),
        ("val", set_key(4, b"00000004_other.JPEG"), ["val.lmdb", "another sha256"]),
        ("val", drop(4), ["val.lmdb has 19 records, the manifest says 20"]),
        ("val", set_value(4, label=9), ["val.lmdb", "another sha256"]),
        ("train", set_value(8, data=bytes(3 * 64 * 64)), ["mean.binaryproto", "not the mean of train.lmdb"]),
        ("train_screened", set_value(8, data=bytes(3 * 64 * 64)), ["train_screened.lmdb", "lacks train's record"]),
        ("val", set_value(8, data=bytes(3 * 64 * 64)), ["val.lmdb: the images are not those", "values_sha256"]),
        ("test", set_value(8, data=bytes(3 * 64 * 64)), ["test.lmdb: the images are not those", "values_sha256"]),
        ("val", swap_images, ["val.lmdb", ""]),
        ("train_screened", swap_images, ["train_screened.lmdb", ""]),
    ],
)
def test_what_is_wrong_is_named(out, name, change, words):
    if name == "val" and words == ["val.lmdb", "another sha256"]:
        label = next(label for index, (_, label, _) in enumerate(lmdb_reader.records(out / "val.lmdb")) if index == 4)
        assert label != 9
    rewrite(out / f"{name}.lmdb", change)
    with pytest.raises(DatasetError) as caught:
        verify.verify(out)
    message = str(caught.value)
    assert "\n" not in message and message.count("convert the data set again") == 1
    for word in words:
        assert word in message


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
        ({"screening__dropped": lambda names: names[1:]}, "which screening did not drop"),
        ({"screening__dropped": lambda names: [*names, "x.JPEG"]}, "has x.JPEG, which the manifest says was dropped"),
        ({"lmdbs__train__sha256": lambda digest: digest[::-1]}, "train.lmdb: .*another sha256"),
        ({"lmdbs__test__count": lambda count: count + 1}, "test.lmdb has 10 records, the manifest says 11"),
        ({"image__width": lambda width: 32}, r"record 00000000_.*not \(3, 64, 32\)"),
        ({"image": lambda image: []}, "lacks a part"),
        ({"lmdbs": lambda lmdbs: {"train": lmdbs["train"]}}, "no entry 'test'"),
        ({"encoded": lambda encoded: True}, "record 00000000_.*not encoded"),
        ({"mean": lambda mean: "manifest.json"}, "not a BlobProto"),
        ({"image__width": lambda width: 10**9}, r"lacks a part .*\(3, 64, 1000000000\)"),
        ({"lmdbs__val__count": lambda count: float("inf")}, "is not JSON .*Infinity is not a number"),
        ({"lmdbs__val__values_sha256": lambda digest: digest[::-1]}, r"val\.lmdb: the images .*another values_sha256"),
    ],
)
def test_a_manifest_that_does_not_fit(out, changes, words):
    edit(out, **changes)
    with pytest.raises(DatasetError, match=words):
        verify.verify(out)


def test_an_encoded_image_that_does_not_decode(outputs, tmp_path):
    out = shutil.copytree(outputs / "encoded", tmp_path / "out")
    rewrite(out / "train_screened.lmdb", set_value(11, data=b"no image"))
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "train_screened.lmdb, record 00000011_" in done.stderr and "cannot be decoded" in done.stderr


@pytest.mark.parametrize("kept", [0, 100, 5000, 8192, 100_000, -4096, -1])
def test_a_file_that_is_cut_short(out, kept):
    file = out / "val.lmdb" / "data.mdb"
    with open(file, "r+b") as stream:
        stream.truncate(kept if kept >= 0 else file.stat().st_size + kept)
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1 and str(out / "val.lmdb") in done.stderr


def test_what_is_no_output(tmp_path, outputs):
    for folder in (tmp_path, tmp_path / "none", outputs / "digits"):
        done = script("--verify", folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1 and "manifest.json is missing" in done.stderr


def test_records_by_number(outputs):
    path = outputs / "raw" / "val.lmdb"
    all_records = list(lmdb_reader.records(path))
    records = lmdb_reader.Records(path)
    assert len(records) == 20
    for index in (0, 7, 19, -1, -20):
        key, label, image = records[index]
        assert (key, label) == all_records[index][:2]
        np.testing.assert_array_equal(image, all_records[index][2])
    assert [key for key, _, _ in records[3:9:2]] == [key for key, _, _ in all_records[3:9:2]]
    assert [key for key, _, _ in records] == [key for key, _, _ in all_records]
    again = lmdb_reader.Records(path)  # LMDB itself opens no file twice in a process
    both = zip(lmdb_reader.records(path), lmdb_reader.records(path))
    first, second = next(both)
    assert first[0] == second[0] == records[0][0] == again[0][0]
    assert lmdb_reader.count(path) == 20
    del again, both
    assert records[1][0] == all_records[1][0]
    for index in (20, -21):
        with pytest.raises(IndexError, match=f"record {index} of"):
            records[index]
    with pytest.raises(DatasetError, match=r"no data\.mdb"):
        lmdb_reader.Records(outputs)


def test_a_manifest_of_before_there_were_sums_of_values(out):
    rewrite(out / "val.lmdb", set_value(8, data=bytes(3 * 64 * 64)))
    manifest = json.loads((out / "manifest.json").read_text())
    for entry in manifest["lmdbs"].values():
        del entry["values_sha256"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    lines = verify.verify(out)
    assert sum("the pixels were not checked" in line for line in lines) == 4


def test_damaged_pages_are_one_line(out):
    file = out / "val.lmdb" / "data.mdb"
    data = bytearray(file.read_bytes())
    at = data.index(b"00000003_") - 8  # its node: the size's low and high half, flags, size of the key
    data[at + 3] ^= 0x40
    file.write_bytes(data)
    done = script("--verify", out)
    assert (done.returncode, done.stdout) == (1, "")  # SIGBUS before
    assert done.stderr.count("\n") == 1 and str(out / "val.lmdb") in done.stderr


@pytest.mark.parametrize("name", ["manifest.json", "mean.binaryproto", "val.lmdb/data.mdb"])
def test_a_pipe_in_place_of_a_file(out, name):
    (out / name).unlink()
    os.mkfifo(out / name)
    with pytest.raises(DatasetError, match="is not a plain file"):  # it waited before
        verify.verify(out)


@pytest.mark.parametrize("flag", [["--encoded"], ["--workers", "2"], ["--seed", "3"], ["--crop", "40"], ["--replace"]])
def test_verify_takes_no_other_flag(outputs, flag):
    done = script("--verify", outputs / "raw", *flag)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--verify takes OUT alone, not {flag[0]} as well" in done.stderr and done.stderr.count("\n") == 1
