"""Conversion compared with a direct reading of the same files; failures leave nothing."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from tiny_imagenet.data import convert, dataset, datum, images, lmdb_reader, lmdb_writer, sample, screening
from tiny_imagenet.data.splits import FOLDERS, SPLITS
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
    """Keys and values of an LMDB."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(path):
    return [key.split("_", 1)[1] for key, _, _ in lmdb_reader.records(path)]


def test_records_are_the_images_and_their_classes(source, converted):
    out, manifest = converted
    data = dataset.read(source)
    for split in FOLDERS:
        known = {record.name: record for record in data.splits[split]}
        found = list(lmdb_reader.records(out / f"{split}.lmdb"))
        assert manifest["lmdbs"][split]["count"] == lmdb_reader.count(out / f"{split}.lmdb") == len(known)
        order = names(out / f"{split}.lmdb")
        assert [key for key, _, _ in found] == [f"{index:08d}_{name}" for index, name in enumerate(order)]
        assert sorted(order) == sorted(known)
        assert (order == sorted(order)) == (split != "train")
        for name, (_, label, image) in zip(order, found):
            assert label == known[name].label
            assert image.dtype == np.uint8
            np.testing.assert_array_equal(image, cv2.imread(known[name].path).transpose(2, 0, 1))


def test_screened_is_train_without_the_dropped_images(source, converted):
    out, manifest = converted
    train = dataset.read(source).splits["train"]
    dropped = [r.name for r in train if r.box and not screening.keep(np.array([r.box]))[0]]
    assert manifest["screening"]["dropped"] == dropped != []
    assert manifest["screening"]["without_box"] == 5
    assert names(out / "train_screened.lmdb") == [name for name in names(out / "train.lmdb") if name not in dropped]
    small = [r.name for r in train if r.box and (r.box[2] - r.box[0] + 1) * (r.box[3] - r.box[1] + 1) < 64]
    assert manifest["screening"]["small"] == small != []
    assert manifest["small_objects"] == len(small)
    assert (manifest["screening"]["crop"], manifest["screening"]["min_visible"]) == (56, "1/4")


def test_manifest(source, converted):
    out, manifest = converted
    assert lmdb_reader.read_manifest(out) == manifest == json.loads((out / "manifest.json").read_text())
    assert (manifest["format"], manifest["source"], manifest["seed"]) == (1, str(source), 7)
    assert manifest["image"] == {"channels": 3, "height": 64, "width": 64}
    assert manifest["classes"][3] == {"index": 3, "wnid": "n00000003", "words": "three"}
    for key in ("unreadable", "unlabelled", "missing", "mended_boxes", "empty_classes", "resized", "reencoded"):
        assert manifest[key] == []
    assert tuple(manifest["lmdbs"]) == SPLITS
    for name, entry in manifest["lmdbs"].items():
        lines = "".join(f"{key} {label}\n" for key, label, _ in lmdb_reader.records(out / f"{name}.lmdb"))
        assert entry["sha256"] == hashlib.sha256(lines.encode()).hexdigest()
        digests = [hashlib.sha256(value).digest() for _, value in lmdb_reader.raw_records(out / f"{name}.lmdb")]
        assert entry["values_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    found = {path.name for path in out.rglob("*") if path.is_file()}
    assert found == {"data.mdb", "manifest.json", "mean.binaryproto"}


def test_mean(source, converted):
    out, manifest = converted
    pictures = [cv2.imread(record.path) for record in dataset.read(source).splits["train"]]
    expected = np.mean(np.stack(pictures).transpose(0, 3, 1, 2), axis=0, dtype=np.float64).astype(np.float32)
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


def test_an_executor_decodes_instead_of_workers(source, converted, tmp_path):
    with ThreadPoolExecutor(3) as executor:
        convert.convert(source, tmp_path / "x", seed=7, executor=executor)
    assert contents(converted[0]) == contents(tmp_path / "x")


def test_an_image_that_only_an_executor_cannot_read_is_kept(source, converted, tmp_path):
    """A worker of a cluster may have lost its disk."""

    class Blind(ThreadPoolExecutor):
        def submit(self, function, records, options):
            return super().submit(function, [r._replace(path=r.path + "x") for r in records], options)

    with Blind(1) as executor:
        convert.convert(source, tmp_path / "x", seed=7, skip_unreadable=True, executor=executor)
    assert contents(converted[0]) == contents(tmp_path / "x")


def test_encoded_records_are_the_files(source, converted, tmp_path):
    out, manifest = converted
    found = convert.convert(source, tmp_path / "x", workers=1, seed=7, encoded=True)
    for name, entry in found["lmdbs"].items():
        assert entry.pop("values_sha256") != manifest["lmdbs"][name]["values_sha256"]
    lmdbs = {name: {"count": e["count"], "sha256": e["sha256"]} for name, e in manifest["lmdbs"].items()}
    assert found == {**manifest, "encoded": True, "lmdbs": lmdbs}
    for (key, _), (other, value) in zip(raw(out / "val.lmdb"), raw(tmp_path / "x" / "val.lmdb")):
        message = datum.Datum.FromString(value)
        assert key == other
        assert message.encoded
        assert message.data == (source / "val" / "images" / key.decode().split("_", 1)[1]).read_bytes()
        assert (message.channels, message.height, message.width) == (3, 64, 64)
    for one, other in zip(lmdb_reader.records(out / "val.lmdb"), lmdb_reader.records(tmp_path / "x" / "val.lmdb")):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])
    assert (out / "mean.binaryproto").read_bytes() == (tmp_path / "x" / "mean.binaryproto").read_bytes()


def test_the_rule_of_screening_is_an_option(source, tmp_path):
    share = Fraction(2, 3) + Fraction(1, 10**9)
    manifest = convert.convert(source, tmp_path / "x", workers=1, crop=40, min_visible=share)
    train = [r for r in dataset.read(source).splits["train"] if r.box]
    kept = screening.keep(np.array([r.box for r in train]), 64, 40, share)
    assert manifest["screening"]["dropped"] == [r.name for r, keep in zip(train, kept) if not keep]
    assert manifest["screening"]["crop"] == 40
    assert Fraction(manifest["screening"]["min_visible"]) == share
    for wrong in ({"crop": 0}, {"crop": 65}, {"min_visible": -0.1}, {"min_visible": 2}):
        with pytest.raises(DatasetError, match=next(iter(wrong))):
            convert.convert(source, tmp_path / "y", **wrong)


def test_the_seed_changes_only_the_order_of_training(source, converted, tmp_path):
    manifest = convert.convert(source, tmp_path / "x", workers=1, seed=8)
    same = {name for name in SPLITS if manifest["lmdbs"][name] == converted[1]["lmdbs"][name]}
    assert same == {"val", "test"}


def written(path, records, parts=1):
    writer = lmdb_writer.LmdbWriter(path)
    for part in range(parts):
        writer.add(records[part * len(records) // parts : (part + 1) * len(records) // parts])
    writer.finish()
    writer.close()
    return writer


def test_lmdb_grows_and_its_bytes_depend_only_on_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, "_GROUPS_OPEN", 3)
    rng = np.random.default_rng(0)
    # More than the first map, in records within a page, of several pages, and larger than a group.
    sizes = [*rng.integers(1, 30000, 6000).tolist(), 20 << 20, 3, 40 << 20]
    values = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    digests = [hashlib.sha256(value).digest() for value in values]
    records = [(b"%d.JPEG" % i, i % 5 - 1, *pair) for i, pair in enumerate(zip(values, digests))]
    writer = written(tmp_path / "x.lmdb", records)
    assert raw(tmp_path / "x.lmdb") == [
        (b"%08d_%b" % (i, name), value) for i, (name, _, value, _) in enumerate(records)
    ]
    lines = b"".join(b"%08d_%b %d\n" % (i, name, label) for i, (name, label, _, _) in enumerate(records))
    assert (writer.count, writer.sha256) == (len(records), hashlib.sha256(lines).hexdigest())
    assert writer.values_sha256 == hashlib.sha256(b"".join(digests)).hexdigest()
    written(tmp_path / "y.lmdb", records, parts=7)
    assert contents(tmp_path / "x.lmdb") == contents(tmp_path / "y.lmdb")


def test_an_unreadable_image_is_an_error_or_skipped(broken, tmp_path):
    root, bad = broken
    for workers in (1, 2):
        with pytest.raises(DatasetError, match=bad.name):
            convert.convert(root, tmp_path / "x", workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
    manifest = convert.convert(root, tmp_path / "x", workers=1, skip_unreadable=True)
    assert manifest["unreadable"] == [bad.relative_to(root).as_posix()]
    keys = [key for key, _, _ in lmdb_reader.records(tmp_path / "x" / "train.lmdb")]
    assert [int(key[:8]) for key in keys] == list(range(19))
    assert not any(bad.name in key for key in keys)


def test_a_split_without_readable_images_is_an_error(broken, tmp_path):
    root, _ = broken
    for path in (root / "val" / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="val"):
        convert.convert(root, tmp_path / "x", workers=1, skip_unreadable=True)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_not_empty_stays(source, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    with pytest.raises(TinyImageNetError, match="full"):
        convert.convert(source, tmp_path / "full")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


def test_an_output_in_the_data_set_is_refused(source, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(source)
    before = contents(source)
    for out in (source, source / "out", link / "train" / "lmdb"):
        with pytest.raises(TinyImageNetError, match=str(out)):
            convert.convert(source, out)
    assert contents(source) == before


def test_full_memory_is_one_line(source, tmp_path, monkeypatch):
    def decode(*_):
        raise MemoryError

    monkeypatch.setattr(images, "decode", decode)
    with pytest.raises(TinyImageNetError, match="workers"):
        convert.convert(source, tmp_path / "x", workers=1)
    assert not list(tmp_path.iterdir())


def test_a_script_without_a_guard_fails_with_the_reason(source, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom tiny_imagenet.data import convert\nconvert.convert(sys.argv[1], sys.argv[2], workers=2)\n"
    )
    done = subprocess.run([sys.executable, script, source, tmp_path / "x"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "__main__" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [script]


def script(*arguments):
    command = [sys.executable, "tools/convert.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_script(broken, tmp_path):
    root, bad = broken
    failed = script(root, tmp_path / "x")
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert str(bad) in failed.stderr and "--skip-unreadable" in failed.stderr
    (tmp_path / "x").mkdir()
    done = script(root, tmp_path / "x", "--skip-unreadable", "--workers", 2)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("train.lmdb", "19 images", "1,535", "1,891", "unreadable", "seconds"):
        assert words in done.stdout
    again = script(root, tmp_path / "x")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "x") in again.stderr and "--replace" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "x"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--workers", "0"], ["--seed", "-1"], ["--what"], ["--crop", "65"], ["--min-visible", "1.5"]),
        ["--verify", "x"],
    ],
)
def test_script_bad_use(source, tmp_path, arguments):
    failed = script(source, tmp_path / "x", *arguments)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert arguments[0] in failed.stderr
    assert not list(tmp_path.iterdir())


def test_caffe_reads_the_records_and_the_mean(data, tmp_path):
    """Caffe's Data layer gives the same images, minus the mean, cropped at the center."""
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
