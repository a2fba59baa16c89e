"""The whole experiment, with the nine models made tiny."""

import csv
import json
import statistics

import pytest

from conftest import ROOT
from tiny_imagenet import ensemble, generate, metrics, paper, predictions, reproduce, train, zoo
from tiny_imagenet.errors import DatasetError, NetError, Stopped
from tiny_imagenet.runs import Run
from tiny_imagenet.train import Options

SMALL = {"hidden": (8,), "batch": 50, "classes": 10, "base_lr": 0.05}


@pytest.fixture(scope="module")
def prototxt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce") / "prototxt"
    rows = [
        row.replace(
            convs="3-2 | 3-4 | 3-4 |",
            drop_after_stage=0,
            shallow=("3-2 | 3-4 | 3-4 |",) if row.shallow else (),
            **SMALL,
        )
        for row in zoo.MODELS.values()
    ]
    generate.write(rows, folder, ROOT / "tools")
    return folder


@pytest.fixture
def options(prototxt, data, tmp_path):
    return Options(data=data, run=tmp_path, epochs=1, prototxt=prototxt, quiet=True)


@pytest.fixture(scope="module")
def made(prototxt, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    return out, reproduce.reproduce(out, options, seeds=(1, 2))


def test_every_model_is_trained_with_each_seed_and_averaged(made):
    out, rows = made
    assert [row.name for row in rows] == [*zoo.MODELS, "model8 + model9", "all nine"]
    for row in rows[:9]:
        runs = [Run(out / row.name / f"seed{seed}") for seed in (1, 2)]
        assert row.top1 == [100 * run.scores["top1"] for run in runs]
        assert [run.info["seed"] for run in runs] == [1, 2]
        assert row.paper == paper.MODELS[row.name].validation_accuracy
        assert row.parameters == runs[0].info["parameters"]
        assert not row.failed
    assert (out / "model9" / "seed1" / "stages" / "1" / "run.json").is_file()
    for row, members in zip(rows[9:], (("model8", "model9"), tuple(zoo.MODELS))):
        for seed, top1 in zip((1, 2), row.top1):
            loaded = [predictions.load(out / name / f"seed{seed}" / "predictions.npz") for name in members]
            assert top1 == 100 * metrics.summary(ensemble.average(loaded))["top1"]
    assert [row.paper for row in rows[9:]] == [61.23, 54.0]


def test_the_table_says_the_same_three_times(made):
    out, rows = made
    table = json.loads((out / "table2.json").read_text())
    lines = [line for line in (out / "table2.md").read_text().splitlines() if line.startswith("| ")][1:]
    with open(out / "table2.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    for row, entry, line in zip(rows, table, lines):
        mean, deviation = statistics.fmean(row.top1), statistics.stdev(row.top1)
        assert entry["mean"] == pytest.approx(mean) and entry["standard_deviation"] == pytest.approx(deviation)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:4] == [
            row.name,
            f"{row.paper:.2f}",
            f"{mean:.2f} ± {deviation:.2f}",
            f"{mean - row.paper:+.2f}",
        ]
        own = [float(entry["top1"]) for entry in listed if entry["model"] == row.name]
        assert own == pytest.approx(row.top1, abs=1e-4)


def test_what_is_done_is_not_done_again(made, data, prototxt, monkeypatch):
    out, rows = made

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "train", never)
    monkeypatch.setattr(reproduce.evaluate, "evaluate_run", never)
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    assert reproduce.reproduce(out, options, seeds=(1, 2)) == rows


def test_an_experiment_that_is_stopped_goes_on(options, made, tmp_path, monkeypatch):
    class Sometimes:
        lives = iter([3, 1000, 2])

        def __enter__(self):
            self.left = next(self.lives, 1000)
            return self

        def __exit__(self, *_):
            pass

        @property
        def signal(self):
            self.left -= 1
            return "SIGTERM" if self.left < 0 else ""

    monkeypatch.setattr(train, "StopRequest", Sometimes)
    stops = 0
    while True:
        try:
            rows = reproduce.reproduce(tmp_path, options, ["model1", "model8", "model9"])
            break
        except Stopped:
            stops += 1
    assert stops == 2
    whole = {row.name: row for row in made[1]}
    for row in rows:
        assert row.top1[0] == whole[row.name].top1[0]


def test_a_training_that_fails_is_a_line_and_the_others_go_on(options, prototxt, data, tmp_path):
    own = tmp_path / "prototxt"
    generate.write(
        [zoo.MODELS[name].replace(convs="3-2 |", drop_after_stage=0, **SMALL) for name in ("model1", "model2")],
        own,
        ROOT / "tools",
    )
    solver = own / "model1" / "solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.05", "base_lr: 1e30"))
    options = Options(data=data, run=tmp_path, epochs=1, prototxt=own, quiet=True)
    rows = reproduce.reproduce(tmp_path / "out", options, ["model1", "model2"])
    assert "is nan at iteration" in rows[0].failed[1] or "is inf at iteration" in rows[0].failed[1]
    assert rows[1].top1
    text = (tmp_path / "out" / "table2.md").read_text()
    assert "| model1 | 37.27 | failed |" in text and "- model1, seed 1: the loss is" in text


def test_mistakes(options, tmp_path, tool):
    with pytest.raises(NetError, match="unknown model"):
        reproduce.reproduce(tmp_path / "out", options, ["model12"])
    tool("reproduce", "model12", "--data", tmp_path, "--out", tmp_path / "out", fails=1)
    tool("reproduce", "--data", tmp_path, fails=2)
    tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", "--seeds", "0", fails=2)
    with pytest.raises(DatasetError, match=r"manifest\.json is missing"):
        reproduce.reproduce(tmp_path / "out", Options(data=tmp_path, run=tmp_path), ["model1"])
    assert not (tmp_path / "out").exists()
