"""The whole experiment, with the nine models made tiny."""

import csv
import dataclasses
import json
import shutil
import signal
import statistics

import pytest

from conftest import ROOT, SMALL, StopAfter, write_small_nets
from tiny_imagenet.errors import DatasetError, NetError, RunError, Stopped
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.experiment import reproduce, table2
from tiny_imagenet.models import generate, paper, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.train import Options


@pytest.fixture(scope="module")
def prototxt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce") / "prototxt"
    write_small_nets(folder)
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
    for row in rows[: len(zoo.MODELS)]:
        runs = [Run(out / row.name / f"seed{seed}") for seed in (1, 2)]
        assert row.values("top1") == [100 * run.scores["top1"] for run in runs]
        assert list(row.scores) == [1, 2]
        assert [run.info["seed"] for run in runs] == [1, 2]
        assert row.paper == (paper.PAPER[row.name].validation_accuracy if row.name in paper.PAPER else None)
        assert row.parameters == runs[0].info["parameters"]
        assert not row.failed
    assert (out / "model9" / "seed1" / "stages" / "1" / "run.json").is_file()
    for row, members in zip(rows[len(zoo.MODELS) :], (("model8", "model9"), tuple(paper.PAPER))):
        for seed, top1 in zip((1, 2), row.values("top1")):
            loaded = [predictions.load(out / name / f"seed{seed}" / "predictions.npz") for name in members]
            assert top1 == 100 * metrics.summary(ensemble.average(loaded))["top1"]
            file = "all.json" if len(members) == 9 else "model8-model9.json"
            told = json.loads((out / "ensembles" / f"seed{seed}" / file).read_text())
            assert (100 * told["ensemble"]["top1"], told["split"], told["crops"]) == (top1, "val", "centre")
            assert [member["model"] for member in told["members"]] == list(members)
    assert [row.paper for row in rows[len(zoo.MODELS) :]] == [61.23, 54.0]


def test_the_table_says_the_same_three_times(made):
    out, rows = made
    table = json.loads((out / "table2.json").read_text())
    lines = [line for line in (out / "table2.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert (
        "Not comparable: the paper's figures are of Tiny ImageNet's 200 classes, ours of 10 classes of another"
        in (out / "table2.md").read_text()
    )
    with open(out / "table2.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    for row, entry, line in zip(rows, table, lines):
        mean, deviation = statistics.fmean(row.values("top1")), statistics.stdev(row.values("top1"))
        assert entry["mean"] == pytest.approx(mean) and entry["standard_deviation"] == pytest.approx(deviation)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:4] == [
            row.name,
            "" if row.paper is None else f"{row.paper:.2f}",
            f"{mean:.2f} ± {deviation:.2f}",
            "" if row.paper is None else f"{mean - row.paper:+.2f}",
        ]
        own = {int(entry["seed"]): float(entry["top1"]) for entry in listed if entry["model"] == row.name}
        assert own == pytest.approx({seed: scores["top1"] for seed, scores in row.scores.items()}, abs=1e-4)
        assert {int(seed) for seed in entry["scores"]} == {1, 2}


def test_scores_of_the_papers_classes_need_no_note():
    row = table2.Row("model1", 37.27, 1, {1: {"top1": 37.0, "top5": 60.0, "classes": 200, "epochs": 2 / 3}})
    text = table2.markdown([row])
    assert "Not comparable" not in text and "| 0.6667 |" in text


def test_what_is_done_is_not_done_again(made, data, prototxt, monkeypatch):
    out, rows = made

    def never(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "train", never)
    monkeypatch.setattr(reproduce.evaluate, "evaluate_run", never)
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    assert reproduce.reproduce(out, options, seeds=(1, 2)) == rows


def test_an_experiment_that_is_stopped_goes_on(options, made, tmp_path, monkeypatch):
    lives = iter([3, 8])
    monkeypatch.setattr(reproduce, "StopRequest", lambda: StopAfter(next(lives, 1000)))
    stops = 0
    while True:
        try:
            rows = reproduce.reproduce(tmp_path, options, ["model1", "model8", "model9"])
            break
        except Stopped as stopped:
            assert "the same command goes on" in str(stopped) and stopped.status == 128 + signal.SIGTERM
            stops += 1
    assert stops == 2
    whole = {row.name: row for row in made[1]}
    for row in rows:
        assert row.scores[1]["top1"] == whole[row.name].scores[1]["top1"]


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
    assert rows[1].scores
    text = (tmp_path / "out" / "table2.md").read_text()
    assert "| model1 | 37.27 | failed |" in text and "- model1, seed 1: the loss is" in text


def test_earlier_models_and_seeds_stay_in_the_table(made, data, prototxt, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made[0], out, symlinks=True)
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    rows = reproduce.reproduce(out, options, ["model1", "model1"], seeds=[3])
    assert [row.name for row in rows] == [row.name for row in made[1]]
    assert list(rows[0].scores) == [1, 2, 3] and list(rows[1].scores) == [1, 2]
    assert list(rows[-1].scores) == [1, 2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 7}, "begun with another --batch .50, not 7."),
        ({"base_lr": 0.3}, "begun with another --base-lr .0.05, not 0.3."),
        ({"max_iter": 1}, "has been trained for 4 iterations, this experiment has 1"),
        ({"patience": 1}, "begun with another --patience .5, not 1."),
    ],
)
def test_runs_of_another_experiment_are_refused(changes, says, made, data, prototxt):
    options = dataclasses.replace(Options(data=data, run=made[0], epochs=1, prototxt=prototxt, quiet=True), **changes)
    if "max_iter" in changes:
        options = dataclasses.replace(options, epochs=None)
    before = (made[0] / "table2.json").read_bytes()
    with pytest.raises(RunError, match=says):
        reproduce.reproduce(made[0], options, ["model1"])
    assert (made[0] / "table2.json").read_bytes() == before


def test_runs_on_another_data_set_are_refused(made, dataset, prototxt, tmp_path):
    from tiny_imagenet.data import convert

    convert.convert(dataset, tmp_path / "other", workers=1, seed=9)
    options = Options(data=tmp_path / "other", run=made[0], epochs=1, prototxt=prototxt, quiet=True)
    with pytest.raises(DatasetError, match="has not the records"):
        reproduce.reproduce(made[0], options, ["model1"])


def test_a_longer_experiment_trains_on(prototxt, data, tmp_path):
    options = Options(data=data, run=tmp_path, epochs=1, prototxt=prototxt, quiet=True)
    reproduce.reproduce(tmp_path, options, ["model1"])
    rows = reproduce.reproduce(tmp_path, dataclasses.replace(options, epochs=2), ["model1"])
    assert rows[0].scores[1]["epochs"] == 2


def test_mistakes(options, tmp_path, tool):
    with pytest.raises(NetError, match="unknown model"):
        reproduce.reproduce(tmp_path / "out", options, ["model12"])
    tool("reproduce", "model12", "--data", tmp_path, "--out", tmp_path / "out", fails=2)
    tool("reproduce", "--data", tmp_path, fails=2)
    tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", "--seeds", "0", fails=2)
    with pytest.raises(DatasetError, match=r"manifest\.json is missing"):
        reproduce.reproduce(tmp_path / "out", Options(data=tmp_path, run=tmp_path), ["model1"])
    assert not (tmp_path / "out").exists()


def test_under_mpirun_it_would_be_done_by_each_process(tool, tmp_path, monkeypatch):
    for name, value in (("SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    done = tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", fails=2)
    assert "mpirun has started 2 processes, and each would do all of it: start one, without mpirun" in done.stderr
