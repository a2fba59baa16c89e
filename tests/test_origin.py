"""What runs and predictions say they were made of."""

import json

import numpy as np
import pytest

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import ensemble, origin
from tiny_imagenet.evaluation.predictions import Predictions


def some(path="", **meta):
    keys = np.array(["00000000_a.JPEG", "00000001_b.JPEG"])
    return Predictions(keys, np.array([0, 1]), np.full((2, 10), 0.1, np.float32), meta, str(path))


def write_run(folder, **info):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(info))
    return folder


WNIDS, WORDS = [f"n{index}" for index in range(10)], list("abcdefghij")


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"wnids": WNIDS, "class_names": WORDS}, list(zip(WNIDS, WORDS))),
        ({"class_names": WORDS}, [("", word) for word in WORDS]),
        ({"wnids": WNIDS, "class_names": WORDS[:3]}, [(wnid, "") for wnid in WNIDS]),
        ({"wnids": WNIDS, "class_names": [*WORDS[:9], 3]}, [(wnid, "") for wnid in WNIDS]),
        ({"members": [{"meta": {"wnids": WNIDS}}]}, [(wnid, "") for wnid in WNIDS]),
        ({"members": [3]}, None),
        ({}, None),
    ],
)
def test_classes_are_those_that_the_meta_names(meta, expected):
    assert origin.classes(some(**meta)) == expected


def test_classes_of_an_average_are_its_members():
    averaged = ensemble.average([some(wnids=WNIDS, class_names=WORDS), some()])
    assert origin.classes(averaged) == list(zip(WNIDS, WORDS))


def test_classes_are_else_those_of_the_data_of_the_run_beside_the_file(data, tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", data=str(data))
    assert origin.classes(some(folder / "predictions.npz"))[3] == ("n00000003", "three")
    (folder / "run.json").write_text(json.dumps({"data": str(tmp_path / "gone")}))
    assert origin.classes(some(folder / "predictions.npz")) is None
    monkeypatch.chdir(write_run(tmp_path / "here", data=str(data)))
    assert origin.classes(some()) is None  # of no file: what is in the working folder says nothing of it


def test_the_data_folder_is_the_run_s(data, tmp_path):
    run = write_run(tmp_path / "run", data=str(data))
    assert origin.data_folder(run) == origin.data_folder(run / "predictions.npz") == str(data)
    for info, message in (
        ({"data": str(tmp_path / "gone")}, "was trained on .*gone, which is not there any more: name .* with --data"),
        ({"data": 3}, "run.json does not say which data it was trained on: name it with --data"),
    ):
        (run / "run.json").write_text(json.dumps(info))
        with pytest.raises(RunError, match=message):
            origin.data_folder(run)
    with pytest.raises(RunError, match="does not say which data it was made of: name it with --data"):
        origin.data_folder(tmp_path / "predictions.npz")


def test_the_split_is_the_predictions_own():
    for meta, split in (
        ({}, "val"),
        ({"split": "train"}, "train"),
        ({"members": [{"meta": {"split": "train_screened"}}]}, "train_screened"),
        ({"members": [3]}, "val"),
        ({"split": "../x"}, "val"),
    ):
        assert origin.split(some(**meta)) == split
