import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from conftest import ROOT
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError, RunError
from tiny_imagenet.evaluation import origin, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import errors_figure, figures
from tiny_imagenet.report.errors_figure import Mistake


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


def test_the_errors_are_exactly_the_images_whose_most_probable_class_is_another(given):
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


def test_images_without_a_label_are_passed_over(given):
    labels = np.where(np.arange(40) < 20, -1, given.labels)
    found, images = errors_figure.mistakes(Predictions(given.keys, labels, given.probabilities))
    assert images == 20 and all(mistake.key >= str(given.keys[20]) for mistake in found)


def test_the_most_confident_come_first_and_a_seed_draws(given):
    found, _ = errors_figure.mistakes(given)
    shown = errors_figure.select(found, 5)
    chances = [mistake.probability for mistake in shown]
    others = [mistake.probability for mistake in found if mistake not in shown]
    assert chances == sorted(chances, reverse=True) and min(chances) >= max(others)
    draws = [errors_figure.select(found, 5, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and set(draws[0]) <= set(found) and len(set(draws[0])) == 5
    assert set(errors_figure.select(found, 99, 0)) == set(errors_figure.select(found, 99)) == set(found)


# --- the picture ---


def test_the_sheet_shows_the_images_their_classes_and_the_probability(given, data):
    figure = errors_figure.draw(given, data, rows=2)
    found, _ = errors_figure.mistakes(given)
    stored = {key: image for key, _, image in lmdb_reader.records(data / "val.lmdb")}
    names = given.meta["class_names"]
    chosen = errors_figure.select(found, 10)
    assert len(figure.axes) == 10
    for mistake, axes, (true, predicted, name, share) in zip(chosen, figure.axes, captions(figure)):
        image = np.asarray(axes.images[0].get_array())
        assert image.shape == (64, 64, 3)
        for channel in range(3):  # the LMDB's are B, G, R
            assert (image[:, :, channel] == stored[mistake.key][2 - channel]).all()
        assert (true, predicted) == (names[mistake.label], names[mistake.predicted])
        assert mistake.key == f"{mistake.key[:8]}_{name}.JPEG"
        assert 0 <= 100 * mistake.probability - float(share.removesuffix(" %")) < 0.1001
    title = figure.texts[0].get_text()
    assert title == f"model1: 10 most confident of {len(found)} errors in 40 val images"


def test_one_class_and_a_draw_have_titles_of_their_own(given, data):
    entry = lmdb_reader.read_manifest(data)["classes"][3]
    found, images = errors_figure.mistakes(given, 3)
    figure = errors_figure.draw(given, data, of_class=entry["wnid"])
    assert {caption[0] for caption in captions(figure)} == {entry["words"]} and len(figure.axes) == len(found)
    title = f"model1: the {len(found)} errors in {images} val images of {entry['words']}"
    assert figure.texts[0].get_text() == title
    assert "5 drawn of" in errors_figure.draw(given, data, rows=1, seed=0).texts[0].get_text()


def test_less_than_sure_never_reads_as_sure():
    assert [errors_figure.percent(share) for share in (0, 0.5, 0.99999, 1)] == ["0.0 %", "50.0 %", "99.9 %", "100.0 %"]


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_nothing_overlaps_whatever_the_names(tmp_path):
    names = ["W" * 40, "a $x^{ 5$", "_hidden", "<b>&", "数字" * 20, "German short-haired pointer, dog"]
    chosen = [Mistake(f"{n:08d}_{'val' * (n + 1)}.JPEG", n % 6, (n + 1) % 6, 0.999) for n in range(12)]
    pictures = [np.zeros((64, 64, 3), np.uint8)] * 12
    figure = errors_figure.plot(chosen, pictures, names, "a title " * 50)
    figures.save(figure, tmp_path / "a.png")
    renderer = figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.texts]
    for axes in figure.axes:
        boxes += [axes.get_window_extent(renderer), *(text.get_window_extent(renderer) for text in axes.texts)]
        assert all(text.get_fontsize() >= 7 for text in axes.texts)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in boxes)
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert width <= 0 or height <= 0.5  # a letter's tail may touch the next line's box


# --- what is refused ---


def test_no_errors_to_show(data):
    given = made(data, right=1)
    with pytest.raises(PredictionsError, match="model1: all 40 labelled images are predicted right: no errors to show"):
        errors_figure.draw(given, data)
    right = made(data)
    label = 3
    row = np.where(np.arange(10) == label, 0.91, 0.01).astype(np.float32)
    right.probabilities[right.labels == label] = row
    entry = lmdb_reader.read_manifest(data)["classes"][label]
    with pytest.raises(PredictionsError, match=f"labelled images of {entry['words']} are predicted right"):
        errors_figure.draw(right, data, of_class=entry["wnid"])


def test_other_data_is_refused(given, data, tmp_path):
    with pytest.raises(DatasetError, match="has 10 classes, model1 tells 3 apart: name the --data"):
        few = Predictions(given.keys, given.labels % 3, np.full((40, 3), 1 / 3, np.float32), {"model": "model1"})
        errors_figure.draw(few, data)
    for meta in ({"class_names": ["x"] * 10}, {"wnids": ["n1"] * 10}):
        average = {"members": [{"meta": {"split": "val", **meta}}]}
        for about in (meta, average):
            with pytest.raises(DatasetError, match="has other classes than model1, or in another order"):
                other = Predictions(given.keys, given.labels, given.probabilities, {"model": "model1", **about})
                errors_figure.draw(other, data)


CLASSES = [
    {"wnid": "n02100236", "words": "German short-haired pointer"},
    {"wnid": "n03126707", "words": "crane"},
    {"wnid": "n02012849", "words": "crane, long-legged bird"},
    {"wnid": "n02123394", "words": "Persian cat"},
    {"wnid": "n00000007", "words": "7"},
    {"wnid": "n00000009", "words": ""},
]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("n02100236", 0),
        ("N02100236", 0),
        ("german short-haired pointer", 0),
        ("Long-legged bird", 2),
        (" crane, long-legged bird ", 2),
        ("persian cat", 3),
        ("0", 0),
        ("7", 4),  # words come before numbers
        ("5", 5),
    ],
)
def test_a_class_has_a_wnid_words_and_a_number(name, number):
    assert errors_figure.class_number(name, CLASSES, "data") == number


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crane", r"several classes 'crane': did you mean n03126707 \(crane\) or n02012849 \(crane, .*a wnid names"),
        ("pointer", r"no class 'pointer': did you mean n02100236 \(German short-haired pointer\)\?"),
        ("persan cat", r"did you mean n02123394 \(Persian cat\)\?"),
        ("n2100236", r"no class 'n2100236': did you mean n02100236 "),
        ("6", r"data has no class '6': it has such as n02100236 .*; manifest\.json lists all"),
        ("zebra", r"data has no class 'zebra': it has such as n02100236 .*; manifest\.json lists all"),
        ("", "manifest.json lists all"),
    ],
)
def test_what_means_no_class_or_several_is_refused_with_what_is_near(name, message):
    with pytest.raises(DatasetError, match=message):
        errors_figure.class_number(name, CLASSES, "data")


def test_keys_that_are_not_there_are_named(given, data):
    for change, message in (
        (lambda key: key.replace("val_", "other_"), "not there"),
        (lambda key: f"9{key[1:]}", "not there"),
        (lambda key: f"x{key}", "not there"),
    ):
        other = Predictions(
            np.array([change(str(key)) for key in given.keys]), given.labels, given.probabilities, given.meta
        )
        with pytest.raises(DatasetError, match=f"val.lmdb, record '.*': {message}: name the --data"):
            errors_figure.draw(other, data)
    other = Predictions(given.keys, (given.labels + 1) % 10, given.probabilities, given.meta)
    with pytest.raises(DatasetError, match="label . there, not .: name the --data"):
        errors_figure.draw(other, data)


def test_predictions_without_labels_are_refused(given, data):
    unknown = Predictions(given.keys, np.full(40, -1), given.probabilities, {"split": "test"})
    with pytest.raises(PredictionsError, match="no image has a known label"):
        errors_figure.draw(unknown, data)


@pytest.mark.parametrize("rows", [0, 21])
def test_rows_out_of_range_are_refused(given, data, rows):
    with pytest.raises(DatasetError, match=f"rows is {rows}: from 1 to 20 are allowed"):
        errors_figure.draw(given, data, rows=rows)


# --- the script ---


@pytest.fixture
def folder(given, data, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"model": "model1", "data": str(data)}))
    predictions.save(path / "predictions.npz", given)
    return path


def script(*arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / "visualize.py"), "errors", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_draws_a_run_and_its_file_alike(folder, given, data, tmp_path):
    for ending in (".png", ".svg"):
        figures.save(errors_figure.draw(predictions.load(folder / "predictions.npz"), data, 1), tmp_path / f"a{ending}")
    for source, ending in ((folder, ".png"), (folder / "predictions.npz", ".svg")):
        done = script(source, "--rows", 1, "--out", f"b{ending}", cwd=tmp_path)
        assert (done.returncode, done.stderr, done.stdout) == (0, "", f"b{ending}\n")
        assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()
    assert cv2.imread(str(tmp_path / "b.png")).shape[1] in range(1360, 1420)
    nodes = ElementTree.parse(tmp_path / "b.svg").iter("{http://www.w3.org/2000/svg}text")
    assert set(given.meta["class_names"]) & {"".join(node.itertext()) for node in nodes}


def test_the_script_draws_a_class_by_its_words(folder, tmp_path):
    for name in ("nine", "n00000009"):
        done = script(folder, "--class", name, "--out", f"{name}.svg", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "nine.svg").read_bytes() == (tmp_path / "n00000009.svg").read_bytes()


def test_the_script_refuses_in_one_line(folder, given, tmp_path):
    alone = tmp_path / "alone.npz"
    predictions.save(alone, given)
    with pytest.raises(RunError, match="does not say which data it was made of: name it with --data"):
        origin.data_folder(alone)
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "run.json").write_text(json.dumps({"data": str(tmp_path / "gone")}))
    empty = tmp_path / "empty"
    shutil.copytree(folder, empty)
    (empty / "predictions.npz").unlink()
    for arguments, status, message in (
        ([alone], 1, "alone.npz does not say which data it was made of: name it with --data"),
        ([empty], 1, "tools/evaluate.py"),
        ([folder, "--rows", "0"], 2, "'0' is not a whole number of at least 1 and at most 20"),
        ([folder, "--rows", "21"], 2, "'21' is not a whole number of at least 1 and at most 20"),
        ([folder, "--class", "nin"], 1, "did you mean n00000009 (nine)?"),
        ([moved], 1, "gone, which is not there any more: name the data folder with --data"),
    ):
        done = script(*arguments, "--out", "a.png", cwd=tmp_path)
        assert done.returncode == status and done.stdout == "" and message in done.stderr
        assert done.stderr.startswith("visualize.py") and done.stderr.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
