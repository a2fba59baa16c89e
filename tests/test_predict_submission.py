"""The challenge's test file."""

import json
import shutil

import numpy as np
import pytest

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError, TinyImageNetError
from tiny_imagenet.evaluation import evaluate, predictions, submission
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run


def made_up(data, seed=0, order_seed=None, **meta):
    """Random predictions of the test split."""
    keys = np.array([key for key, _, _ in lmdb_reader.records(data / "test.lmdb")])
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(10), len(keys)).astype(np.float32)
    order = np.arange(len(keys)) if order_seed is None else np.random.default_rng(order_seed).permutation(len(keys))
    return Predictions(keys[order], np.full(len(keys), -1), probabilities[order], meta)


@pytest.fixture
def edited(data, tmp_path):
    """A copy of the data folder whose manifest a function may change."""
    folder = tmp_path / "edited"
    shutil.copytree(data, folder)

    def edit(change):
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return edit


def test_the_file_has_a_line_for_each_test_image_file(tool, trained, data, dataset, tmp_path):
    out = tmp_path / "new" / "test.txt"
    assert "20 images" in tool("predict", trained, "--submission", out).stdout
    rows = [line.split(" ") for line in out.read_text().splitlines()]
    names = sorted(path.name for path in (dataset / "test" / "images").iterdir())
    assert [name for name, _ in rows] == names and len(names) == 20
    given = evaluate.predict_run(Run(trained), data, split="test")
    wnids = (dataset / "wnids.txt").read_text().split()
    best = {key.split("_", 1)[1]: wnids[row.argmax()] for key, row in zip(given.keys, given.probabilities)}
    assert dict(rows) == best and out.read_text().endswith("\n")
    assert [path.name for path in out.parent.iterdir()] == ["test.txt"]


def test_an_ensembles_predictions_make_the_same_file_whatever_their_order(tool, data, tmp_path):
    for seed in (1, 2):
        predictions.save(tmp_path / f"{seed}.npz", made_up(data, seed, order_seed=seed, model=f"model{seed}"))
    files = [tmp_path / "1.npz", tmp_path / "2.npz"]
    tool("ensemble", *files, "--out", tmp_path / "both.npz")
    out = tmp_path / "test.txt"
    tool("predict", "--predictions", tmp_path / "both.npz", "--data", data, "--submission", out)
    mean = (made_up(data, 1).probabilities.astype(np.float64) + made_up(data, 2).probabilities) / 2
    names = [key.split("_", 1)[1] for key in made_up(data).keys]
    want = sorted(f"{name} n{row.argmax():08d}" for name, row in zip(names, mean))
    assert out.read_text().splitlines() == want


def test_only_an_earlier_submission_is_replaced(data, tmp_path):
    out = tmp_path / "test.txt"
    submission.check(out)
    submission.write(out, made_up(data), data)
    submission.check(out)
    (tmp_path / "line.txt").write_bytes(b"a line of text\n")
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0 \0\n")
    for name in ("line.txt", "photo"):
        with pytest.raises(TinyImageNetError, match=name):
            submission.check(tmp_path / name)
    with pytest.raises(TinyImageNetError):
        submission.check(tmp_path)


def test_the_first_of_equal_classes_is_taken(data):
    given = made_up(data)
    given.probabilities[:] = 0.1
    assert {line.split()[1] for line in submission.lines(given, data)} == {"n00000000"}


def without(given, index):
    keep = np.arange(len(given.keys)) != index
    return Predictions(given.keys[keep], given.labels[keep], given.probabilities[keep], given.meta)


def renamed(given, index, key):
    keys = given.keys.astype("U40")
    keys[index] = key
    return Predictions(keys, given.labels, given.probabilities, given.meta)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda g: without(g, 3), "1 of 20 .*'00000003_"),
        (lambda g: renamed(g, 3, "00000003_other.JPEG"), "1 of 20"),
        (lambda g: renamed(g, 3, str(g.keys[4])), "00000004_"),
        (lambda g: Predictions(g.keys, g.labels, g.probabilities * 2, {}), "00000000_"),
        (lambda g: Predictions(g.keys, g.labels, np.full((20, 4), 0.25, np.float32), {}), "classes"),
        (lambda g: Predictions(g.keys, g.labels, g.probabilities, {"wnids": ["n1"] * 10}), "classes"),
    ],
)
def test_predictions_that_do_not_match_leave_the_file(data, tmp_path, change, named):
    out = tmp_path / "test.txt"
    out.write_text("the old one\n")
    with pytest.raises(PredictionsError, match=named):
        submission.write(out, change(made_up(data)), data)
    assert out.read_text() == "the old one\n" and len(list(tmp_path.iterdir())) == 1


def test_predictions_of_the_validation_split_are_rejected(tool, trained, data, tmp_path):
    predictions.save(tmp_path / "val.npz", evaluate.predict_run(Run(trained), data))
    arguments = ("--predictions", tmp_path / "val.npz", "--data", data, "--submission", tmp_path / "t.txt")
    assert "--split test" in tool("predict", *arguments, fails=1).stderr
    assert not (tmp_path / "t.txt").exists()


def test_data_without_a_test_split_is_rejected(tool, trained, data, edited, tmp_path):
    folder = edited(lambda manifest: manifest["lmdbs"].pop("test"))
    assert "test.lmdb" in tool("predict", trained, "--data", folder, "--submission", tmp_path / "t.txt", fails=1).stderr
    folder = edited(lambda manifest: manifest["lmdbs"].update(test={"count": 21}))
    with pytest.raises(DatasetError, match="20 .* 21"):
        submission.lines(made_up(data), folder)
    shutil.rmtree(folder / "test.lmdb")
    with pytest.raises(DatasetError, match=r"test\.lmdb"):
        submission.lines(made_up(data), folder)
    assert not (tmp_path / "t.txt").exists()


def test_names_with_spaces_or_twice_are_rejected(edited):
    import lmdb

    from tiny_imagenet.data import datum

    folder = edited(lambda manifest: manifest["lmdbs"].update(test={"count": 2}))
    for names, named in ((["a b.JPEG", "c.JPEG"], "'a b.JPEG'"), (["a.JPEG", "a.JPEG"], "'a.JPEG'")):
        shutil.rmtree(folder / "test.lmdb")
        with lmdb.open(str(folder / "test.lmdb"), map_size=1 << 20) as file, file.begin(write=True) as transaction:
            for index, name in enumerate(names):
                transaction.put(f"{index:08d}_{name}".encode(), datum.encode(np.zeros((3, 64, 64), np.uint8), -1))
        with pytest.raises(DatasetError, match=named):
            submission.lines(made_up(folder), folder)
