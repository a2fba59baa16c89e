"""Features of images, and their t-SNE figure."""

import json
import shutil

import caffe
import numpy as np
import pytest
from matplotlib.colors import to_hex

from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import features
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets
from tiny_imagenet.report import figures, tsne_figure
from tiny_imagenet.report.tsne_figure import Choice
from tiny_imagenet.runs import Run


@pytest.fixture(scope="module")
def run(trained):
    return Run(trained)


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor(nets.read(run.train_val), run.mean, run.weights())


def clusters(classes, each, spread=0.5):
    """Points (n, 2) about places far from each other, and their labels."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    places = np.array([(index % 8, index // 8) for index in range(classes)]) * 10.0
    return (places[labels] + generator.normal(scale=spread, size=(len(labels), 2))).astype(np.float32), labels


# --- which images ---


def test_classes_have_about_equal_numbers_of_images(data):
    known = {key: (label, image) for key, label, image in lmdb_reader.records(data / "val.lmdb")}
    chosen = features.select(data / "val.lmdb", 10, classes=4, images=10, seed=1)
    assert len(chosen.keys) == len(set(chosen.keys)) == 10 and chosen.keys == sorted(chosen.keys)
    for key, label, image in zip(chosen.keys, chosen.labels, chosen.images):
        assert known[key][0] == label and (known[key][1] == image).all()
    labels, counts = np.unique(chosen.labels, return_counts=True)
    assert len(labels) == 4 and counts.min() >= 2 and counts.max() <= 3


def test_the_seed_decides_unless_all_are_taken(data):
    picks = [features.select(data / "val.lmdb", 10, 4, 10, seed).keys for seed in (0, 0, 1)]
    assert picks[0] == picks[1] != picks[2]
    chosen = features.select(data / "val.lmdb", 10, 50, 2500, 0)
    assert chosen.keys == [key for key, _, _ in lmdb_reader.records(data / "val.lmdb")]
    with pytest.raises(DatasetError, match="10 chosen classes"):
        features.select(data / "test.lmdb", 10, 50, 2500, 0)


# --- features ---


def test_features_are_the_values_after_the_rectifier(run, predictor, data):
    chosen = features.select(data / "val.lmdb", 10, 10, 2500, 0)
    blob = features.hidden(predictor)
    assert blob == "conv1_1"
    found = features.compute(predictor, chosen.images, blob)
    net = caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights()))
    mean = datum.read_mean(run.mean)
    for image, row in zip(chosen.images, found):
        net.blobs["data"].data[0] = (image.astype(np.float32) - mean)[:, 4:60, 4:60]
        net.forward(end="conv1_1")  # not yet the LReLU, which works in place
        before = net.blobs["conv1_1"].data.ravel()
        assert (before < 0).any() and (before > 0).any()
        assert row == pytest.approx(np.where(before < 0, np.float32(0.01) * before, before), rel=1e-5, abs=1e-5)


def test_any_layer_can_be_named(predictor):
    assert features.hidden(predictor, "lrelu1_1") == "conv1_1"
    assert features.hidden(predictor, "pool0") == "pool0"
    with pytest.raises(NetError, match="'fc9'"):
        features.hidden(predictor, "fc9")


def test_too_many_values_are_rejected(predictor, monkeypatch):
    monkeypatch.setattr(features, "MOST_VALUES", 1000)
    with pytest.raises(NetError, match="conv1_1"):
        features.compute(predictor, np.zeros((20, 3, 64, 64), np.uint8), "conv1_1")


def test_values_that_are_not_finite_are_rejected(run):
    broken = Predictor(nets.read(run.train_val), run.mean, run.weights())
    broken.net.params["conv1_1"][0].data[0, 0, 0, 0] = np.nan
    with pytest.raises(NetError, match="conv1_1"):
        features.compute(broken, np.zeros((2, 3, 64, 64), np.uint8), "conv1_1")


# --- t-SNE ---


def test_clusters_stay_apart_and_the_seed_reproduces():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    values = (10 * generator.normal(size=(4, 60))[labels] + generator.normal(size=(60, 60))).astype(np.float32)
    points = tsne_figure.embed(values, 3)
    assert points.shape == (60, 2) and (points == tsne_figure.embed(values, 3)).all()
    distances = np.linalg.norm(points[:, None] - points, axis=2) + np.diag([np.inf] * 60)
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_five_images_are_enough_and_equal_ones_rejected():
    generator = np.random.default_rng(0)
    assert np.isfinite(tsne_figure.embed(generator.random((5, 2)).astype(np.float32))).all()
    for values in (np.ones((9, 4)), np.arange(9.0)[:, None]):
        with pytest.raises(NetError, match="layer fc1"):
            tsne_figure.embed(values, 0, "layer fc1")


# --- the picture ---


def test_the_figure_has_every_point_with_its_class():
    points, labels = clusters(10, 6)
    names = {label: f"class {label}, other words" for label in range(10)}
    figure = tsne_figure.plot(points, labels, names, "a title")
    (axes,) = figure.axes
    assert len(axes.collections) == 10
    for label, dots in enumerate(axes.collections):
        assert np.asarray(dots.get_offsets()) == pytest.approx(points[labels == label])
        assert dots.get_label() == f"class {label}"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"class {label}" for label in range(10)]
    assert {text.get_text() for text in axes.texts} == {f"class {label}" for label in range(10)}


def test_56_classes_have_56_looks_and_names_that_do_not_overlap():
    points, labels = clusters(56, 10)
    names = dict.fromkeys(range(56), "European fire salamander")
    figure = tsne_figure.plot(points, labels, names, "a title")
    (axes,) = figure.axes
    looks = {(to_hex(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in axes.collections}
    assert len(looks) == 56 == tsne_figure.MOST_CLASSES
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    frame = axes.get_window_extent(renderer)
    assert len(boxes) == 56
    for index, one in enumerate(boxes):
        assert frame.x0 < one.x0 and one.x1 < frame.x1 and frame.y0 < one.y0 and one.y1 < frame.y1
        assert not any(one.overlaps(other) for other in boxes[:index])


def test_a_class_is_named_where_it_is_dense():
    points, labels = clusters(5, 12)
    points[labels == 1] = np.concatenate([points[labels == label][:3] + 0.01 for label in (0, 2, 3, 4)])  # a few each
    points[np.flatnonzero(labels == 2)[:3]] += 500  # a few elsewhere do not move it
    place, share = tsne_figure.home(points, labels == 2)
    assert share > 0.5 and abs(place - [20, 0]).max() < 3
    assert tsne_figure.home(points, labels == 1)[1] < 0.5
    axes = tsne_figure.plot(points, labels, dict(enumerate("abcde")), "a title").axes[0]
    assert {text.get_text() for text in axes.texts} == set("acde")


def test_a_class_with_one_image_is_drawn():
    points, labels = clusters(2, 3)
    assert tsne_figure.home(points[2:], labels[2:] == 0)[1] == 0
    assert len(tsne_figure.plot(points[2:], labels[2:], {0: "$x^{", 1: "_b"}, "$y_{").axes[0].collections) == 2


def test_other_classes_too_few_images_and_too_many_classes_are_rejected(run, data, tmp_path):
    other = shutil.copytree(data, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"].reverse()
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="other classes"):
        tsne_figure.draw(run, other)
    with pytest.raises(DatasetError, match="4 val images"):
        tsne_figure.draw(run, choice=Choice(images=4))
    with pytest.raises(DatasetError, match="57"):
        tsne_figure.draw(run, choice=Choice(classes=57))
    with pytest.raises(RunError, match="'7'"):
        tsne_figure.draw(run, checkpoint="7")


def test_the_script_draws_the_same_as_the_library(run, tool, tmp_path):
    figure = tsne_figure.draw(run, choice=Choice(classes=5, seed=2))
    assert "conv1_1: t-SNE of" in figure.texts[0].get_text()
    figures.save(figure, tmp_path / "here.svg")
    tool("visualize", "tsne", run.path, "--classes", 5, "--seed", 2, "--out", tmp_path / "there.svg")
    assert (tmp_path / "here.svg").read_bytes() == (tmp_path / "there.svg").read_bytes()
    done = tool("visualize", "tsne", run.path, "--layer", "fc9", "--out", tmp_path / "a.png", fails=1)
    assert "'fc9'" in done.stderr
