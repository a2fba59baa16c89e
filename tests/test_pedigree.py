"""What made predictions, and what to call them."""

import json
import shutil

import numpy as np
import pytest
from tiny_imagenet.evaluation.pedigree import Pedigree

from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import ensemble, pedigree, predictions
from tiny_imagenet.evaluation.predictions import Predictions

TEN = "ten: four corners, centre, and their mirrors"


def make(path="", **meta):
    keys = np.array(["00000000_a.JPEG", "00000001_b.JPEG"])
    return Predictions(keys, np.array([0, 1]), np.full((2, 2), 0.5, np.float32), meta, path)


def test_the_meta_says_it():
    made = {"model": "m", "run": "runs/m", "checkpoint": "best", "iteration": 4, "split": "val", "crops": TEN}
    found = pedigree.of(make("p.npz", **made))
    assert found == Pedigree("m", "p.npz", "m", "runs/m", "best", 4, "val", TEN) and not found.usual
    assert pedigree.of(make(split="val", crops="centre")).usual
    assert pedigree.of(make()) == Pedigree("predictions")


@pytest.mark.parametrize("wrong", [None, 3, "", " ", [], {}, True])
def test_values_of_another_kind_are_unknown(wrong):
    keys = ("model", "run", "checkpoint", "split", "crops")
    found = pedigree.read({"name": "n", "iteration": wrong if wrong != 3 else 3.5, **dict.fromkeys(keys, wrong)})
    assert found == Pedigree("n")


def test_an_average_is_of_what_its_members_have_in_common():
    centre, ten, none = make(split="val", crops="centre"), make(split="val", crops=TEN), make()
    for members, said in [
        ([centre, centre], ("val", "centre")),
        ([centre, ten], ("val", "mixed")),
        ([centre, none], ("val", None)),
        ([none, none], (None, None)),
        ([ensemble.average([centre, ten]), centre], ("val", "mixed")),
    ]:
        found = pedigree.of(ensemble.average(members))
        assert (found.split, found.crops) == said
    average = ensemble.average([centre, ten])
    for key in ("split", "crops"):  # as an earlier version wrote it
        del average.meta[key]
    assert pedigree.of(average).split == "val" and pedigree.of(average).crops == "mixed"


def test_records_are_those_of_the_manifest(data):
    from tiny_imagenet.data import lmdb_reader

    keys, labels = zip(*((key, label) for key, label, _ in lmdb_reader.records(data / "val.lmdb")))
    order = np.random.default_rng(1).permutation(len(keys))
    given = Predictions(np.array(keys)[order], np.array(labels)[order], np.zeros((len(keys), 10), np.float32))
    assert pedigree.records(given) == json.loads((data / "manifest.json").read_text())["lmdbs"]["val"]["sha256"]


def test_a_run_that_goes_on_is_told(trained, tmp_path):
    from tiny_imagenet.runs import Run

    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, symlinks=True)
    for name in ("best", "last"):
        now = int(run.weights(name).parent.name)
        other = next(iteration for iteration in run.iterations() if iteration != now)
        assert pedigree.moved(Pedigree("m", run=str(run.path), checkpoint=name, iteration=now)) == ""
        told = pedigree.moved(Pedigree("m", run=str(run.path), checkpoint=name, iteration=other))
        assert told == f"of iteration {other}, {name} is {now} by now"
    assert pedigree.moved(Pedigree("m", run=str(run.path), checkpoint=str(other), iteration=other)) == ""
    assert pedigree.moved(Pedigree("m", run=str(tmp_path / "gone"), checkpoint="best", iteration=3)) == ""
    assert pedigree.moved(Pedigree("m", checkpoint="best", iteration=3)) == ""


def test_a_run_folder_that_was_moved_is_found_beside_its_predictions(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "moved", symlinks=True)
    predictions.save(tmp_path / "moved" / "predictions.npz", make(run="gone/run"))
    given = predictions.load(tmp_path / "moved" / "predictions.npz")
    assert pedigree.of(given).run == str(tmp_path / "moved")
    given.meta["run"] = str(trained)
    assert pedigree.of(given).run == str(trained)


@pytest.mark.parametrize(
    ("several", "labels"),
    [
        ([Pedigree("a"), Pedigree("b")], ["a", "b"]),
        ([Pedigree("a", run="x/1"), Pedigree("a", run="x/2"), Pedigree("b", run="y")], ["a (1)", "a (2)", "b"]),
        ([Pedigree("a", run="x/1/run"), Pedigree("a", run="y/1/run")], ["a (x/1/run)", "a (y/1/run)"]),
        ([Pedigree("a", run="x", iteration=n) for n in (10, 20)], ["a (iteration 10)", "a (iteration 20)"]),
        (
            [Pedigree("a", run=run, iteration=n) for run in ("x", "y") for n in (1, 2)],
            ["a (x, iteration 1)", "a (x, iteration 2)", "a (y, iteration 1)", "a (y, iteration 2)"],
        ),
        ([Pedigree("a", crops=crops) for crops in ("centre", TEN)], ["a (centre crop)", "a (ten crops)"]),
        ([Pedigree("a", path=path) for path in ("x/p.npz", "x/q.npz")], ["a (p.npz)", "a (q.npz)"]),
        ([Pedigree("a", path="p.npz"), Pedigree("a", path="p.npz")], ["a", "a"]),
    ],
)
def test_what_tells_those_of_one_name_apart(several, labels):
    assert pedigree.labels(several) == labels


def test_words():
    assert pedigree.say("val", "centre") == "val split, centre crop"
    assert pedigree.say("test", TEN) == "test split, ten crops"
    assert pedigree.say(None, "mixed") == "unknown split, mixed crops"
    assert pedigree.say("val", None) == "val split, unknown crops"
    assert pedigree.say(None, None) == "unknown split and crops"


def test_runs_of_one_model_are_told_apart(tmp_path):
    for name, model in (("one/model1", "model1"), ("two", "model1"), ("third", None)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"model": model}))
    one, other, third = tmp_path / "one" / "model1", tmp_path / "two", tmp_path / "third"
    assert list(pedigree.by_name([one, third])) == ["model1", "third"]
    names = pedigree.by_name([one, other])
    assert list(names) == ["model1 (model1)", "model1 (two)"] and names["model1 (two)"].path == other
    with pytest.raises(RunError, match="no such run folder"):
        pedigree.by_name([tmp_path / "none"])


def test_a_title_names_the_members_of_an_average():
    one, other = make("a/p.npz", model="m1", run="a"), make("b/p.npz", model="m1", run="b")
    assert pedigree.called(one) == "m1"
    assert pedigree.called(ensemble.average([one, other])) == "ensemble of m1 (a) + m1 (b)"
    many = [make(f"{n}.npz", model=f"m{n}") for n in range(5)]
    assert pedigree.called(ensemble.average(many)) == "ensemble of 5 members"
    for wrong in (3, ["a"], {}):
        assert pedigree.called(make(model="m1", members=wrong)) == "m1"
    assert pedigree.called(make(name="e", members=[{"name": "a", "meta": 3}, {}])) == "e of a + None"


def test_an_average_of_averages_names_the_members_of_each():
    one, other, third = (make(f"{name}.npz", model=name, run=f"runs/{name}") for name in ("m1", "m2", "m3"))
    pair = ensemble.average([one, other])
    nested = ensemble.average([pair, third])
    assert pedigree.of(pair).name == "(m1 + m2)" and pedigree.of(one).name == "m1"
    assert pedigree.called(nested) == "ensemble of (m1 + m2) + m3"
    assert pedigree.of(ensemble.average([nested, one])).name == "(((m1 + m2) + m3) + m1)"
    assert ensemble.describe([pair, third], nested)["members"][0]["name"] == "(m1 + m2)"
