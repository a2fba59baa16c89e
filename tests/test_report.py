"""The report: rows of runs, their training, and missing files."""

import json
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest

from tiny_imagenet import runs as run_folders
from tiny_imagenet.errors import PredictionsError, RunError, TinyImageNetError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import folders
from tiny_imagenet.report import page as report

VOID = {"meta", "link", "br", "img", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Rows of tables, ids, links and addresses of a page; elements must nest."""

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
        "base_lr": 0.01,
        "max_iter": 200,
        "nonlinearity": "ReLU",
        "screened": False,
        "parameters": 1969544,
        "data": "my data",
        **info,
    }
    (folder / "run.json").write_text(json.dumps(content))
    with open(folder / "metrics.jsonl", "w") as stream:
        for index in range(1, 21):
            line = {"iteration": 10 * index, "epoch": index / 4, "learning_rate": 0.01, "train_loss": 2 / index}
            line |= {"images_per_second": 50, "top1": index / 25 if index % 5 == 0 else None}
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
    """Change values of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def build(tmp_path, runs, ensembles=(), data=None):
    report.build(runs, tmp_path / "report.html", ensembles, data)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def row(page, name):
    return next(cells for cells in page.rows if cells and cells[0] == name)


def rows_of(page, name):
    return [cells for cells in page.rows if cells and cells[0] == name]


# --- the page ---


def test_a_row_shows_scores_and_settings(tmp_path):
    run = make_run(tmp_path / "runs" / "one", seed=7)
    summary = metrics.summary(predictions.load(run / "predictions.npz"))
    text, page = build(tmp_path, [run])
    cells = row(page, "model1 (one)")
    low, high = summary["top1_interval"]
    assert cells[1:3] == [f"{100 * summary['top1']:.2f}", f"{100 * low:.2f} to {100 * high:.2f}"]
    assert cells[3:6] == [f"{100 * summary['top5']:.2f}", f"{100 * summary['error']:.2f}", "37.27†"]
    assert cells[6:] == ["ReLU", "no", "1,969,544", "50", "0.01", "7"]
    assert 'id="not-comparable"' in text  # 10 classes
    assert "tools/train.py model1 --data &#39;my data&#39; --run one" in text
    for shown in ("3.11.2", "1.26.4", "2024-05-01T10:00:00+00:00"):
        assert shown in text


def test_two_hundred_classes_are_comparable_with_the_paper(tmp_path):
    run = make_run(tmp_path / "model9", "model9", classes=200, screened=True)
    text, page = build(tmp_path, [run])
    assert row(page, "model9")[5] == "59.50" and row(page, "model9")[7] == "yes"
    assert 'id="not-comparable"' not in text


def test_a_training_has_its_last_records(tmp_path):
    run = make_run(tmp_path / "model1", finished={"seconds": 4000})
    _text, page = build(tmp_path, [run])
    cells = rows_of(page, "model1")[1]
    assert cells[1:] == ["finished", "200 of 200", "5", "0.01", "0.1", "80.00", "50", "4,000", "1 h 07 min"]
    change(run / "run.json", finished=None)
    assert rows_of(build(tmp_path, [run])[1], "model1")[1][1] == "not finished"


def test_a_running_training_is_reported_with_its_remaining_time(tmp_path):
    run = make_run(tmp_path / "model1", evaluated=False, max_iter=7400)
    with run_folders.reopen(run):  # holds the lock, as training does
        assert report.build([run], tmp_path / "report.html", refresh=60)
        text = (tmp_path / "report.html").read_text()
    cells = rows_of(Page(text), "model1")[1]
    assert cells[1:3] == ["training", "200 of 7,400"] and cells[-1] == "about 2 h 00 min left"
    assert '<meta http-equiv="refresh" content="60">' in text
    assert not report.build([run], tmp_path / "report.html", refresh=60)
    assert 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text()


def test_ensembles_have_their_own_rows(tmp_path):
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in [(1, "model8"), (2, "model9")]]
    files = [
        make_ensemble(tmp_path / "a.json", *runs),
        make_ensemble(tmp_path / "b.json", runs[1], runs[0], search=True),
    ]
    text, page = build(tmp_path, runs, files)
    average = ensemble.average([predictions.load(run / "predictions.npz") for run in runs])
    cells = row(page, "Ensemble of model8 + model9")
    assert cells[1] == f"{100 * metrics.top_k(average, 1):.2f}" and cells[5:] == ["61.23†", "equal weights"]
    assert row(page, "Ensemble of model9 + model8‡")[5] == "-"  # the paper's weights are equal
    assert f"tools/ensemble.py {runs[0]}/predictions.npz {runs[1]}/predictions.npz --json" in text


def test_the_page_is_self_contained_and_its_ids_are_unique(tmp_path):
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in enumerate(("model1", "model2"))]
    text, page = build(tmp_path, runs)
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)|<script|<iframe", text)
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    assert {fragment[1:] for fragment in page.fragments} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)


def test_the_same_files_give_the_same_bytes(tmp_path):
    runs = [make_run(tmp_path / "model1")]
    first, _page = build(tmp_path, runs)
    assert build(tmp_path, runs)[0] == first


def test_the_best_run_s_confusion_is_shown(tmp_path):
    runs = [make_run(tmp_path / name, name, seed=seed) for seed, name in enumerate(("model1", "model2", "model3"))]
    loaded = [predictions.load(run / "predictions.npz") for run in runs]
    best = int(np.argmax([metrics.top_k(given, 1) for given in loaded]))
    text, page = build(tmp_path, runs)
    assert f"<strong>model{best + 1}</strong>" in text and f"mistakes of model{best + 1}" in text
    counts = metrics.confusion(loaded[best])
    np.fill_diagonal(counts, 0)
    start = next(number for number, cells in enumerate(page.rows) if cells[:1] == ["True class"]) + 1
    assert [int(cells[4]) for cells in page.rows[start : start + 8]] == sorted(counts.ravel(), reverse=True)[:8]
    first = page.rows[start]
    assert counts[int(first[1]), int(first[3])] == counts.max()


def test_runs_of_one_model_have_different_names(tmp_path):
    runs = [make_run(tmp_path / name, "model1", seed=seed) for seed, name in enumerate("ab")]
    _text, page = build(tmp_path, runs)
    assert row(page, "model1 (a)") and row(page, "model1 (b)")
    runs = [make_run(tmp_path / name / "run", "model1", seed=seed) for seed, name in enumerate("cd")]
    _text, page = build(tmp_path, runs)
    assert row(page, "model1 (c/run)") and row(page, "model1 (d/run)")


def test_a_run_that_is_given_twice_is_shown_once(tmp_path, capsys, monkeypatch):
    run = make_run(tmp_path / "model1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(run)
    _text, page = build(tmp_path, [run, "model1", "link"])
    assert len(rows_of(page, "model1")) == 2  # results and training
    assert capsys.readouterr().err.count("given twice") == 2


def test_names_are_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    run = make_run(tmp_path / "one", evil, nonlinearity=evil, commit=evil, argv=[evil], versions={evil: evil})
    given = predictions.load(run / "predictions.npz")
    given.meta["class_names"] = [f"{evil}{number}" for number in range(10)]
    predictions.save(run / "predictions.npz", given)
    text, page = build(tmp_path, [run, make_run(tmp_path / "two", evil + "2")])
    assert "<script" not in text and row(page, f"{evil} (one)")[6] == evil


def test_class_names_come_from_the_data_if_the_meta_has_none(tmp_path, data):
    run = make_run(tmp_path / "one")
    assert row(build(tmp_path, [run])[1], "3")[1] == "3"
    change(run / "run.json", data=str(data))
    text, page = build(tmp_path, [run])
    assert "<li><b>3</b>three</li>" in text and row(page, "three")[1] == "3"


def test_several_sessions_are_listed(tmp_path):
    first = {"argv": ["tools/train.py", "model1"], "started": "then", "commit": "abc"}
    text, _page = build(tmp_path, [make_run(tmp_path / "one", sessions=[first, {"argv": ["again"]}])])
    assert "in 2 sessions" in text and "then, commit abc" in text and "<code>again</code>" in text
    assert "sessions:" not in build(tmp_path, [make_run(tmp_path / "two", sessions=[first])])[0]


# --- missing files ---


def test_a_run_without_evaluation_has_the_command_to_run(tmp_path):
    run = make_run(tmp_path / "model1", evaluated=False)
    text, page = build(tmp_path, [run])
    assert f"tools/evaluate.py {run}" in row(page, "model1")[1] and 'id="confusion"' not in text


def test_an_evaluation_without_predictions_has_scores_but_no_confusion(tmp_path):
    run = make_run(tmp_path / "model1")
    (run / "predictions.npz").unlink()
    text, page = build(tmp_path, [run])
    assert float(row(page, "model1")[1]) > 0 and 'id="confusion"' not in text


def test_a_run_of_an_earlier_version_has_dashes(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    text, page = build(tmp_path, [folder])
    assert row(page, "old")[2:] == ["-"] * 7 and 'id="training"' in text
    (folder / "evaluation.json").write_text('{"top1": 0.5, "count": 20, "split": "val"}')
    (folder / "metrics.jsonl").write_text('{"iteration": 4, "train_loss": 2}\n{"iteration": 8, "train_lo')
    assert row(build(tmp_path, [folder])[1], "old")[1:] == ["50.00", *["-"] * 10]


def test_a_broken_file_is_an_error_that_names_it(tmp_path):
    run = make_run(tmp_path / "one")
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"iteration": 210, "tr')
    assert len(folders.read([run])[0].records) == 20  # half a last line is being written
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('\n{"iteration": 220}\n')
    (tmp_path / "empty").mkdir()
    for path, named in ((run, r"metrics\.jsonl"), (tmp_path / "none", "none"), (tmp_path / "empty", "empty")):
        with pytest.raises(RunError, match=named):
            report.build([path], tmp_path / "report.html")
    with pytest.raises(RunError):
        report.build([], tmp_path / "report.html")
    (run / "metrics.jsonl").unlink()
    for name in ("evaluation_tencrop.json", "evaluation.json", "run.json"):
        (run / name).write_text("{")
        with pytest.raises(RunError, match=name):
            report.build([run], tmp_path / "report.html")
        (run / name).unlink()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"members": []}'])
def test_other_files_than_ensembles_are_rejected(tmp_path, content):
    run = make_run(tmp_path / "one")
    if content is not None:
        (tmp_path / "e.json").write_text(content)
    with pytest.raises(PredictionsError, match=r"e\.json"):
        report.build([run], tmp_path / "report.html", [tmp_path / "e.json"])


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    run = make_run(tmp_path / "one")
    with pytest.raises(TinyImageNetError, match=r"run\.json"):
        report.build([run], run / "run.json" / "report.html")


# --- the script ---


def test_the_script_reads_the_output_of_the_ensemble_script(tmp_path, tool):
    for seed, name in [(1, "model8"), (2, "model9")]:
        make_run(tmp_path / name, name, seed=seed)
    files = ["model8/predictions.npz", "model9/predictions.npz"]
    printed = tool("ensemble", *files, "--weights", "1", "2", "--json", cwd=tmp_path).stdout
    (tmp_path / "both.json").write_text(printed)
    done = tool("report", "model8", "model9", "--ensemble", "both.json", "--out", "report.html", cwd=tmp_path)
    assert done.stdout == "report.html\n"
    assert "model8, model9" in done.stderr and "my data" in done.stderr and done.stderr.count("\n") == 1
    cells = row(Page((tmp_path / "report.html").read_text(encoding="utf-8")), "Ensemble of model8 + model9")
    assert cells[-1] == "weights 0.333, 0.667"


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["--out", "report.html"], 2, "RUN"),
        (["one"], 2, "--out"),
        (["one", "--out", "one"], 2, ".html"),
        (["one", "--out", "a.html"], 2, "a.html"),
        (["one", "--data", "gone", "--out", "report.html"], 2, "gone"),
        (["none", "--out", "report.html"], 1, "none"),
        (["one", "--ensemble", "none.json", "--out", "report.html"], 1, "none.json"),
    ],
)
def test_the_script_rejects_in_one_line_and_writes_nothing(tmp_path, tool, arguments, status, named):
    before = {make_run(tmp_path / "one"), tmp_path / "a.html"}
    (tmp_path / "a.html").mkdir()
    done = tool("report", *arguments, cwd=tmp_path, fails=status)
    assert done.stdout == "" and done.stderr.count("\n") == 1 and named in done.stderr
    assert set(tmp_path.iterdir()) == before
