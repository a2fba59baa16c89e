"""The parts of the report that look into runs: errors with their images, nets, classes."""

import base64
import hashlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from test_report import build, change, make_run, row, some_predictions
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.evaluation import metrics, predictions
from tiny_imagenet.evaluation.evaluate import evaluate_run
from tiny_imagenet.report import gallery
from tiny_imagenet.report import nets as report_nets
from tiny_imagenet.report import predictions as report_predictions
from tiny_imagenet.report.errors_figure import Mistake, mistakes
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
    assert gallery.choose(every, 2) == [every[0], every[2]]
    assert gallery.choose(every, 9) == every
    assert gallery.choose(every, 1) == [every[0], every[2]]  # a class is not left out
    assert gallery.choose([], 5) == []
    assert gallery.choose(every, 2, lambda mistake: mistake is every[1]) == [every[1], every[2]]  # it is there


def test_every_class_that_is_wrong_is_there_as_true_and_as_predicted():
    rng = np.random.default_rng(3)
    pairs = [(label, said) for label, said in rng.integers(0, 200, (5000, 2)).tolist() if label != said]
    every = [Mistake(f"{n:08d}_x", label, said, rng.random()) for n, (label, said) in enumerate(pairs)]
    chosen = gallery.choose(every, gallery.MOST)
    assert {mistake.label for mistake in chosen} == {label for label, _ in pairs}
    assert {mistake.predicted for mistake in chosen} == {said for _, said in pairs}
    assert 200 <= len(chosen) < 320 and len(set(chosen)) == len(chosen)
    surest = {}
    for mistake in every:
        surest[mistake.label] = max(surest.get(mistake.label, mistake), mistake, key=lambda one: one.probability)
    assert set(surest.values()) <= set(chosen)


def test_a_picture_of_several_runs_is_on_the_page_once(evaluated, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(evaluated, tmp_path / name, symlinks=True)
    text, _page = build(tmp_path, [tmp_path / "one", tmp_path / "two"])
    assert (
        text.count("<symbol")
        == text.count("<image") - 1
        == len(set(re.findall(r'href="(data:image/[^"]*)"', text))) - 1
    )
    tiles = re.findall(r'<use href="(#picture-\d+)"/>', text)
    assert len(tiles) == 2 * text.count("<symbol") == 2 * len(set(tiles))


def test_pictures_are_small_and_look_the_same():
    from sklearn.datasets import load_sample_image

    photo = load_sample_image("china.jpg")[100:300, 200:400]
    photo = cv2.resize(photo, (64, 64), interpolation=cv2.INTER_AREA)
    address = gallery.address(photo)
    assert address.startswith("data:image/jpeg;base64,") and len(address) < 5000
    difference = shown(address).astype(float) - photo[:, :, ::-1]
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 30  # decibels
    plain = np.full((64, 64, 3), 7, np.uint8)
    assert gallery.address(plain).startswith("data:image/png;base64,")
    assert (shown(gallery.address(plain)) == plain).all()


def test_many_runs_show_fewer_images_each():
    assert [gallery.share(runs) for runs in (1, 8, 9, 27, 100)] == [60, 60, 53, 17, 12]


def test_the_gallery_has_the_images_of_the_data(evaluated, data):
    given = predictions.load(evaluated / "predictions.npz")
    every, images = mistakes(given)
    names = given.meta["class_names"]
    pictures = gallery.Pictures()
    found = gallery.of(given, data, names, pictures)
    assert (found["errors"], found["images"], found["problem"]) == (len(every), images, "")
    assert len(found["tiles"]) == min(len(every), gallery.MOST) > 5
    stored = {key.partition("_")[2]: (label, image) for key, label, image in lmdb_reader.records(data / "val.lmdb")}
    for tile in found["tiles"]:
        label, image = stored[tile["image"]]
        assert tile["label"] == (label, names[label]) != tile["said"] == (tile["said"][0], names[tile["said"][0]])
        picture = pictures.shown[tile["picture"]]
        assert (picture["height"], picture["width"]) == image.shape[1:]
        assert np.abs(shown(picture["address"]).astype(int) - image.transpose(1, 2, 0)).mean() < 4
    for which in ("label", "said"):
        counts = gallery.classes([found, found], which)
        assert sum(count for _, count in counts) == 2 * len(found["tiles"])
        assert [name for (_, name), _ in counts] == sorted(name for (_, name), _ in counts)
    again = gallery.of(given, data, names, pictures)
    assert again["tiles"] == found["tiles"] and len(pictures.shown) == len(found["tiles"])


def test_classes_of_one_number_and_other_names_are_told_apart():
    tiles = [{"label": (1, "a"), "said": (2, "b")}, {"label": (1, "c"), "said": (2, "b")}]
    assert gallery.ids([{"tiles": tiles}]) == {(1, "a"): "1 a", (1, "c"): "1 c", (2, "b"): "2"}


def test_images_that_cannot_be_shown_are_spoken_of(evaluated, data, tmp_path):
    given = predictions.load(evaluated / "predictions.npz")
    names = given.meta["class_names"]
    pictures = gallery.Pictures()
    assert "nothing says" in gallery.of(given, None, names, pictures)["problem"]
    assert "gone" in gallery.of(given, tmp_path / "gone", names, pictures)["problem"]
    given.keys[:] = np.char.add(given.keys, "x")
    assert "not there" in gallery.of(given, data, names, pictures)["problem"]
    assert pictures.shown == []
    run = make_run(tmp_path / "one", data=str(tmp_path / "gone"))
    text, _page = build(tmp_path, [run])
    assert "which cannot be shown: " in text and str(tmp_path / "gone") in text and "<script" not in text


def test_data_that_was_moved_is_told_of_and_can_be_named(evaluated, data, tmp_path, tool, capsys):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run, symlinks=True)
    for name in ("run.json", "evaluation.json"):
        change(run / name, data=str(tmp_path / "gone"))
    text, _page = build(tmp_path, [run])
    assert f"{tmp_path / 'gone'} is not there any more: --data DIR says where it is" in text
    assert "--data DIR says where it is" in capsys.readouterr().err
    assert build(tmp_path, [run], data=data)[0].count("<symbol") > 5
    change(run / "run.json", data=str(data))  # where one of the files names a folder that is there
    assert build(tmp_path, [run])[0].count("<symbol") > 5
    done = tool("report", run, "--data", data, "--out", tmp_path / "page.html")
    assert done.stderr == "" and "<symbol" in (tmp_path / "page.html").read_text()
    error = tool("report", run, "--data", tmp_path / "gone", "--out", tmp_path / "page.html", fails=2).stderr
    assert "is no folder: name one that tools/convert.py wrote" in error


def test_a_run_without_errors_says_so(tmp_path):
    run = make_run(tmp_path / "one")
    given = some_predictions(1, 10)
    given.probabilities[:] = np.eye(10, dtype=np.float32)[given.labels]
    predictions.save(run / "predictions.npz", given)
    assert "images are predicted right" in build(tmp_path, [run])[0]


# --- the whole ---


def test_a_whole_page_has_its_script_alone_and_is_the_same_twice(evaluated, tmp_path):
    shutil.copytree(evaluated, tmp_path / "other", symlinks=True)
    runs = [evaluated, tmp_path / "other"]
    text, page = build(tmp_path, runs)
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy or f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"\son[a-z]+=|javascript:", text.replace(code, ""))
    assert len(page.ids) == len(set(page.ids))
    assert {fragment[1:] for fragment in page.fragments} <= set(page.ids)
    assert build(tmp_path, runs)[0] == text


# --- nets ---


def test_a_net_is_shown_once_with_its_layers_and_totals(evaluated, tmp_path):
    (net,) = report_nets.of([("a", evaluated / "deploy.prototxt"), ("b", evaluated / "deploy.prototxt")])
    assert net["runs"] == ["a", "b"] and net["problem"] == ""
    rows = {row["layer"]: row for row in net["rows"]}
    assert rows["conv1_1"] == {
        "layer": "conv1_1",
        "type": "Convolution 3x3",
        "output": "1 \N{MULTIPLICATION SIGN} 4 \N{MULTIPLICATION SIGN} 6 \N{MULTIPLICATION SIGN} 6",
        "parameters": "112",
        "multiply_adds": "3,888",
    }
    assert rows["lrelu1_1"]["output"].endswith(" in place")
    assert net["totals"] == ("1,562", "5,328")
    _text, page = build(tmp_path, [evaluated])
    assert row(page, "conv1_1")[3:] == ["112", "3,888"] and row(page, "In all")[1:] == ["1,562", "5,328"]


def test_a_net_that_is_missing_or_broken_does_not_stop_the_page(tmp_path):
    assert report_nets.of([("a", tmp_path / "deploy.prototxt")]) == []
    run = make_run(tmp_path / "one")
    (run / "deploy.prototxt").write_text('layer { name: "a" typo: "b" }')
    text, page = build(tmp_path, [run])
    assert "The net cannot be shown: " in text and "typo" in text and row(page, "model1")


def test_the_drawing_is_whole_has_its_own_ids_and_may_be_missing(evaluated, monkeypatch, tmp_path):
    nets = [("a", evaluated / "deploy.prototxt")]
    if shutil.which("dot") is None:
        pytest.skip("no graphviz here")
    svg = str(report_nets.of(nets)[0]["drawing"])
    assert svg.startswith('<svg role="img"') and "<title>" not in svg and "<!--" not in svg
    assert all(name.startswith("net-1-") for name in re.findall(r'\bid="([^"]*)"', svg))
    width, height = map(float, re.search(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg).groups())
    scale = re.search(r"scale\((\S+)", svg)
    corners = re.search(r'<polygon [^>]*points="([^"]*)"', svg)[1].split()
    x, y = zip(*(map(float, corner.split(",")) for corner in corners))
    factor = float(scale[1]) if scale else 1
    assert (max(x) - min(x)) * factor == pytest.approx(width, rel=0.02)
    assert (max(y) - min(y)) * factor == pytest.approx(height, rel=0.02)
    monkeypatch.setenv("PATH", str(tmp_path))
    (net,) = report_nets.of(nets)
    assert net["drawing"] is None and net["rows"]
    assert 'class="card"' not in build(tmp_path, [evaluated])[0]


# --- classes ---


def test_the_worst_classes_are_the_same_from_either_file(evaluated):
    evaluation = json.loads((evaluated / "evaluation.json").read_text())
    given = predictions.load(evaluated / "predictions.npz")
    written = report_predictions.class_scores(evaluation, None, None)
    assert written == report_predictions.class_scores({}, given, given.meta["class_names"])
    shares = metrics.per_class(given)
    rows = report_predictions.worst_classes([written, {}], 3)
    assert [row["number"] for row in rows] == [str(index) for index in np.argsort(shares, kind="stable")[:3]]
    assert [row["scores"][0] for row in rows] == [f"{100 * share:.1f}" for share in sorted(shares)[:3]]
    assert [row["scores"][1] for row in rows] == ["-"] * 3


def test_the_mean_of_several_runs_classes():
    one = {(0, "a"): {"name": "a", "count": 4, "top1": 0.5, "predicted": 3}, (1, "b"): {"name": "b"}}
    two = {(0, "a"): {"name": "a", "count": 4, "top1": 1.0, "predicted": 4}}
    means = report_predictions.mean_scores([one, two])
    assert means == {(0, "a"): {"name": "a", "count": 4, "top1": 0.75, "predicted": 3.5}}


def test_class_numbers_have_names_on_the_page(tmp_path):
    run = make_run(tmp_path / "one", classes=40)
    given = predictions.load(run / "predictions.npz")
    given.meta["class_names"] = [f"name {number}" for number in range(40)]
    predictions.save(run / "predictions.npz", given)
    text, page = build(tmp_path, [run])
    assert all(f"<li><b>{number}</b>name {number}</li>" in text for number in range(40))
    start = page.rows.index(["True class", "No.", "Taken for", "No.", "Images", "Of"]) + 1
    for cells in page.rows[start : start + 8]:
        assert (cells[0], cells[2]) == (f"name {cells[1]}", f"name {cells[3]}")
    start = next(n for n, cells in enumerate(page.rows) if cells[:2] == ["Class", "No."]) + 1
    assert all(cells[0] == f"name {cells[1]}" for cells in page.rows[start : start + 12])


@pytest.mark.parametrize("rows", [None, "x", [], [1], [{}], [{"words": "a", "top1": "x"}], [{"words": 1, "top1": 0.5}]])
def test_classes_that_somebody_edited_are_left_out(rows, tmp_path):
    assert report_predictions.class_scores({"per_class": rows}, None, None) == {}
    run = make_run(tmp_path / "one")
    scores = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**scores, "per_class": rows}))
    (run / "predictions.npz").unlink()
    assert 'id="classes"' not in build(tmp_path, [run])[0]


# --- how it was made ---


def test_several_sessions_are_listed(tmp_path):
    sessions = [{"argv": ["tools/train.py", "model1"], "started": "then", "commit": "abc"}, 1, {"argv": ["again"]}]
    text, _page = build(tmp_path, [make_run(tmp_path / "one", sessions=sessions)])
    assert "in 2 sessions" in text and "then, commit abc" in text and "<code>again</code>" in text
    for number, less in enumerate((None, 3, [], sessions[:2])):
        text, _page = build(tmp_path, [make_run(tmp_path / str(number), sessions=less)])
        assert "sessions:" not in text
