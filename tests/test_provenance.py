"""Provenance of predictions, and names built from it."""

import json
import shutil

import numpy as np
import pytest

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import ensemble, predictions, provenance
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.evaluation.provenance import Provenance
from tiny_imagenet.runs import Run

TEN = "ten: four corners, centre, and their mirrors"


def make(path="", **meta):
    keys = np.array(["00000000_a.JPEG", "00000001_b.JPEG"])
    return Predictions(keys, np.array([0, 1]), np.full((2, 2), 0.5, np.float32), meta, path)


def test_provenance_comes_from_the_meta():
    made = {"model": "m", "run": "runs/m", "checkpoint": "best", "iteration": 4, "split": "val", "crops": TEN}
    found = provenance.of(make("p.npz", **made))
    assert found == Provenance("m", "p.npz", "m", "runs/m", "best", 4, "val", TEN) and not found.like_paper
    assert provenance.of(make(split="val", crops="centre")).like_paper
    assert provenance.of(make()) == Provenance("predictions")


def test_an_average_has_the_values_that_its_members_share():
    centre, ten, none = make(split="val", crops="centre"), make(split="val", crops=TEN), make()
    for members, expected in [
        ([centre, centre], ("val", "centre")),
        ([centre, ten], ("val", "mixed")),
        ([centre, none], ("val", None)),
        ([none, none], (None, None)),
        ([ensemble.average([centre, ten]), centre], ("val", "mixed")),
    ]:
        found = provenance.of(ensemble.average(members))
        assert (found.split, found.crops) == expected


def test_records_are_those_of_the_manifest(data):
    from tiny_imagenet.data import lmdb_reader

    keys, labels = zip(*((key, label) for key, label, _ in lmdb_reader.records(data / "val.lmdb")))
    order = np.random.default_rng(1).permutation(len(keys))
    given = Predictions(np.array(keys)[order], np.array(labels)[order], np.zeros((len(keys), 10), np.float32))
    assert given.records == json.loads((data / "manifest.json").read_text())["lmdbs"]["val"]["sha256"]


def test_predictions_of_an_earlier_checkpoint_are_stale(trained, tmp_path):
    run = Run(shutil.copytree(trained, tmp_path / "run", symlinks=True))
    for name in ("best", "last"):
        now = int(run.weights(name).parent.name)
        other = next(iteration for iteration in run.iterations() if iteration != now)
        assert provenance.stale(Provenance("m", run=str(run.path), checkpoint=name, iteration=now)) == ""
        stale = provenance.stale(Provenance("m", run=str(run.path), checkpoint=name, iteration=other))
        assert str(other) in stale and str(now) in stale
    assert provenance.stale(Provenance("m", run=str(run.path), checkpoint=str(other), iteration=other)) == ""
    assert provenance.stale(Provenance("m", run=str(tmp_path / "none"), checkpoint="best", iteration=3)) == ""


def test_a_moved_run_folder_is_found_next_to_its_predictions(trained, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "moved", symlinks=True)
    predictions.save(moved / "predictions.npz", make(run="gone/run"))
    given = predictions.load(moved / "predictions.npz")
    assert provenance.of(given).run == str(moved)
    given.meta["run"] = str(trained)
    assert provenance.of(given).run == str(trained)


@pytest.mark.parametrize(
    ("several", "labels"),
    [
        ([Provenance("a"), Provenance("b")], ["a", "b"]),
        ([Provenance("a", run="runs/a"), Provenance("b", run="runs/first")], ["a", "b (first)"]),
        ([Provenance("a", run="x/1"), Provenance("a", run="x/2")], ["a (1)", "a (2)"]),
        ([Provenance("a", run="x/1/run"), Provenance("a", run="y/1/run")], ["a (x/1/run)", "a (y/1/run)"]),
        ([Provenance("a", run="a", iteration=n) for n in (10, 20)], ["a (iteration 10)", "a (iteration 20)"]),
        (
            [Provenance("a", run=run, iteration=n) for run in ("x", "y") for n in (1, 2)],
            ["a (x, iteration 1)", "a (x, iteration 2)", "a (y, iteration 1)", "a (y, iteration 2)"],
        ),
        ([Provenance("a", crops=crops) for crops in ("centre", TEN)], ["a (centre crop)", "a (ten crops)"]),
        ([Provenance("a", path=path) for path in ("x/p.npz", "x/q.npz")], ["a (p.npz)", "a (q.npz)"]),
        ([Provenance("a", path="p.npz"), Provenance("a", path="p.npz")], ["a", "a"]),
    ],
)
def test_labels_distinguish_equal_names_and_name_the_run(several, labels):
    assert provenance.labels(several) == labels


def test_runs_by_name(tmp_path):
    for name, model in (("one/model1", "model1"), ("two", "model1"), ("third", None)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"model": model}))
    one, other, third = tmp_path / "one" / "model1", tmp_path / "two", tmp_path / "third"
    assert list(provenance.by_name([one, third])) == ["model1", "third"]
    names = provenance.by_name([one, other])
    assert list(names) == ["model1", "model1 (two)"] and names["model1 (two)"].path == other
    with pytest.raises(RunError, match="none"):
        provenance.by_name([tmp_path / "none"])


def test_a_title_names_the_run_or_the_members_of_an_average():
    one, other = make("a/p.npz", model="m1", run="a"), make("b/p.npz", model="m1", run="b")
    assert provenance.title(one) == "m1 (a)" and provenance.title(make(model="m1", run="runs/m1")) == "m1"
    assert provenance.title(ensemble.average([one, other])) == "ensemble of m1 (a) + m1 (b)"
    many = [make(f"{n}.npz", model=f"m{n}") for n in range(5)]
    assert provenance.title(ensemble.average(many)) == "ensemble of 5 members"


def test_an_average_of_averages_names_the_members_of_each():
    one, other, third = (make(f"{name}.npz", model=name, run=f"runs/{name}") for name in ("m1", "m2", "m3"))
    pair = ensemble.average([one, other])
    nested = ensemble.average([pair, third])
    assert provenance.title(nested) == "ensemble of (m1 + m2) + m3"
    assert provenance.of(ensemble.average([nested, one])).name == "(((m1 + m2) + m3) + m1)"
    assert ensemble.describe([pair, third], nested)["members"][0]["name"] == "(m1 + m2)"
