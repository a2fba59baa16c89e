"""Misclassified images as a figure."""

import json
import shutil

import numpy as np
import pytest

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError
from tiny_imagenet.evaluation import predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import errors_figure, figures


def made(data, right=0.5, seed=0, **meta):
    """Predictions of the validation split, about `right` of them right."""
    generator = np.random.default_rng(seed)
    keys, labels, _ = zip(*lmdb_reader.records(data / "val.lmdb"))
    probabilities = generator.random((len(keys), 10)) + 0.01
    hit = generator.random(len(keys)) < right
    probabilities[np.arange(len(keys)), labels] += np.where(hit, 2, -0.01)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    manifest = lmdb_reader.read_manifest(data)
    about = {"model": "model1", "class_names": [entry["words"] for entry in manifest["classes"]], "split": "val"}
    return Predictions(np.array(keys), np.array(labels), probabilities.astype(np.float32), {**about, **meta})


@pytest.fixture
def given(data):
    return made(data)


def captions(figure):
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


# --- which ---


def test_errors_are_the_images_whose_most_probable_class_is_wrong(given):
    found, images = errors_figure.mistakes(given)
    assert images == len(given.keys) == 40
    expected = {
        (str(key), int(label), int(np.argmax(row)), float(row.max()))
        for key, label, row in zip(given.keys, given.labels, given.probabilities)
        if np.argmax(row) != label
    }
    assert 5 < len(expected) < 35
    assert {tuple(mistake) for mistake in found} == expected and len(found) == len(expected)
    assert [mistake.key for mistake in found] == sorted(mistake.key for mistake in found)
    of_three, images = errors_figure.mistakes(given, 3)
    assert set(of_three) == {mistake for mistake in found if mistake.label == 3} and images == (given.labels == 3).sum()


def test_images_without_a_label_are_ignored(given):
    labels = np.where(np.arange(40) < 20, -1, given.labels)
    found, images = errors_figure.mistakes(Predictions(given.keys, labels, given.probabilities))
    assert images == 20 and all(mistake.key >= str(given.keys[20]) for mistake in found)


def test_the_most_confident_errors_come_first_or_random_ones(given):
    found, _ = errors_figure.mistakes(given)
    shown = errors_figure.select(found, 5)
    chances = [mistake.probability for mistake in shown]
    others = [mistake.probability for mistake in found if mistake not in shown]
    assert chances == sorted(chances, reverse=True) and min(chances) >= max(others)
    draws = [errors_figure.select(found, 5, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and set(draws[0]) <= set(found) and len(set(draws[0])) == 5
    assert set(errors_figure.select(found, 99, 0)) == set(errors_figure.select(found, 99)) == set(found)


# --- the picture ---


def test_the_figure_shows_images_classes_and_probabilities(given, data):
    figure = errors_figure.draw(given, data, rows=2)
    found, _ = errors_figure.mistakes(given)
    stored = {key: image for key, _, image in lmdb_reader.records(data / "val.lmdb")}
    names = given.meta["class_names"]
    chosen = errors_figure.select(found, 10)
    assert len(figure.axes) == 10
    for mistake, axes, (true, predicted, name, share) in zip(chosen, figure.axes, captions(figure)):
        image = np.asarray(axes.images[0].get_array())
        assert (image == stored[mistake.key][::-1].transpose(1, 2, 0)).all()  # BGR to RGB
        assert (true, predicted) == (names[mistake.label], names[mistake.predicted])
        assert mistake.key == f"{mistake.key[:8]}_{name}.JPEG"
        assert share == figures.percent(mistake.probability)
    assert f"10 most confident of {len(found)} errors in 40 val images" in figure.texts[0].get_text()


def test_one_class_can_be_drawn(given, data):
    entry = lmdb_reader.read_manifest(data)["classes"][3]
    found, images = errors_figure.mistakes(given, 3)
    figure = errors_figure.draw(given, data, of_class=entry["wnid"])
    assert {caption[0] for caption in captions(figure)} == {entry["words"]} and len(figure.axes) == len(found)
    assert f"{images} val images of {entry['words']}" in figure.texts[0].get_text()


# --- errors ---


def test_predictions_without_errors_or_labels_are_rejected(given, data):
    with pytest.raises(PredictionsError, match="model1: all 40"):
        errors_figure.draw(made(data, right=1), data)
    with pytest.raises(PredictionsError):
        errors_figure.draw(Predictions(given.keys, np.full(40, -1), given.probabilities, {"split": "test"}), data)


def test_predictions_of_other_data_are_rejected(given, data):
    few = Predictions(given.keys, given.labels % 3, np.full((40, 3), 1 / 3, np.float32), {"model": "model1"})
    others = [few]
    for meta in ({"class_names": ["x"] * 10}, {"wnids": ["n1"] * 10}):
        average = {"members": [{"name": "a", "meta": {"split": "val", **meta}}]}
        for about in (meta, average):
            others.append(Predictions(given.keys, given.labels, given.probabilities, {"model": "model1", **about}))
    keys = np.array([str(key).replace("val_", "other_") for key in given.keys])
    others.append(Predictions(keys, given.labels, given.probabilities, given.meta))
    others.append(Predictions(given.keys, (given.labels + 1) % 10, given.probabilities, given.meta))
    for other in others:
        with pytest.raises(DatasetError, match="--data"):
            errors_figure.draw(other, data)


CLASSES = [
    {"wnid": "n02100236", "words": "German short-haired pointer"},
    {"wnid": "n03126707", "words": "crane"},
    {"wnid": "n02012849", "words": "crane, long-legged bird"},
    {"wnid": "n02123394", "words": "Persian cat"},
    {"wnid": "n00000007", "words": "7"},
    {"wnid": "n00000009", "words": ""},
]


def test_a_class_is_found_by_wnid_words_or_number():
    numbers = {"n02100236": 0, "N02100236": 0, "german short-haired pointer": 0, "Long-legged bird": 2}
    numbers |= {" crane, long-legged bird ": 2, "0": 0, "7": 4, "5": 5}  # words before numbers
    for name, number in numbers.items():
        assert errors_figure.class_number(name, CLASSES, "data") == number


def test_an_unknown_or_ambiguous_class_is_rejected_with_a_near_name():
    near = {"crane": "n03126707 and n02012849", "pointer": "'german short-haired pointer'", "6": "'6'"}
    for name, named in {**near, "persan cat": "'persian cat'", "n2100236": "'n02100236'"}.items():
        with pytest.raises(DatasetError, match=named):
            errors_figure.class_number(name, CLASSES, "data")


# --- the script ---


def test_the_script_draws_a_run_and_its_file_alike(given, data, tmp_path, tool):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"model": "model1", "data": str(data)}))
    predictions.save(folder / "predictions.npz", given)
    figures.save(errors_figure.draw(predictions.load(folder / "predictions.npz"), data, 1), tmp_path / "a.svg")
    for source in (folder, folder / "predictions.npz"):
        tool("visualize", "errors", source, "--rows", 1, "--out", tmp_path / "b.svg")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    for name in ("nine", "n00000009"):
        tool("visualize", "errors", folder, "--class", name, "--out", tmp_path / f"{name}.svg")
    assert (tmp_path / "nine.svg").read_bytes() == (tmp_path / "n00000009.svg").read_bytes()
    shutil.copy(folder / "predictions.npz", tmp_path / "alone.npz")
    for arguments in ([tmp_path / "alone.npz"], [folder, "--class", "nin"]):
        tool("visualize", "errors", *arguments, "--out", tmp_path / "c.png", fails=1)
