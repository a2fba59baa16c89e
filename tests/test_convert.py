"""Conversion against a reading of the same files by other means; and that a failure leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from conftest import stop_conversion
from tiny_imagenet.data import convert, dataset, datum, lmdb_reader, lmdb_writer, pool, sample, screening
from tiny_imagenet.data.lmdb_writer import LmdbWriter
from tiny_imagenet.errors import DatasetError, TinyImageNetError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    out = tmp_path_factory.mktemp("source") / "digits"
    sample.write(out, train=420, val=30, test=20, seed=1)
    boxes = out / "train" / sample.WNIDS[4] / f"{sample.WNIDS[4]}_boxes.txt"
    boxes.write_text("".join(boxes.read_text().splitlines(keepends=True)[5:]))  # five images without a box
    return out


@pytest.fixture(scope="module")
def converted(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "lmdb"
    manifest = convert.convert(source, out, workers=1, seed=7)
    return out, manifest


@pytest.fixture
def broken(tmp_path):
    root = tmp_path / "broken"
    sample.write(root, train=20, val=10, test=10)
    bad = root / "train" / sample.WNIDS[3] / "images" / f"{sample.WNIDS[3]}_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:300])
    return root, bad


def raw(path):
    """Keys and values of an LMDB as they stand."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_records(source, converted):
    out, manifest = converted
    data = dataset.read(source)
    for split in dataset.SPLITS:
        known = {record.name: record for record in data.splits[split]}
        found = list(lmdb_reader.records(out / f"{split}.lmdb"))
        assert lmdb_reader.count(out / f"{split}.lmdb") == len(found) == len(known)
        assert manifest["lmdbs"][split]["count"] == len(known)
        names = [key.split("_", 1)[1] for key, _, _ in found]
        assert [key for key, _, _ in found] == [f"{index:08d}_{name}" for index, name in enumerate(names)]
        assert sorted(names) == sorted(known)
        assert (names == sorted(names)) == (split != "train")
        for name, (_, label, image) in zip(names, found):
            assert label == known[name].label
            assert image.dtype == np.uint8
            np.testing.assert_array_equal(image, cv2.imread(known[name].path).transpose(2, 0, 1))


def test_screened_keeps_the_order_of_train(source, converted):
    out, manifest = converted
    train = dataset.read(source).splits["train"]
    dropped = [r.name for r in train if r.box and not screening.keep(np.array([r.box]))[0]]
    assert manifest["screening"]["dropped"] == dropped != []
    assert manifest["screening"]["without_box"] == 5
    names = [key.split("_", 1)[1] for key, _, _ in lmdb_reader.records(out / "train.lmdb")]
    screened = [key.split("_", 1)[1] for key, _, _ in lmdb_reader.records(out / "train_screened.lmdb")]
    assert screened == [name for name in names if name not in dropped]
    sizes = np.array([(r.box[2] - r.box[0] + 1) * (r.box[3] - r.box[1] + 1) for r in train if r.box])
    assert manifest["small_objects"] == (sizes < 64).sum() > 0
    names = [r.name for r in train if r.box]
    assert manifest["screening"]["small"] == [name for name, size in zip(names, sizes) if size < 64]
    assert (manifest["screening"]["crop"], manifest["screening"]["min_visible"]) == (56, "1/4")


def test_manifest(source, converted):
    out, manifest = converted
    assert lmdb_reader.read_manifest(out) == manifest == json.loads((out / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["source"] == str(source)
    assert manifest["seed"] == 7
    assert manifest["image"] == {"channels": 3, "height": 64, "width": 64}
    assert manifest["classes"][3] == {"index": 3, "wnid": "n00000003", "words": "three"}
    for key in ("unreadable", "unlabelled", "missing", "mended_boxes", "empty_classes", "resized", "reencoded"):
        assert manifest[key] == []
    assert list(manifest["lmdbs"]) == ["train", "train_screened", "val", "test"]
    for name, entry in manifest["lmdbs"].items():
        lines = "".join(f"{key} {label}\n" for key, label, _ in lmdb_reader.records(out / f"{name}.lmdb"))
        assert entry["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
        digests = [hashlib.sha256(value).digest() for _, value in lmdb_reader.raw_records(out / f"{name}.lmdb")]
        assert entry["values_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    found = {path.name for path in out.rglob("*") if path.is_file()}
    assert found == {"data.mdb", "manifest.json", "mean.binaryproto"}


def test_mean(source, converted):
    out, manifest = converted
    images = [cv2.imread(record.path) for record in dataset.read(source).splits["train"]]
    expected = np.mean(np.stack(images).transpose(0, 3, 1, 2), axis=0, dtype=np.float64).astype(np.float32)
    mean = datum.read_mean(out / manifest["mean"])
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, expected)


@pytest.mark.parametrize("encoded", [False, True])
def test_bytes_do_not_depend_on_workers(source, converted, tmp_path, encoded):
    one = converted[0]
    if encoded:
        one = tmp_path / "one"
        convert.convert(source, one, workers=1, seed=7, encoded=True)
    convert.convert(source, tmp_path / "two", workers=2, seed=7, encoded=encoded)
    assert contents(one) == contents(tmp_path / "two")


def test_encoded_keeps_the_files_bytes(source, converted, tmp_path):
    out, manifest = converted
    found = convert.convert(source, tmp_path / "x", workers=1, seed=7, encoded=True)
    for name, entry in found["lmdbs"].items():
        assert entry.pop("values_sha256") != manifest["lmdbs"][name]["values_sha256"]
    lmdbs = {name: {"count": e["count"], "sha256": e["sha256"]} for name, e in manifest["lmdbs"].items()}
    assert found == {**manifest, "encoded": True, "lmdbs": lmdbs}
    for (key, _), (_, label, image), (other, value) in zip(
        raw(out / "val.lmdb"), lmdb_reader.records(tmp_path / "x" / "val.lmdb"), raw(tmp_path / "x" / "val.lmdb")
    ):
        message = datum.Datum.FromString(value)
        name = key.decode().split("_", 1)[1]
        assert key == other
        assert message.encoded
        assert message.data == (source / "val" / "images" / name).read_bytes()
        assert (message.channels, message.height, message.width, message.label) == (3, 64, 64, label)
        np.testing.assert_array_equal(image, cv2.imread(str(source / "val" / "images" / name)).transpose(2, 0, 1))
    np.testing.assert_array_equal(
        datum.read_mean(out / "mean.binaryproto"), datum.read_mean(tmp_path / "x" / "mean.binaryproto")
    )


def test_the_rule_of_screening_is_an_argument(source, tmp_path):
    manifest = convert.convert(source, tmp_path / "x", workers=1, crop=40, min_visible=Fraction(2, 3))
    train = [r for r in dataset.read(source).splits["train"] if r.box]
    kept = screening.keep(np.array([r.box for r in train]), 64, 40, Fraction(2, 3))
    assert manifest["screening"]["dropped"] == [r.name for r, keep in zip(train, kept) if not keep]
    assert (manifest["screening"]["crop"], manifest["screening"]["min_visible"]) == (40, "2/3")
    for wrong in ({"crop": 0}, {"crop": 65}, {"min_visible": -0.1}, {"min_visible": 2}):
        with pytest.raises(DatasetError, match=next(iter(wrong))):
            convert.convert(source, tmp_path / "y", **wrong)


def test_seed_changes_the_order_of_training_alone(source, converted, tmp_path):
    manifest = convert.convert(source, tmp_path / "x", workers=1, seed=8)
    same = {name for name in convert.LMDBS if manifest["lmdbs"][name] == converted[1]["lmdbs"][name]}
    assert same == {"val", "test"}


def written(path, records, parts=1):
    writer = LmdbWriter(path)
    for part in range(parts):
        writer.add(records[part * len(records) // parts : (part + 1) * len(records) // parts])
    writer.finish()
    writer.close()
    return writer


def test_lmdb_grows_and_its_bytes_depend_on_the_records_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "_GROUPS_OPEN", 3)
    rng = np.random.default_rng(0)
    # More than the first map, in records that stay within a page, take several, and are larger than a group.
    sizes = [*rng.integers(1, 30000, 6000).tolist(), 20 << 20, 3, 40 << 20]
    records = [(b"%d.JPEG" % index, index % 5 - 1, bytes([index % 256]) * size) for index, size in enumerate(sizes)]
    writer = written(tmp_path / "x.lmdb", records)
    assert raw(tmp_path / "x.lmdb") == [(b"%08d_%b" % (i, name), value) for i, (name, _, value) in enumerate(records)]
    lines = b"".join(b"%08d_%b %d\n" % (i, name, label) for i, (name, label, _) in enumerate(records))
    assert (writer.count, writer.sha256) == (len(records), hashlib.sha256(lines).hexdigest())
    digests = b"".join(hashlib.sha256(value).digest() for _, _, value in records)
    assert writer.values_sha256 == hashlib.sha256(digests).hexdigest()
    written(tmp_path / "y.lmdb", records, parts=7)
    assert contents(tmp_path / "x.lmdb") == contents(tmp_path / "y.lmdb")


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


@pytest.mark.parametrize("label", [0, 199, -1])
def test_datum_on_the_wire(label):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    wire = b"\x08\x02\x10\x03\x18\x04\x22\x18" + image.tobytes() + b"\x28" + varint(label)
    assert datum.Datum.FromString(wire).label == label
    encoded = datum.encode(image, label)
    assert encoded == wire + b"\x38\x00"
    for data in (wire, encoded):
        decoded, found = datum.decode(data)
        np.testing.assert_array_equal(decoded, image)
        assert found == label


@pytest.mark.parametrize("data", [b"\xff\xff", b"", b"\x08\x03\x10\x40\x18\x40\x22\x01a", b"\x22\x01a\x38\x01"])
def test_datum_refuses(data):
    with pytest.raises(DatasetError, match="convert the data set again"):
        datum.decode(data)


def test_mean_on_the_wire(tmp_path):
    mean = np.linspace(-1, 200, 24).astype(np.float32).reshape(2, 3, 4)
    datum.write_mean(tmp_path / "m", mean)
    wire = (
        b"\x08\x01\x10\x02\x18\x03\x20\x04\x2a\x60" + mean.astype("<f4").tobytes() + b"\x3a\x06\x0a\x04\x01\x02\x03\x04"
    )
    assert (tmp_path / "m").read_bytes() == wire
    np.testing.assert_array_equal(datum.read_mean(tmp_path / "m"), mean)
    (tmp_path / "legacy").write_bytes(wire[:-8])
    np.testing.assert_array_equal(datum.read_mean(tmp_path / "legacy"), mean)
    (tmp_path / "bad").write_bytes(wire[:-1])
    (tmp_path / "short").write_bytes(wire[:8])
    for name in ("bad", "short", "none"):
        with pytest.raises(DatasetError, match=str(tmp_path / name)):
            datum.read_mean(tmp_path / name)


def test_unreadable_image(broken, tmp_path):
    root, bad = broken
    for workers in (1, 2):
        with pytest.raises(DatasetError, match=bad.name):
            convert.convert(root, tmp_path / "x", workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
    manifest = convert.convert(root, tmp_path / "x", workers=1, skip_unreadable=True)
    assert manifest["unreadable"] == [bad.relative_to(root).as_posix()]
    assert manifest["lmdbs"]["train"]["count"] == 19
    keys = [key for key, _, _ in lmdb_reader.records(tmp_path / "x" / "train.lmdb")]
    assert [int(key[:8]) for key in keys] == list(range(19))
    assert not any(bad.name in key for key in keys)


def test_nothing_readable(broken, tmp_path):
    root, _ = broken
    for path in (root / "val" / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"no image of .*val can be read"):
        convert.convert(root, tmp_path / "x", workers=1, skip_unreadable=True)
    assert not (tmp_path / "x").exists()


def test_reading_what_is_not_there(source, converted, tmp_path):
    with pytest.raises(DatasetError, match=r"manifest\.json is missing.*tools/convert\.py"):
        lmdb_reader.read_manifest(source)
    with pytest.raises(DatasetError, match=r"no data\.mdb"):
        next(lmdb_reader.records(source))
    for text, words in (
        ("{", "not JSON"),
        ("[]", "format None"),
        ('{"format": 99}', "format 99, this version reads 1"),
    ):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DatasetError, match=words):
            lmdb_reader.read_manifest(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DatasetError, match="cannot open the LMDB"):
        lmdb_reader.count(tmp_path)


def test_bad_arguments(source, tmp_path):
    with pytest.raises(DatasetError, match="workers is 0: at least 1"):
        convert.convert(source, tmp_path / "x", workers=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(TinyImageNetError, match="not empty"):
        convert.convert(source, tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


def command(*arguments):
    return [sys.executable, "tools/convert.py", *map(str, arguments)]


def script(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True)


def test_script(broken, tmp_path):
    root, bad = broken
    failed = script(root, tmp_path / "x")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.count("\n") == 1
    assert str(bad) in failed.stderr
    assert "--skip-unreadable" in failed.stderr
    (tmp_path / "x").mkdir()
    done = script(root, tmp_path / "x", "--skip-unreadable", "--workers", 2)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("train.lmdb", "19 images", "1,535", "1,891", "unreadable", "seconds"):
        assert words in done.stdout
    again = script(root, tmp_path / "x")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "not empty" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "x"]


@pytest.mark.parametrize(
    ("change", "words"),
    [("", "is not a folder"), ("wnids.txt", "wnids.txt is missing"), ("val/val_annotations.txt", "annotations.txt is")],
)
def test_script_incomplete_data(tmp_path, change, words):
    root = tmp_path / "s"
    if change:
        sample.write(root, train=10, val=10, test=10)
        (root / change).unlink()
    failed = script(root, tmp_path / "x")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.count("\n") == 1
    assert words in failed.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--workers", "0"], ["--workers", "two"], ["--seed", "-1"], ["--what"]),
        *(["--crop", "0"], ["--crop", "65"], ["--min-visible", "1.5"], ["--min-visible", "1/0"]),
        ["--verify", "x"],
    ],
)
def test_script_bad_use(source, tmp_path, arguments):
    failed = script(source, tmp_path / "x", *arguments)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert arguments[0] in failed.stderr
    assert not list(tmp_path.iterdir())


# Runs a script, with Ctrl-C at the moment when it imports a module.
INTERRUPTED = """
import os, runpy, sys
script, name, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, os.path.dirname(script))
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Finder())
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("module", ["numpy", "cv2", "lmdb"])
def test_interrupted_while_modules_load(source, tmp_path, module):
    arguments = [sys.executable, "-c", INTERRUPTED, "tools/convert.py", module, source, tmp_path / "x"]
    done = subprocess.run(list(map(str, arguments)), cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "convert.py: error: interrupted\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stdout", ["closed", "/dev/full", "ascii"])
def test_a_finished_output_is_no_failure_where_nobody_can_read_of_it(source, tmp_path, stdout):
    out = tmp_path / ("x" if stdout != "ascii" else os.fsdecode(b"x\xff"))
    redirection = {"closed": ">&-", "/dev/full": ">/dev/full", "ascii": ""}[stdout]
    line = ["sh", "-c", f'"$@" {redirection}', "sh", *command(source, out, "--workers", 1)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (b"\\udcff in" in done.stdout) == (stdout == "ascii")
    assert lmdb_reader.count(out / "train.lmdb") == 420


def test_an_output_within_the_data_set_is_refused(source, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source)
    before = contents(source)
    for out in (source, source / "out", link / "train" / "lmdb"):
        with pytest.raises(TinyImageNetError, match="is within the data set .*: name a folder elsewhere"):
            convert.convert(source, out)
    assert contents(source) == before


def test_the_share_of_screening_is_exact(source, tmp_path):
    share = Fraction(1, 3) + Fraction(1, 10**9)
    manifest = convert.convert(source, tmp_path / "x", workers=1, min_visible=share)
    assert Fraction(manifest["screening"]["min_visible"]) == share


def test_no_more_processes_than_cores_or_batches(source, tmp_path, monkeypatch):
    started = []
    real = pool.Pool._start
    monkeypatch.setattr(pool.Pool, "_start", lambda self, count: started.append(count) or real(self, count))
    monkeypatch.setattr(pool.os, "cpu_count", lambda: 2)
    convert.convert(source, tmp_path / "x", workers=1000)
    assert started == [2, 4]  # 420 images in four batches, 30 and 20 in one each
    convert.convert(source, tmp_path / "y", workers=3)
    assert started[2:] == [2, 1]
    assert contents(tmp_path / "x") == contents(tmp_path / "y")


def test_a_daemonic_process_is_told_to_use_one_worker(source, tmp_path, monkeypatch):
    monkeypatch.setitem(pool.multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(DatasetError, match="this process may start no others .*workers=1, which needs none"):
        convert.convert(source, tmp_path / "x", workers=2)
    convert.convert(source, tmp_path / "x", workers=1)


def test_a_script_without_a_guard_is_told_so(source, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom tiny_imagenet.data import convert\nconvert.convert(sys.argv[1], sys.argv[2], workers=2)\n"
    )
    done = subprocess.run([sys.executable, script, source, tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "this process may start no others" in done.stderr  # in the worker
    assert "a worker process ended early" in done.stderr.splitlines()[-1]
    assert "another process is writing" not in done.stderr
    assert list(tmp_path.iterdir()) == [script]


def test_a_full_memory_is_one_line(source, tmp_path, monkeypatch):
    def decode(*_):
        raise MemoryError

    monkeypatch.setattr(dataset, "decode_image", decode)
    with pytest.raises(TinyImageNetError, match="the memory is full: use fewer workers"):
        convert.convert(source, tmp_path / "x", workers=1)
    assert not list(tmp_path.iterdir())


def test_interruption_leaves_nothing(source, tmp_path):
    arguments = command(source, tmp_path / "x", "--workers", 2)
    # As a terminal does: to every process of the command.
    status, _, stderr = stop_conversion(arguments, tmp_path / "x", signal.SIGINT, whole_group=True)
    assert status == 130
    assert stderr == f"convert.py: error: interrupted: {tmp_path / 'x'} is as it was\n"
    assert not list(tmp_path.iterdir())


def test_caffe_reads_the_records_and_the_mean(data, tmp_path):
    """Caffe's own Data layer gives the images that the reader gives, less the mean, cut to the centre."""
    import caffe

    net_file = tmp_path / "net.prototxt"
    net_file.write_text(
        'layer { name: "data" type: "Data" top: "data" top: "label"'
        f'  transform_param {{ crop_size: 56 mean_file: "{data / "mean.binaryproto"}" }}'
        f'  data_param {{ source: "{data / "train.lmdb"}" batch_size: 5 backend: LMDB }} }}'
    )
    net = caffe.Net(str(net_file), caffe.TEST)
    net.forward()
    mean = datum.read_mean(data / "mean.binaryproto")
    for index, (_, label, image) in zip(range(5), lmdb_reader.records(data / "train.lmdb")):
        expected = (image - mean)[:, 4:60, 4:60]
        np.testing.assert_allclose(net.blobs["data"].data[index], expected, rtol=1e-5, atol=1e-4)
        assert net.blobs["label"].data[index] == label
