"""The reader of LMDBs and manifests against what is cut short, edited or made by something else."""

import json
import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest

from tiny_imagenet import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError

SHAPE = (3, 4, 5)


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def write(path, values):
    path.mkdir()
    with lmdb.open(str(path), map_size=64 << 20, lock=False) as environment, environment.begin(write=True) as writer:
        for index, value in enumerate(values):
            writer.put(b"%08d_x" % index, value, append=True)
    return path


def write_good(path, count=3000):
    return write(path, (datum.encode(image(index), index % 7) for index in range(count)))


# --- files cut short ---

READ = """
import sys
from tiny_imagenet import errors, lmdb_reader
for read in (lmdb_reader.count, lmdb_reader.records, lambda path: lmdb_reader.check(path, (3, 4, 5), 7)):
    try:
        result = read(sys.argv[1])
        if read is lmdb_reader.records:
            list(result)
    except errors.DatasetError as error:
        print(error)
"""


@pytest.mark.parametrize("kept", [0, 100, 4096, 8192, 8193, 40960, -4096, -1])
def test_a_file_cut_short_is_refused_and_kills_nothing(tmp_path, kept):
    path = write_good(tmp_path / "x.lmdb")
    file = path / "data.mdb"
    size = kept if kept >= 0 else file.stat().st_size + kept
    with open(file, "r+b") as stream:
        stream.truncate(size)
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # -7 (SIGBUS) before
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and all(str(path) in line and "again" in line for line in lines)
    if size >= 8192:
        assert all(f"has {size} of" in line for line in lines)


def test_a_whole_file_is_not_refused(tmp_path):
    for count in (0, 1, 3000):
        assert lmdb_reader.count(write_good(tmp_path / f"{count}.lmdb", count)) == count


# --- check ---


def test_check_counts_what_is_right(tmp_path):
    assert lmdb_reader.check(write_good(tmp_path / "x.lmdb"), SHAPE, 7) == 3000
    content = cv2.imencode(".jpg", image(1).transpose(1, 2, 0))[1].tobytes()
    gray = cv2.imencode(".png", image(1)[0])[1].tobytes()  # three channels when decoded
    values = [datum.encode_file(content, SHAPE, 0), datum.encode_file(gray, SHAPE, 1)]
    assert lmdb_reader.check(write(tmp_path / "encoded.lmdb", values), SHAPE, 2) == 2


def message(**fields):
    good = {"channels": 3, "height": 4, "width": 5, "data": image(1).tobytes(), "label": 1}
    return datum.Datum(**{**good, **fields}).SerializeToString()


SMALL = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\xff\xff\xff", "not a Datum"),
        (message(label=7), "label is 7, allowed are 0 to 6"),
        (message(label=-1), "label is -1"),
        (message(height=5, width=4), r"\(3, 5, 4\), not \(3, 4, 5\)"),
        (message(channels=1, height=4, width=15), r"\(1, 4, 15\)"),
        (message(data=b"\0" * 59), "59 bytes"),
        (message(data=b"", float_data=[0.0] * 60), "0 bytes"),
        (message(channels=-3, height=-4), r"\(-3, -4, 5\)"),
        (message(data=b"", encoded=True), "cannot be decoded"),
        (message(data=b"no image", encoded=True), "cannot be decoded"),
        (message(data=SMALL, encoded=True), r"\(3, 4, 4\)"),  # whatever its fields say
    ],
)
def test_check_names_the_record_that_is_wrong(tmp_path, value, words):
    path = write(tmp_path / "x.lmdb", [message(), message(), value, message()])
    with pytest.raises(DatasetError, match=words) as caught:
        lmdb_reader.check(path, SHAPE, 7)
    assert f"{path}, record 00000002_x: " in str(caught.value) and "\n" not in str(caught.value)


def test_inspecting_tells_what_decoding_would():
    for value in (message(), datum.encode_file(SMALL, SHAPE, 3)):
        pixels, label = datum.decode(value)
        assert datum.inspect(value) == (pixels.shape, label)


# --- the manifest ---

GOOD = {
    "format": lmdb_reader.FORMAT,
    "classes": [{"index": 0, "wnid": "n0", "words": ""}],
    "mean": "mean.binaryproto",
    "lmdbs": {},
}


def test_a_manifest_with_what_others_rely_on_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    assert lmdb_reader.read_manifest(tmp_path) == GOOD


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", ...),
        ("classes", None),
        ("classes", []),
        ("classes", {"wnid": "n0", "words": "x"}),
        ("classes", ["n0"]),
        ("classes", [{"wnid": "n0", "words": "x"}, {"wnid": "n1"}]),
        ("classes", [{"wnid": 1, "words": "x"}]),
        ("mean", ...),
        ("mean", None),
        ("mean", ["mean.binaryproto"]),
        ("lmdbs", ...),
        ("lmdbs", None),
        ("lmdbs", ["train"]),
    ],
)
def test_a_manifest_without_it_is_refused(tmp_path, key, value):
    manifest = {**GOOD, key: value}
    if value is ...:
        del manifest[key]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=f"'{key}' is missing or not .*tools/convert.py") as caught:
        lmdb_reader.read_manifest(tmp_path)
    assert str(tmp_path / "manifest.json") in str(caught.value)
