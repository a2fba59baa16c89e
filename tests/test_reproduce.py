"""The whole experiment, with tiny versions of all models."""

import csv
import dataclasses
import fcntl
import json
import shutil
import signal
import statistics

import pytest

from conftest import ROOT, SMALL, write_small_nets
from dask_cluster import Experiment
from tiny_imagenet.data import convert
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.experiment import reproduce, table2
from tiny_imagenet.models import generate, paper, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.options import Options


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
    """An experiment with two seeds: its folder and rows."""
    out = tmp_path_factory.mktemp("made")
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    return out, reproduce.reproduce(out, options, seeds=(1, 2))


def test_every_model_is_trained_with_each_seed(made):
    out, rows = made
    assert [row.name for row in rows] == [*zoo.MODELS, *(known.name for known in paper.ENSEMBLES)]
    for row in rows[: len(zoo.MODELS)]:
        runs = [Run(out / row.name / f"seed{seed}") for seed in (1, 2)]
        assert row.values("top1") == [100 * run.scores["top1"] for run in runs]
        assert list(row.scores) == [run.info["seed"] for run in runs] == [1, 2]
        assert row.parameters == runs[0].info["parameters"]
        assert not row.failed
    assert (out / "model9" / "seed1" / "stages" / "1" / "run.json").is_file()


def test_ensembles_average_the_predictions_of_their_members(made):
    out, rows = made
    for row, known in zip(rows[len(zoo.MODELS) :], paper.ENSEMBLES):
        for seed, top1 in zip((1, 2), row.values("top1")):
            loaded = [predictions.load(out / name / f"seed{seed}" / "predictions.npz") for name in known.members]
            assert top1 == 100 * metrics.summary(ensemble.average(loaded))["top1"]
            name = "all" if len(known.members) == len(paper.PAPER) else "-".join(known.members)
            described = json.loads((out / "ensembles" / f"seed{seed}" / f"{name}.json").read_text())
            assert 100 * described["ensemble"]["top1"] == top1
            assert [member["model"] for member in described["members"]] == list(known.members)


def test_tables_contain_mean_and_deviation(made):
    out, rows = made
    table = json.loads((out / "table2.json").read_text())
    lines = [line for line in (out / "table2.md").read_text().splitlines() if line.startswith("| ")]
    assert "paper" not in lines[0]  # the data has other classes
    with open(out / "table2.csv", newline="") as file:
        listed = list(csv.DictReader(file))
    for row, entry, line in zip(rows, table, lines[1:]):
        mean, deviation = statistics.fmean(row.values("top1")), statistics.stdev(row.values("top1"))
        assert (entry["mean"], entry["standard_deviation"]) == pytest.approx((mean, deviation))
        assert line.startswith(f"| {row.name} | {mean:.2f} ± {deviation:.2f} |")
        own = {int(entry["seed"]): float(entry["top1"]) for entry in listed if entry["model"] == row.name}
        assert own == pytest.approx({seed: scores["top1"] for seed, scores in row.scores.items()}, abs=1e-4)


def test_results_on_the_papers_classes_are_compared_with_the_paper(tmp_path):
    rows = table2.Table(tmp_path, tuple(zoo.MODELS), comparable=True).write()
    assert {row.name: row.paper for row in rows if row.name in paper.PAPER} == {
        name: known.validation_accuracy for name, known in paper.PAPER.items()
    }
    rows[0].scores[1] = {"top1": rows[0].paper + 1, "top5": 60.0, "classes": 200, "epochs": 2 / 3}
    line = table2.markdown(rows).splitlines()[2]
    assert line.startswith(f"| {rows[0].name} | {rows[0].paper:.2f} | {rows[0].paper + 1:.2f} | +1.00 | 60.00 |")
    assert "| 0.6667 |" in line


def test_finished_steps_are_skipped(made, data, prototxt, monkeypatch):
    out, rows = made
    monkeypatch.setattr(train, "train", None)
    monkeypatch.setattr(reproduce.evaluate, "evaluate_run", None)
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    assert reproduce.reproduce(out, options, seeds=(1, 2)) == rows
    reproduce.Step("model1", dataclasses.replace(options, run=out / "model1" / "seed1", seed=1, resume=True))()


def test_stopped_experiment_resumes(checkout, data, tmp_path):
    options = ("model4", "model1", "--epochs", 30)
    whole = Experiment(checkout, data, tmp_path / "whole", *options)
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    experiment.process.send_signal(signal.SIGINT)
    status, _, stderr = experiment.end()
    assert status == 130, stderr
    assert experiment.run("model4").resume_from()
    status, stdout, stderr = Experiment(checkout, data, tmp_path / "out", *options).end()
    assert status == 0, stderr
    assert stdout == whole.end()[1]


def test_failed_training_does_not_stop_the_others(data, tmp_path):
    rows = [zoo.MODELS[name].replace(convs="3-2 |", drop_after_stage=0, **SMALL) for name in ("model1", "model2")]
    generate.write(rows, tmp_path / "prototxt", ROOT / "tools")
    solver = tmp_path / "prototxt" / "model1" / "solver.prototxt"
    solver.write_text(solver.read_text().replace("base_lr: 0.05", "base_lr: 1e30"))
    options = Options(data=data, run=tmp_path, epochs=1, prototxt=tmp_path / "prototxt", quiet=True)
    failed, trained = reproduce.reproduce(tmp_path / "out", options, ["model1", "model2"])
    assert "iteration" in failed.failed[1]
    assert trained.scores
    text = (tmp_path / "out" / "table2.md").read_text()
    assert "| model1 | failed |" in text and f"- model1, seed 1: {failed.failed[1]}" in text


def test_earlier_models_and_seeds_stay_in_the_table(made, data, prototxt, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(made[0], out, symlinks=True)
    options = Options(data=data, run=out, epochs=1, prototxt=prototxt, quiet=True)
    rows = reproduce.reproduce(out, options, ["model1", "model1"], seeds=[3])
    assert [row.name for row in rows] == [row.name for row in made[1]]
    assert list(rows[0].scores) == [1, 2, 3] and list(rows[1].scores) == list(rows[-1].scores) == [1, 2]


@pytest.mark.parametrize("changes", [{"batch": 7}, {"base_lr": 0.3}, {"patience": 1}])
def test_other_options_in_the_same_folder_are_refused(changes, made, data, prototxt):
    options = dataclasses.replace(Options(data=data, run=made[0], epochs=1, prototxt=prototxt, quiet=True), **changes)
    before = (made[0] / "table2.json").read_bytes()
    [(name, value)] = changes.items()
    with pytest.raises(RunError, match=f"{name} None, not {value}"):
        reproduce.reproduce(made[0], options, ["model1"])
    assert (made[0] / "table2.json").read_bytes() == before


def test_other_data_in_the_same_folder_is_refused(made, dataset, prototxt, tmp_path):
    convert.convert(dataset, tmp_path / "other", workers=1, seed=9)
    options = Options(data=tmp_path / "other", run=made[0], epochs=1, prototxt=prototxt, quiet=True)
    with pytest.raises(RunError, match="data"):
        reproduce.reproduce(made[0], options, ["model1"])


def test_longer_experiment_resumes_its_trainings_and_a_shorter_one_is_refused(options, tmp_path):
    reproduce.reproduce(tmp_path / "out", options, ["model1"])
    [row] = reproduce.reproduce(tmp_path / "out", dataclasses.replace(options, epochs=2), ["model1"])
    assert row.scores[1]["epochs"] == 2
    [row] = reproduce.reproduce(tmp_path / "out", options, ["model1"])
    assert "8 iterations" in row.failed[1]


def test_one_experiment_at_a_time_uses_a_folder(options, tmp_path):
    (tmp_path / "out").mkdir()
    with open(tmp_path / "out" / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=str(tmp_path / "out")):
            reproduce.reproduce(tmp_path / "out", options, ["model1"])


def test_mistakes_are_found_before_anything_is_written(options, tmp_path, tool):
    with pytest.raises(NetError, match="model12"):
        reproduce.reproduce(tmp_path / "out", options, ["model12"])
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        reproduce.reproduce(tmp_path / "out", Options(data=tmp_path, run=tmp_path), ["model1"])
    tool("reproduce", "model12", "--data", tmp_path, "--out", tmp_path / "out", fails=2)
    tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", "--seeds", "0", fails=2)
    assert not (tmp_path / "out").exists()


def test_mpirun_is_refused(tool, tmp_path, monkeypatch):
    for name, value in (("SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    assert "mpirun" in tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", fails=2).stderr
