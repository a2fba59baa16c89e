"""The reader of LMDBs and manifests against what is cut short, edited or made by something else."""

import json
import os
import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest

from tiny_imagenet.data import datum, lmdb_reader
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
from tiny_imagenet import errors
from tiny_imagenet.data import lmdb_reader
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


# Flips a bit here and there in the pages of the tree, or in the first two, and reads all there is, again and again.
FLIP = """
import os, random, sys
from tiny_imagenet import errors
from tiny_imagenet.data import lmdb_reader
path, seed = sys.argv[1], int(sys.argv[2])
good = open(path + "/data.mdb", "rb").read()
generator = random.Random(seed)
tree = [at for at in range(0, len(good), 4096) if at < 8192 or good[at + 10] & 3]
refused = 0
for _ in range(300):
    data = bytearray(good)
    for _ in range(generator.choice((1, 1, 5))):
        page = generator.choice(tree + tree[:2] * 5)
        data[page + generator.randrange(generator.choice((170, 4096)))] ^= 1 << generator.randrange(8)
    os.unlink(path + "/data.mdb")
    with open(path + "/data.mdb", "wb") as file:
        file.write(data)
    try:
        for _ in lmdb_reader.raw_records(path):
            pass
        for record in lmdb_reader.Records(path):
            pass
    except errors.DatasetError as error:
        assert path in str(error) and "again" in str(error) and "\\n" not in str(error), error
        refused += 1
print(refused)
"""


@pytest.mark.parametrize(("size", "count"), [(10, 1500), (1500, 60), (9000, 150)])
def test_damaged_pages_kill_nothing(tmp_path, size, count):
    path = write(tmp_path / "x.lmdb", (datum.encode(np.zeros((1, 1, size), np.uint8), 0) for _ in range(count)))
    command = [sys.executable, "-c", FLIP, str(path), str(size)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")  # SIGBUS, SIGSEGV or SIGABRT before
    assert int(done.stdout) > 30


def test_the_size_of_a_value_is_compared_with_the_file(tmp_path):
    path = write(tmp_path / "x.lmdb", [datum.encode(np.zeros((3, 64, 64), np.uint8), 0)] * 3)
    data = bytearray((path / "data.mdb").read_bytes())
    at = data.index(b"00000001_x") - 8  # its node: the size's low and high half, flags, size of the key
    data[at + 3] ^= 0x40
    (path / "data.mdb").write_bytes(data)
    for read in (lmdb_reader.count, lambda path: list(lmdb_reader.records(path)), lmdb_reader.Records):
        with pytest.raises(DatasetError, match=r"x\.lmdb: .*last page of a value is .* there are .* pages"):
            read(path)


def test_what_lmdb_finds_is_one_line(tmp_path, monkeypatch):
    path = write_good(tmp_path / "x.lmdb", 3)
    records = lmdb_reader.Records(path)

    def begin(self):
        raise lmdb.CorruptedError("a page is bad")

    monkeypatch.setattr(lmdb_reader._File, "__getattribute__", lambda self, name: type("E", (), {"begin": begin})())
    for read in (
        lambda: records[0],
        lambda: list(lmdb_reader.records(path)),
        lambda: lmdb_reader.check(path, SHAPE, 7),
    ):
        with pytest.raises(DatasetError, match=r"x\.lmdb is damaged: a page is bad; convert the data set again"):
            read()
    monkeypatch.undo()


def test_what_is_no_plain_file_is_refused_at_once(tmp_path):
    for name in ("x.lmdb", "manifest.json", "mean"):
        path = tmp_path / name
        if name == "x.lmdb":
            path.mkdir()
            os.mkfifo(path / "data.mdb")
        else:
            os.mkfifo(path)
    for read in (
        lambda: lmdb_reader.count(tmp_path / "x.lmdb"),
        lambda: lmdb_reader.read_manifest(tmp_path),
        lambda: datum.read_mean(tmp_path / "mean"),
    ):
        with pytest.raises(DatasetError, match="is not a plain file"):  # it waited for a writer before
            read()


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


@pytest.mark.parametrize("text", ['{"format": Infinity}', "[" * 100_000, '{"format": ' + "9" * 5000 + "}", "{"])
def test_a_manifest_that_json_does_not_allow_is_one_line(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=r"manifest\.json (is not JSON|has format)") as caught:
        lmdb_reader.read_manifest(tmp_path)
    assert "\n" not in str(caught.value) and "again" in str(caught.value)
