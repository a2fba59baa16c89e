"""The parts of the report that look into runs: errors with their images, nets, classes."""

import base64
import hashlib
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from test_report import build, make_run, row, some_predictions
from tiny_imagenet import lmdb_reader, metrics, predictions, report_classes, report_gallery, report_nets
from tiny_imagenet.errors_figure import Mistake, mistakes
from tiny_imagenet.evaluate import evaluate_run
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
    assert report_gallery.choose(every, 2) == [every[0], every[2]]
    assert report_gallery.choose(every, 9) == every
    assert report_gallery.choose(every, 1) == [every[0]]
    assert report_gallery.choose([], 5) == []


def test_many_runs_show_fewer_images_each():
    assert [report_gallery.share(runs) for runs in (1, 8, 9, 27, 100)] == [60, 60, 53, 17, 12]


def test_the_gallery_has_the_images_of_the_data(evaluated, data):
    given = predictions.load(evaluated / "predictions.npz")
    every, images = mistakes(given)
    names = given.meta["class_names"]
    found = report_gallery.of(given, data, names)
    assert (found["errors"], found["images"], found["problem"]) == (len(every), images, "")
    assert len(found["tiles"]) == min(len(every), report_gallery.MOST) > 5
    stored = {key.partition("_")[2]: (label, image) for key, label, image in lmdb_reader.records(data / "val.lmdb")}
    for tile in found["tiles"]:
        label, image = stored[tile["image"]]
        assert label == tile["label"] and names[label] == tile["true"] != tile["predicted"]
        assert (shown(tile["address"]) == image.transpose(1, 2, 0)).all()
    counts = report_gallery.classes([found, found])
    assert sum(count for _, _, count in counts) == 2 * len(found["tiles"])
    assert [name for _, name, _ in counts] == sorted(name for _, name, _ in counts)


def test_images_that_cannot_be_shown_are_spoken_of(evaluated, data, tmp_path):
    given = predictions.load(evaluated / "predictions.npz")
    names = given.meta["class_names"]
    assert "nothing says" in report_gallery.of(given, None, names)["problem"]
    assert "gone" in report_gallery.of(given, tmp_path / "gone", names)["problem"]
    given.keys[:] = np.char.add(given.keys, "x")
    assert "not there" in report_gallery.of(given, data, names)["problem"]
    run = make_run(tmp_path / "one", data=str(tmp_path / "gone"))
    text, _page = build(tmp_path, [run])
    assert "which cannot be shown: " in text and str(tmp_path / "gone") in text and "<script" not in text


def test_a_run_without_errors_says_so(tmp_path):
    run = make_run(tmp_path / "one")
    given = some_predictions(1, 10)
    given.probabilities[:] = np.eye(10, dtype=np.float32)[given.labels]
    predictions.save(run / "predictions.npz", given)
    assert "images are predicted right" in build(tmp_path, [run])[0]


# --- the whole ---


def test_a_whole_page_has_its_script_alone_and_is_the_same_twice(evaluated, tmp_path):
    text, page = build(tmp_path, [evaluated, evaluated])
    (code,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src &#39;sha256-{digest}&#39;;" in policy or f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"\son[a-z]+=|javascript:", text.replace(code, ""))
    assert len(page.ids) == len(set(page.ids))
    assert {fragment[1:] for fragment in page.fragments} <= set(page.ids)
    assert build(tmp_path, [evaluated, evaluated])[0] == text


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
    written = report_classes.of(evaluation, None, None)
    assert written == report_classes.of({}, given, given.meta["class_names"])
    shares = metrics.per_class(given)
    rows = report_classes.worst([written, {}], 0, 3)
    assert [row["scores"][0] for row in rows] == [f"{100 * share:.1f}" for share in sorted(shares)[:3]]
    assert [row["scores"][1] for row in rows] == ["-"] * 3


@pytest.mark.parametrize("rows", [None, "x", [], [1], [{}], [{"words": "a", "top1": "x"}], [{"words": 1, "top1": 0.5}]])
def test_classes_that_somebody_edited_are_left_out(rows, tmp_path):
    assert report_classes.of({"per_class": rows}, None, None) == {}
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
