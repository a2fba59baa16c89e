"""The report's errors, worst classes and nets."""

import base64
import hashlib
import re
import shutil

import cv2
import numpy as np
import pytest

from test_report import build, change, make_run, row, some_predictions
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.evaluation import metrics, predictions
from tiny_imagenet.evaluation.evaluate import evaluate_run
from tiny_imagenet.report import folders, mistakes, nets
from tiny_imagenet.report.errors_figure import Mistake
from tiny_imagenet.runs import Run


@pytest.fixture(scope="module")
def evaluated(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained, folder, symlinks=True)
    evaluate_run(Run(folder))
    return folder


def shown(address):
    raw = base64.b64decode(address.partition(",")[2])
    return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)


# --- errors ---


def test_each_class_gives_one_error_before_any_gives_two():
    every = [Mistake(f"{n:08d}_x", label, 9, share) for n, (label, share) in enumerate([(0, 0.9), (0, 0.8), (1, 0.3)])]
    assert mistakes.choose(every, 2) == [every[0], every[2]]
    assert mistakes.choose(every, 9) == every
    assert mistakes.choose(every, 1) == [every[0], every[2]]  # no class is left out
    assert mistakes.choose([], 5) == []
    assert mistakes.choose(every, 2, {every[1].key}) == [every[1], every[2]]  # the page has its picture


def test_every_misclassified_class_is_shown_as_true_and_as_predicted():
    rng = np.random.default_rng(3)
    pairs = [(label, predicted) for label, predicted in rng.integers(0, 200, (5000, 2)).tolist() if label != predicted]
    every = [Mistake(f"{n:08d}_x", label, predicted, rng.random()) for n, (label, predicted) in enumerate(pairs)]
    chosen = mistakes.choose(every, mistakes.MOST)
    assert {mistake.label for mistake in chosen} == {label for label, _ in pairs}
    assert {mistake.predicted for mistake in chosen} == {predicted for _, predicted in pairs}
    assert 200 <= len(chosen) < 320 and len(set(chosen)) == len(chosen)
    surest = {}
    for mistake in every:
        surest[mistake.label] = max(surest.get(mistake.label, mistake), mistake, key=lambda one: one.probability)
    assert set(surest.values()) <= set(chosen)


def test_pictures_are_small_and_look_the_same():
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("china.jpg")[100:300, 200:400]
    photo = cv2.resize(photo, (64, 64), interpolation=cv2.INTER_AREA)
    address = mistakes.address(photo)
    assert address.startswith("data:image/jpeg;base64,") and len(address) < 5000
    difference = shown(address).astype(float) - photo[:, :, ::-1]
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 30  # decibels
    plain = np.full((64, 64, 3), 7, np.uint8)
    assert mistakes.address(plain).startswith("data:image/png;base64,")
    assert (shown(mistakes.address(plain)) == plain).all()


def test_the_gallery_has_the_images_of_the_data(evaluated, data):
    (folder,) = folders.read([evaluated])
    found = mistakes.gallery([folder, folder], None)
    one, other = found["runs"]
    wrong = int((folder.given.probabilities.argmax(axis=1) != folder.given.labels).sum())
    assert (one["errors"], one["images"], one["problem"]) == (wrong, 40, "")
    assert len(one["tiles"]) == min(wrong, mistakes.MOST) and one["tiles"] == other["tiles"]
    assert len(found["pictures"]) == len(one["tiles"])  # each once
    names = folder.given.meta["class_names"]
    stored = {key.partition("_")[2]: (label, image) for key, label, image in lmdb_reader.records(data / "val.lmdb")}
    for tile in one["tiles"]:
        label, image = stored[tile["image"]]
        assert (
            tile["label"]
            == (label, names[label])
            != tile["predicted"]
            == (tile["predicted"][0], names[tile["predicted"][0]])
        )
        picture = found["pictures"][tile["picture"]]
        assert (picture["height"], picture["width"]) == image.shape[1:]
        assert np.abs(shown(picture["address"]).astype(int) - image.transpose(1, 2, 0)).mean() < 4
    for which in ("labels", "predicted"):
        assert sum(count for _, count in found[which]) == 2 * len(one["tiles"])


def test_data_that_was_moved_can_be_named(evaluated, data, tmp_path, tool, capsys):
    run = shutil.copytree(evaluated, tmp_path / "run", symlinks=True)
    for name in ("run.json", "evaluation.json"):
        change(run / name, data=str(tmp_path / "gone"))
    text, _page = build(tmp_path, [run])
    assert str(tmp_path / "gone") in text and "<script" not in text
    assert str(tmp_path / "gone") in capsys.readouterr().err
    assert build(tmp_path, [run], data=data)[0].count("<symbol") > 5
    change(run / "run.json", data=str(data))  # one of the files names an existing folder
    assert build(tmp_path, [run])[0].count("<symbol") > 5
    done = tool("report", run, "--data", data, "--out", tmp_path / "page.html")
    assert done.stderr == "" and "<symbol" in (tmp_path / "page.html").read_text()


def test_a_run_without_errors(tmp_path):
    run = make_run(tmp_path / "one")
    given = some_predictions(1, 10)
    given.probabilities[:] = np.eye(10, dtype=np.float32)[given.labels]
    predictions.save(run / "predictions.npz", given)
    assert "All 200 images" in build(tmp_path, [run])[0]


def test_the_policy_allows_the_page_s_own_script_only(evaluated, tmp_path):
    text, page = build(tmp_path, [evaluated])
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"\son[a-z]+=|javascript:", text.replace(code, ""))


# --- nets ---


def test_a_net_is_shown_once_with_its_layers_and_totals(evaluated, tmp_path):
    folder = folders.read([evaluated])[0]
    (net,) = nets.of([folder, folder])
    assert net["runs"] == ["tiny (run)"] * 2 and net["problem"] == ""
    times = "\N{MULTIPLICATION SIGN}"
    assert ["conv1_1", "Convolution 3x3", f"1 {times} 4 {times} 6 {times} 6", "112", "3,888"] in net["rows"]
    assert net["totals"] == ("1,562", "5,328")
    _text, page = build(tmp_path, [evaluated])
    assert row(page, "conv1_1")[3:] == ["112", "3,888"] and row(page, "Total")[3:] == ["1,562", "5,328"]


def test_a_net_that_is_missing_or_broken_does_not_stop_the_page(tmp_path):
    run = make_run(tmp_path / "model1")
    assert nets.of(folders.read([run])) == []
    (run / "deploy.prototxt").write_text('layer { name: "a" typo: "b" }')
    text, page = build(tmp_path, [run])
    assert "typo" in text and row(page, "model1")


def test_the_drawing_is_whole_and_optional(evaluated, monkeypatch, tmp_path):
    several = folders.read([evaluated])
    if shutil.which("dot") is None:
        pytest.skip("graphviz is not installed")
    svg = str(nets.of(several)[0]["drawing"])
    assert svg.startswith('<svg role="img"') and "viewBox" in svg and "<!--" not in svg
    assert all(name.startswith("net-1-") for name in re.findall(r'\bid="([^"]*)"', svg))
    monkeypatch.setenv("PATH", str(tmp_path))
    (net,) = nets.of(several)
    assert net["drawing"] is None and net["rows"]


# --- classes ---


def test_the_worst_classes_are_the_same_from_either_file(evaluated, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run", symlinks=True)
    (written,) = folders.read([run])
    change(run / "evaluation.json", per_class=None)  # as written by earlier versions
    (computed,) = folders.read([run])
    keys = ("count", "top1", "predicted")
    one, other = (
        {key: [row[k] for k in keys] for key, row in folder.classes.items()} for folder in (written, computed)
    )
    assert one == other and len(one) == 10
    shares = np.array([row["top1"] for row in metrics.class_scores(written.given)])
    _text, page = build(tmp_path, [run])
    start = next(n for n, cells in enumerate(page.rows) if cells[:2] == ["Class", "No."]) + 1
    order = np.argsort(shares, kind="stable").tolist()
    listed = page.rows[start : start + 10]
    assert [int(cells[1]) for cells in listed] == order
    assert [cells[4] for cells in listed] == [f"{100 * shares[number]:.1f}" for number in order]


def test_the_mean_of_several_runs_classes():
    one = {(0, "a"): {"count": 4, "top1": 0.5, "predicted": 3}, (1, "b"): {"count": 4}}
    two = {(0, "a"): {"count": 4, "top1": 1.0, "predicted": 4}}
    assert mistakes.mean_scores([one, two]) == {(0, "a"): {"count": 4, "top1": 0.75, "predicted": 3.5}}


def test_class_numbers_have_names_on_the_page(tmp_path):
    run = make_run(tmp_path / "one", classes=40)
    given = predictions.load(run / "predictions.npz")
    given.meta["class_names"] = [f"name {number}" for number in range(40)]
    predictions.save(run / "predictions.npz", given)
    text, page = build(tmp_path, [run])
    assert all(f"<li><b>{number}</b>name {number}</li>" in text for number in range(40))
    start = next(number for number, cells in enumerate(page.rows) if cells[:1] == ["True class"]) + 1
    for cells in page.rows[start : start + 8]:
        assert (cells[0], cells[2]) == (f"name {cells[1]}", f"name {cells[3]}")
