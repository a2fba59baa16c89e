"""Reading LMDBs and manifests: whole, cut short, damaged, or made by something else."""

import json
import random
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


def test_records_by_number(tmp_path):
    path = write_good(tmp_path / "x.lmdb", 20)
    everything = list(lmdb_reader.records(path))
    assert [key for key, _, _ in everything] == [f"{index:08d}_x" for index in range(20)]
    records = lmdb_reader.Records(path)
    assert len(records) == lmdb_reader.count(path) == 20
    for index in (0, 7, 19, -1, -20):
        key, label, pixels = records[index]
        assert (key, label) == everything[index][:2]
        np.testing.assert_array_equal(pixels, image(index % 20))
    assert [key for key, _, _ in records[3:9:2]] == [key for key, _, _ in everything[3:9:2]]
    both = zip(lmdb_reader.records(path), lmdb_reader.Records(path))  # LMDB opens a file only once in a process
    assert all(one[0] == other[0] for one, other in both)
    for index in (20, -21):
        with pytest.raises(IndexError, match=str(index)):
            records[index]


def test_a_folder_without_an_lmdb_is_named(tmp_path):
    for read in (lmdb_reader.Records, lmdb_reader.count, lambda path: next(lmdb_reader.records(path))):
        with pytest.raises(DatasetError, match=str(tmp_path)):
            read(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, 4096, 8192, 40960, -4096, -1])
def test_a_file_cut_short_is_an_error_for_every_reader(tmp_path, kept):
    path = write_good(tmp_path / "x.lmdb")
    file = path / "data.mdb"
    with open(file, "r+b") as stream:
        stream.truncate(kept if kept >= 0 else file.stat().st_size + kept)
    for read in (lmdb_reader.count, lambda p: list(lmdb_reader.records(p)), lambda p: lmdb_reader.check(p, SHAPE, 7)):
        with pytest.raises(DatasetError, match=r"x\.lmdb"):
            read(path)


def test_damaged_pages_never_end_the_process_that_checks(tmp_path):
    """A flipped bit in a page of the tree either changes nothing that LMDB reads or is an error."""
    path = write_good(tmp_path / "x.lmdb", 300)
    good = (path / "data.mdb").read_bytes()
    generator = random.Random(3)
    tree = [at for at in range(8192, len(good), 4096) if good[at + 10] & 3]
    found = 0
    for _ in range(6):
        data = bytearray(good)
        for page in tree:
            for _ in range(5):
                data[page + generator.randrange(170)] ^= 1 << generator.randrange(8)
        (path / "data.mdb").unlink()
        (path / "data.mdb").write_bytes(data)
        try:
            lmdb_reader.check(path, SHAPE, 7)
        except DatasetError as error:
            assert str(path) in str(error)
            found += 1
    assert found


def test_a_child_that_dies_is_a_damaged_lmdb(tmp_path, monkeypatch):
    path = write_good(tmp_path / "x.lmdb", 3)
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGBUS)"
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", kill], **options))
    with pytest.raises(DatasetError, match=r"x\.lmdb is damaged"):
        lmdb_reader.check(path, SHAPE, 7)


def test_an_error_of_lmdb_is_a_damaged_lmdb(tmp_path, monkeypatch):
    path = write_good(tmp_path / "x.lmdb", 3)
    records = lmdb_reader.Records(path)

    class Damaged:
        def begin(self):
            raise lmdb.CorruptedError("bad page")

    monkeypatch.setattr(records, "_file", type("File", (), {"environment": Damaged()}))
    with pytest.raises(DatasetError, match=r"x\.lmdb is damaged.*bad page"):
        records[0]


def test_check_counts_records(tmp_path):
    assert lmdb_reader.check(write_good(tmp_path / "x.lmdb"), SHAPE, 7) == 3000
    content = cv2.imencode(".jpg", image(1).transpose(1, 2, 0))[1].tobytes()
    gray = cv2.imencode(".png", image(1)[0])[1].tobytes()  # three channels when decoded
    values = [datum.encode_file(content, SHAPE, 0), datum.encode_file(gray, SHAPE, 1)]
    assert lmdb_reader.check(write(tmp_path / "encoded.lmdb", values), SHAPE, 2) == 2
    assert lmdb_reader.check(write(tmp_path / "test.lmdb", [datum.encode(image(1), -1)]), SHAPE, 0) == 1
    assert lmdb_reader.check(write(tmp_path / "empty.lmdb", []), SHAPE, 7) == 0


def message(**fields):
    good = {"channels": 3, "height": 4, "width": 5, "data": image(1).tobytes(), "label": 1}
    return datum.Datum(**{**good, **fields}).SerializeToString()


SMALL = cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1].tobytes()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\xff\xff\xff", "Datum"),
        (message(label=7), "0 to 6, got 7"),
        (message(label=-1), "got -1"),
        (message(height=5, width=4), r"\(3, 4, 5\), got \(3, 5, 4\)"),
        (message(data=b"\0" * 59), "59"),
        (message(data=b""), "got 0"),
        (message(channels=-3, height=-4), "-3 x -4 x 5"),
        (message(data=b"no image", encoded=True), "encoded"),
        (message(data=SMALL, encoded=True), r"got \(3, 4, 4\)"),  # its fields claim the right shape
    ],
)
def test_check_names_the_wrong_record(tmp_path, value, words):
    path = write(tmp_path / "x.lmdb", [message(), message(), value, message()])
    with pytest.raises(DatasetError, match=words) as caught:
        lmdb_reader.check(path, SHAPE, 7)
    assert f"{path}, record 00000002_x: " in str(caught.value) and "\n" not in str(caught.value)


GOOD = {"format": 1, "classes": [{"wnid": "n0", "words": ""}], "mean": "mean.binaryproto", "lmdbs": {"val": {}}}


def test_a_manifest_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    assert lmdb_reader.read_manifest(tmp_path) == GOOD


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "JSON"),
        ("[]", "None"),
        (json.dumps({**GOOD, "format": 99}), "99"),
        *((json.dumps({k: v for k, v in GOOD.items() if k != key}), f"'{key}'") for key in GOOD if key != "format"),
    ],
)
def test_an_incomplete_manifest_is_refused(tmp_path, text, words):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError, match=words) as caught:
        lmdb_reader.read_manifest(tmp_path)
    assert str(tmp_path / "manifest.json") in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_a_manifest_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError, match=str(folder / "manifest.json")):
            lmdb_reader.read_manifest(folder)
