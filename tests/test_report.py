import json
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import PredictionsError, RunError, TinyImageNetError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import page as report
from tiny_imagenet.report import predictions as report_predictions

ROOT = Path(__file__).parent.parent
VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """The rows of a page's tables, its ids, links and addresses; fails on elements that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.ids, self.fragments, self.addresses = [], [], [], []
        self.stack, self.cell = [], None
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        for name in ("href", "src", "xlink:href", "srcset", "action"):
            if name in values:
                (self.fragments if values[name].startswith("#") else self.addresses).append(values[name])
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = ""

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag
        if tag in ("td", "th"):
            self.rows[-1].append(" ".join(self.cell.split()))
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data


def some_predictions(seed=0, classes=10, count=200, **meta):
    labels = np.random.default_rng(1).integers(0, classes, count)
    generator = np.random.default_rng(seed)
    probabilities = generator.random((count, classes)) + 0.01
    probabilities[np.arange(count), labels] += 0.6
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    keys = np.array([f"{index:08d}_val_{index}.JPEG" for index in range(count)])
    return Predictions(keys, labels, probabilities.astype(np.float32), meta)


def make_run(folder, model="model1", classes=10, seed=1, evaluated=True, **info):
    folder.mkdir(parents=True)
    content = {
        "model": model,
        "argv": ["tools/train.py", model, "--data", "my data", "--run", folder.name],
        "seed": seed,
        "batch": 50,
        "classes": classes,
        "train_images": 4000,
        "versions": {"python": "3.11.2", "numpy": "1.26.4", "caffe": "1.0.0", "tiny_imagenet": "0.1.0"},
        "commit": None,
        "machine": {"cores": 2},
        "started": "2024-05-01T10:00:00+00:00",
        "nonlinearity": "ReLU",
        "screened": False,
        "parameters": 1969544,
        "data": "my data",
        **info,
    }
    (folder / "run.json").write_text(json.dumps(content))
    with open(folder / "metrics.jsonl", "w") as stream:
        for index in range(1, 21):
            line = {"iteration": 10 * index, "train_loss": 2 / index, "top1": index / 25 if index % 5 == 0 else None}
            stream.write(json.dumps(line) + "\n")
    if evaluated:
        about = {"split": "val", "crops": "centre"}
        made = {"model": model, "run": str(folder), "checkpoint": "best", "iteration": 200}
        given = some_predictions(seed, classes, **about, **made)
        predictions.save(folder / "predictions.npz", given)
        extra = {"checkpoint": 200, "net": "deploy.prototxt", "predictions": "predictions.npz"}
        (folder / "evaluation.json").write_text(json.dumps({**metrics.summary(given), **about, **extra}))
    return folder


def make_ensemble(path, *runs, search=False, weights=None):
    members = [predictions.load(run / "predictions.npz") for run in runs]
    result = ensemble.describe(members, ensemble.average(members, weights), weights)
    if search:
        result["search"] = {"note": ensemble.OPTIMISTIC}
    path.write_text(json.dumps(result))
    return path


def change(path, **values):
    """Put values into a JSON file; one of None goes."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def build(tmp_path, runs, ensembles=(), data=None):
    report.build(runs, tmp_path / "report.html", ensembles, data)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def row(page, name):
    return next(cells for cells in page.rows if cells and cells[0] == name)


# --- the page ---


def test_a_row_shows_the_run_beside_the_paper(tmp_path):
    run = make_run(tmp_path / "runs" / "one")
    summary = metrics.summary(predictions.load(run / "predictions.npz"))
    text, page = build(tmp_path, [run])
    cells = row(page, "model1")
    assert cells[1] == f"{100 * summary['top1']:.2f}"
    low, high = summary["top1_interval"]
    assert cells[2] == f"{100 * low:.2f} to {100 * high:.2f}"
    assert cells[3:6] == ["37.27†", f"{100 * summary['top5']:.2f}", f"{100 * summary['error']:.2f}"]
    assert cells[6:] == ["ReLU", "no", "1,969,544", "200", "4,000"]
    assert "Not comparable with the paper" in text and "these of\n10 classes" in text
    assert "tools/train.py model1 --data &#39;my data&#39; --run one" in text
    for shown in ("3.11.2", "1.26.4", "2024-05-01T10:00:00+00:00"):
        assert shown in text


def test_two_hundred_classes_are_compared_without_a_note(tmp_path):
    run = make_run(tmp_path / "model9", "model9", classes=200, screened=True, nonlinearity="ReLU")
    text, page = build(tmp_path, [run])
    assert row(page, "model9")[3] == "59.50" and row(page, "model9")[7] == "yes"
    assert "Not comparable" not in text and "orange the paper" in text


def test_ensembles_have_their_own_rows(tmp_path):
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in [(1, "model8"), (2, "model9")]]
    files = [
        make_ensemble(tmp_path / "a.json", *runs),
        make_ensemble(tmp_path / "b.json", runs[1], runs[0], search=True),
    ]
    text, page = build(tmp_path, runs, files)
    average = ensemble.average([predictions.load(run / "predictions.npz") for run in runs])
    cells = row(page, "Ensemble of model8 + model9")
    assert (
        cells[1] == f"{100 * metrics.top_k(average, 1):.2f}" and cells[3] == "61.23†" and cells[-1] == "equal weights"
    )
    assert row(page, "Ensemble of model9 + model8‡")[3] == "-"  # the paper's is of equal weights
    assert "optimistic" in text
    assert f"tools/ensemble.py {runs[0]}/predictions.npz {runs[1]}/predictions.npz --json" in text


def test_the_page_needs_nothing_else_and_is_sound(tmp_path):
    names = [f"class {number}" for number in range(10)]
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in enumerate(("model1", "model2"))]
    given = predictions.load(runs[1] / "predictions.npz")
    given.meta["class_names"] = names
    predictions.save(runs[1] / "predictions.npz", given)
    text, page = build(tmp_path, runs)
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)|<script|<iframe", text)
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert {fragment[1:] for fragment in page.fragments} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert text.count("<svg") == 3 and text.count('role="img"') == 3
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text


def test_the_same_files_give_the_same_bytes(tmp_path):
    runs = [make_run(tmp_path / "model1")]
    first, _page = build(tmp_path, runs)
    assert build(tmp_path, runs)[0] == first


def test_the_best_run_is_the_one_whose_confusion_is_shown(tmp_path):
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in enumerate(("model1", "model2", "model3"))]
    loaded = [predictions.load(run / "predictions.npz") for run in runs]
    best = int(np.argmax([metrics.top_k(given, 1) for given in loaded]))
    text, page = build(tmp_path, runs)
    assert f"<strong>model{best + 1}</strong> does best" in text
    assert f"mistakes of model{best + 1}" in text
    counts = metrics.confusion(loaded[best])
    np.fill_diagonal(counts, 0)
    start = page.rows.index(["True class", "No.", "Taken for", "No.", "Images", "Of"]) + 1
    listed = [int(cells[4]) for cells in page.rows[start : start + report_predictions.PAIRS]]
    assert listed == sorted(counts.ravel(), reverse=True)[: report_predictions.PAIRS]
    first = page.rows[start]
    assert first[0] == first[1] and first[2] == first[3]  # nobody knows names
    assert counts[int(first[1]), int(first[3])] == counts.max()


def test_runs_of_one_model_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / name, "model1", seed=seed) for seed, name in enumerate("ab")]
    _text, page = build(tmp_path, runs)
    assert row(page, "model1 (a)") and row(page, "model1 (b)")
    runs = [make_run(tmp_path / name / "run", "model1", seed=seed) for seed, name in enumerate("cd")]
    _text, page = build(tmp_path, runs)
    assert row(page, "model1 (c/run)") and row(page, "model1 (d/run)")


def test_a_run_that_is_given_twice_is_shown_once(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "one", data=None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(run)
    text, page = build(tmp_path, [run, "one", "link"])
    assert "results of 1 run<" in text and [cells[0] for cells in page.rows].count("model1") == 1
    said = capsys.readouterr().err
    assert "one is given twice and shown once" in said and "link is given twice" in said


def test_names_cannot_become_markup(tmp_path):
    evil = '<script>alert("1")</script>'
    run = make_run(tmp_path / "one", evil, nonlinearity=evil, commit=evil, argv=[evil], versions={evil: evil})
    given = predictions.load(run / "predictions.npz")
    given.meta["class_names"] = [f"{evil}{number}" for number in range(10)]
    predictions.save(run / "predictions.npz", given)
    text, page = build(tmp_path, [run, make_run(tmp_path / "two", evil + "2")])
    assert "<script" not in text and row(page, evil)[6] == evil


def test_class_names_come_from_the_data_where_the_meta_has_none(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    run = make_run(tmp_path / "one", data=str(data))
    text, page = build(tmp_path, [run])
    assert "Which class has which number" not in text and row(page, "3")[1] == "3"
    classes = [{"index": index, "wnid": f"n{index}", "words": f"word{index}, other"} for index in range(10)]
    entry = {"format": lmdb_reader.FORMAT, "classes": classes, "lmdbs": {}, "mean": "mean.binaryproto", "seed": 0}
    (data / "manifest.json").write_text(json.dumps(entry))
    text, page = build(tmp_path, [run])
    assert "<li><b>3</b>word3, other</li>" in text and row(page, "word3, other")[1] == "3"


# --- what is missing ---


def test_a_run_without_evaluation_says_what_to_do(tmp_path):
    run = make_run(tmp_path / "one", evaluated=False)
    text, page = build(tmp_path, [run])
    assert row(page, "model1")[1] == f"not evaluated: run tools/evaluate.py {run}"
    assert "No run has been evaluated yet" in text and 'id="confusion"' not in text


def test_an_evaluation_without_its_predictions_has_scores_but_no_confusion(tmp_path):
    run = make_run(tmp_path / "one")
    (run / "predictions.npz").unlink()
    text, page = build(tmp_path, [run])
    assert float(row(page, "model1")[1]) > 0 and 'id="confusion"' not in text


@pytest.mark.parametrize("kind", ["above", "absolute", "link", "nul", "long"])
def test_predictions_that_lie_outside_the_run_are_not_read(tmp_path, kind):
    run = make_run(tmp_path / "runs" / "one")
    outside = tmp_path / "other.npz"
    (run / "predictions.npz").rename(outside)
    names = {
        "above": "../../other.npz",
        "absolute": str(outside),
        "link": "link.npz",
        "nul": "a\0b",
        "long": "x" * 5000,
    }
    (run / "link.npz").symlink_to(outside)
    scores = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**scores, "predictions": names[kind]}))
    assert report.read(run).predictions is None
    text, page = build(tmp_path, [run])
    assert float(row(page, "model1")[1]) > 0 and 'id="confusion"' not in text


def test_predictions_below_the_run_are_read_however_the_run_is_named(tmp_path, monkeypatch):
    run = make_run(tmp_path / "one")
    (run / "sub").mkdir()
    (run / "predictions.npz").rename(run / "sub" / "p.npz")
    scores = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**scores, "predictions": "sub/p.npz"}))
    (tmp_path / "linked").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    for name in ("one", "linked", "one/../one", run):
        assert report.read(name).predictions.samefile(run / "sub" / "p.npz")


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"model": None, "argv": None, "versions": None, "machine": [], "classes": None},
        {
            "model": 7,
            "argv": "train it",
            "versions": [1],
            "parameters": "many",
            "screened": "maybe",
            "train_images": True,
        },
        {
            "model": {"a": 1},
            "classes": "ten",
            "nonlinearity": [],
            "screened": [],
            "parameters": float("nan"),
            "data": 5,
        },
    ],
)
def test_a_run_that_somebody_edited_still_has_its_place(tmp_path, info):
    folder = tmp_path / "edited"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    text, page = build(tmp_path, [folder])
    cells = row(page, "edited")
    assert cells[2:] == ["-"] * 8
    assert "Nothing has been recorded yet" in text
    (folder / "evaluation.json").write_text(
        '{"top1": "good", "top1_interval": 3, "count": null, "top5": 7, "error": []}'
    )
    (folder / "metrics.jsonl").write_text('\n[1]\n{"iteration": "x", "train_loss": 1}\n{"iteration": 4, "train_lo')
    assert row(build(tmp_path, [folder])[1], "edited unknown split, centre crop")[1:] == ["-"] * 10


def test_half_a_last_line_is_left_out_and_a_broken_one_named(tmp_path):
    run = make_run(tmp_path / "one")
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 210, "tr')
    assert len(report.read(run).records) == 20
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('\n{"iteration": 220}\n')
    with pytest.raises(RunError, match=r"metrics\.jsonl: line 21 is not JSON"):
        report.read(run)


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    run = make_run(tmp_path / "one")
    (tmp_path / "file").write_text("")
    for path, message in [
        ("none", r"tools/train\.py"),
        ("file", "no such run folder"),
        ("empty", "it has no run.json"),
    ]:
        with pytest.raises(RunError, match=message) as caught:
            report.build([run, tmp_path / path], tmp_path / "report.html")
        assert str(tmp_path / path) in str(caught.value)
    with pytest.raises(RunError, match="at least one"):
        report.build([], tmp_path / "report.html")
    for name in ("evaluation.json", "run.json"):
        for content in ("{", "[]"):
            (run / name).write_text(content)
            with pytest.raises(RunError, match=name):
                report.read(run)
        (run / name).unlink()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "content", [None, "", "[]", "{}", '{"members": [1], "ensemble": {}}', '{"members": [], "ensemble": 1}']
)
def test_what_is_no_ensemble_is_refused(tmp_path, content):
    run = make_run(tmp_path / "one")
    if content is not None:
        (tmp_path / "e.json").write_text(content)
    with pytest.raises(PredictionsError, match=r"e\.json: .*tools/ensemble\.py"):
        report.build([run], tmp_path / "report.html", [tmp_path / "e.json"])


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    run = make_run(tmp_path / "one")
    with pytest.raises(TinyImageNetError, match="cannot write"):
        report.build([run], run / "run.json" / "report.html")


# --- the script ---


def script(*arguments, cwd):
    command = [sys.executable, str(ROOT / "tools" / "report.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_script_takes_what_the_ensemble_script_prints(tmp_path):
    for seed, name in [(1, "model8"), (2, "model9")]:
        make_run(tmp_path / name, name, seed=seed)
    command = [sys.executable, str(ROOT / "tools" / "ensemble.py"), "model8/predictions.npz", "model9/predictions.npz"]
    with open(tmp_path / "both.json", "w") as stream:
        subprocess.run([*command, "--weights", "1", "2", "--json"], cwd=tmp_path, stdout=stream, check=True)
    done = script("model8", "model9", "--ensemble", "both.json", "--out", "report.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "report.html\n")
    assert done.stderr == (  # one line for all
        "note: the errors of model8, model9 are not shown: my data is not there any more: --data DIR says where it is\n"
    )
    cells = row(Page((tmp_path / "report.html").read_text(encoding="utf-8")), "Ensemble of model8 + model9")
    assert cells[-1] == "weights 0.333, 0.667"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--out", "report.html"], 2, "RUN"),
        (["one"], 2, "--out"),
        (["one", "--out", "one"], 2, "one does not end in .html"),
        (["one", "--out", "a.html"], 2, "a.html is a folder"),
        (["none", "--out", "report.html"], 1, "none: no such run folder"),
        (["one", "--ensemble", "none.json", "--out", "report.html"], 1, "none.json: no such file"),
    ],
)
def test_the_script_refuses_in_one_line_and_leaves_nothing(tmp_path, arguments, status, message):
    before = {make_run(tmp_path / "one"), tmp_path / "a.html"}
    (tmp_path / "a.html").mkdir()
    done = script(*arguments, cwd=tmp_path)
    assert done.returncode == status and done.stdout == ""
    assert done.stderr.startswith("report.py: error: ") and done.stderr.count("\n") == 1 and message in done.stderr
    assert set(tmp_path.iterdir()) == before
