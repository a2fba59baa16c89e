"""The data of runs and predictions: folder, split and classes."""

import json

import numpy as np
import pytest

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import data_source, ensemble
from tiny_imagenet.evaluation.predictions import Predictions

WNIDS, WORDS = [f"n{index}" for index in range(10)], list("abcdefghij")


def some(path="", **meta):
    keys = np.array(["00000000_a.JPEG", "00000001_b.JPEG"])
    return Predictions(keys, np.array([0, 1]), np.full((2, 10), 0.1, np.float32), meta, str(path))


def write_run(folder, **info):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"wnids": WNIDS, "class_names": WORDS}, list(zip(WNIDS, WORDS))),
        ({"class_names": WORDS}, [("", word) for word in WORDS]),
        ({"wnids": WNIDS, "class_names": WORDS[:3]}, [(wnid, "") for wnid in WNIDS]),
        ({"members": [{"meta": {"wnids": WNIDS}}]}, [(wnid, "") for wnid in WNIDS]),
        ({}, None),
    ],
)
def test_classes_come_from_the_meta(meta, expected):
    assert data_source.classes(some(**meta)) == expected


def test_classes_of_an_average_are_its_members():
    averaged = ensemble.average([some(wnids=WNIDS, class_names=WORDS), some()])
    assert data_source.classes(averaged) == list(zip(WNIDS, WORDS))
    assert data_source.class_names(averaged) == WORDS


def test_classes_else_come_from_the_data_of_the_run(data, tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", data=str(data))
    assert data_source.classes(some(folder / "predictions.npz"))[3] == ("n00000003", "three")
    (folder / "run.json").write_text(json.dumps({"data": str(tmp_path / "gone")}))
    assert data_source.classes(some(folder / "predictions.npz")) is None
    monkeypatch.chdir(write_run(tmp_path / "here", data=str(data)))
    assert data_source.classes(some()) is None  # not from a file: the working folder does not matter


def test_the_data_folder_is_that_of_the_run(data, tmp_path):
    run = write_run(tmp_path / "run", data=str(data))
    assert data_source.data_folder(run) == data_source.data_folder(run / "predictions.npz") == str(data)
    for info, named in (({"data": str(tmp_path / "gone")}, "gone"), ({}, "run.json")):
        (run / "run.json").write_text(json.dumps(info))
        with pytest.raises(RunError, match=f"{named}.*--data"):
            data_source.data_folder(run)
    with pytest.raises(RunError, match=r"predictions\.npz.*--data"):
        data_source.data_folder(tmp_path / "predictions.npz")


@pytest.mark.parametrize(
    ("meta", "split"),
    [({}, "val"), ({"split": "train"}, "train"), ({"members": [{"name": "a", "meta": {"split": "test"}}]}, "test")],
)
def test_the_split_comes_from_the_meta(meta, split):
    assert data_source.split(some(**meta)) == split
