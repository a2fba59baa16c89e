import json
import os
import shutil

import numpy as np
import pytest

from tiny_imagenet.data import convert
from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation import ensemble, evaluate, metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run


def make(seed, count=300, classes=10, skill=1.0, order_seed=None, model=None):
    """Predictions of one set of images by a model of some skill; `order_seed` shuffles the images."""
    generator = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += skill
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    keys = np.array([f"{index:08d}_val_{index}.JPEG" for index in range(count)])
    order = np.arange(count) if order_seed is None else np.random.default_rng(order_seed).permutation(count)
    meta = {"model": model or f"model{seed}"}
    return Predictions(keys[order], labels[order], probabilities[order], meta)


def changed(given, **changes):
    fields = {name: getattr(given, name) for name in ("keys", "labels", "probabilities", "meta", "path")}
    return Predictions(**{**fields, **changes})


def test_the_average_is_the_mean_of_the_softmax_outputs():
    members = [make(seed) for seed in (1, 2, 3)]
    result = ensemble.average(members)
    expected = np.mean([member.probabilities.astype(np.float64) for member in members], axis=0)
    assert result.probabilities == pytest.approx(expected, abs=1e-6)
    assert result.probabilities.dtype == np.float32
    predictions.check(result, "average")
    assert [member["name"] for member in result.meta["members"]] == ["model1", "model2", "model3"]
    assert [member["weight"] for member in result.meta["members"]] == pytest.approx([1 / 3] * 3)
    weighted = ensemble.average(members, [6, 0, 2])
    expected = 0.75 * members[0].probabilities + 0.25 * members[2].probabilities
    assert weighted.probabilities == pytest.approx(expected, abs=1e-6)


def test_averaging_helps_independent_members():
    members = [make(seed) for seed in range(1, 6)]
    assert metrics.top_k(ensemble.average(members), 1) > max(metrics.top_k(member, 1) for member in members)


def test_members_are_matched_by_key():
    straight = ensemble.average([make(1), make(2)])
    shuffled = ensemble.average([make(1, order_seed=5), make(2, order_seed=6)])
    assert (shuffled.keys == make(1, order_seed=5).keys).all()
    back = np.argsort(shuffled.keys)
    assert (shuffled.keys[back] == straight.keys).all()
    assert (shuffled.labels[back] == straight.labels).all()
    assert (shuffled.probabilities[back] == straight.probabilities).all()


def test_one_member_is_itself_and_none_is_rejected():
    assert (ensemble.average([make(1)]).probabilities == make(1).probabilities).all()
    with pytest.raises(PredictionsError):
        ensemble.average([])


def other_keys(given):
    keys = given.keys.copy()
    keys[7] = "foreign"
    return changed(given, keys=keys)


def other_labels(given):
    labels = given.labels.copy()
    labels[3] = (labels[3] + 1) % 10
    return changed(given, labels=labels)


def doubled(given):
    keys = given.keys.copy()
    keys[7] = keys[8]
    return changed(given, keys=keys)


def not_finite(given):
    probabilities = given.probabilities.copy()
    probabilities[0, 0] = np.nan
    return changed(given, probabilities=probabilities)


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (make(2, count=299), "300 and 299 images, .*'00000299_val_299.JPEG'"),
        (make(2, count=301), "300 and 301 images, .*'00000300_val_300.JPEG'"),
        (other_keys(make(2)), "'00000007_val_7.JPEG'"),
        (other_labels(make(2, order_seed=4)), "1 of 300 labels"),
        (changed(make(2), labels=np.full(300, -1)), "300 of 300 labels"),
        (make(2, classes=11), "10 and 11 classes"),
    ],
)
def test_members_that_do_not_match_are_rejected_by_name(second, named):
    second = changed(second, path="b/predictions.npz")
    with pytest.raises(PredictionsError, match=named) as caught:
        ensemble.average([changed(make(1), path="a/predictions.npz"), make(3), second])
    assert str(caught.value).startswith("member 1 (a/predictions.npz) and member 3 (b/predictions.npz) ")


@pytest.mark.parametrize(("spoil", "named"), [(doubled, "'00000008_val_8.JPEG'"), (not_finite, "not finite")])
def test_invalid_members_are_rejected(spoil, named):
    with pytest.raises(PredictionsError, match=rf"member 2 \(model2\): .*{named}"):
        ensemble.average([make(1), spoil(make(2))])


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, -1], [0, 0], [1, np.nan], [np.inf, 1]])
def test_invalid_weights_are_rejected(weights):
    with pytest.raises(PredictionsError, match="weights"):
        ensemble.average([make(1), make(2)], weights)


def test_the_search_finds_the_best_prefix_of_the_greedy_path():
    members = [make(seed, skill=skill, order_seed=seed) for seed, skill in [(1, 0.2), (2, 1.2), (3, 1.0), (4, 0.1)]]
    found = ensemble.search(members)
    singles = [metrics.top_k(member, 1) for member in members]
    assert found.order[0] == int(np.argmax(singles))
    assert found.top1 >= max(singles)
    assert sum(found.weights) == pytest.approx(1)
    assert metrics.top_k(ensemble.average(members, found.weights), 1) == pytest.approx(found.top1, abs=1 / 300)
    prefixes = [np.bincount(found.order[:length], minlength=4) for length in range(1, len(found.order))]
    assert all(metrics.top_k(ensemble.average(members, prefix), 1) < found.top1 for prefix in prefixes)
    assert ensemble.search(members) == found


def test_two_rounds_of_the_search_are_those_of_brute_force():
    members = [make(seed, count=60, skill=0.8) for seed in range(1, 6)]
    found = ensemble.search(members, rounds=2)
    first = found.order[0]
    pairs = [metrics.top_k(ensemble.average([members[first], other]), 1) for other in members]
    assert found.top1 == pytest.approx(max(pairs))


# --- held-out folds ---


def certain(guesses, labels, model):
    """Predictions that are sure of `guesses`."""
    keys = np.array([f"{index:08d}_val_{index}.JPEG" for index in range(len(labels))])
    return Predictions(keys, np.array(labels), np.eye(3, dtype=np.float32)[guesses], {"model": model})


def test_held_out_scores_by_hand():
    """One member is always right and the other never: each choice is the first."""
    labels = np.arange(30) % 3
    right, wrong = certain(labels, labels, "right"), certain((labels + 1) % 3, labels, "wrong")
    held = ensemble.hold_out([wrong, right], 4)
    assert [fold["weights"] for fold in held.folds] == [(0, 1)] * 4
    assert [fold["count"] for fold in held.folds] == [8, 8, 7, 7]
    assert held.top1 == pytest.approx(held.chosen_on) == 1 and held.top1_interval == metrics.wilson(30, 30)
    both_wrong = ensemble.hold_out([wrong, wrong], 30)  # an image a fold
    assert both_wrong.top1 == 0 and {fold["count"] for fold in both_wrong.folds} == {1}


def test_folds_are_those_of_a_search_on_the_other_images():
    members = [make(seed, count=90, skill=0.7) for seed in (1, 2, 3)]
    order = np.random.default_rng(7).permutation(90)  # what hold_out documents: dealt out by seed, in order of keys
    held = ensemble.hold_out(members, 3, seed=7)
    right = 0
    for number, fold in enumerate(held.folds):
        out = np.isin(np.arange(90), order[number::3])
        parts = [
            [changed(m, keys=m.keys[pick], labels=m.labels[pick], probabilities=m.probabilities[pick]) for m in members]
            for pick in (~out, out)
        ]
        found = ensemble.search(parts[0])
        assert fold["weights"] == found.weights and fold["chosen_on"] == found.top1
        score = metrics.top_k(ensemble.average(parts[1], found.weights), 1)
        assert fold["top1"] == pytest.approx(score) and fold["count"] == 30
        right += 30 * score
    assert held.top1 == pytest.approx(right / 90)


def test_held_out_scores_depend_on_the_seed_and_not_on_the_order_of_images():
    members = [make(seed, skill=0.5) for seed in (1, 2, 3)]
    shuffled = [make(seed, skill=0.5, order_seed=10 + seed) for seed in (1, 2, 3)]
    held = ensemble.hold_out(members, 5, seed=3)
    assert ensemble.hold_out(shuffled, 5, seed=3) == held == ensemble.hold_out(members, 5, seed=3)
    assert ensemble.hold_out(members, 5, seed=4) != held


@pytest.mark.parametrize("folds", [-1, 0, 1, 301])
def test_invalid_numbers_of_folds_are_rejected(folds):
    with pytest.raises(PredictionsError, match=f"300 .*got {folds}"):
        ensemble.hold_out([make(1), make(2)], folds)


def test_members_with_different_classes_are_rejected_by_name():
    wnids = [f"n{index}" for index in range(10)]
    one, none = changed(make(1), meta={"wnids": wnids}), changed(make(3), meta={})
    assert ensemble.average([none, one]).meta["wnids"] == wnids
    other = changed(make(4), meta={"model": "m", "wnids": [*wnids[:8], "n9", "n8"]})
    with pytest.raises(PredictionsError, match="member 2 .* and member 3 .m."):
        ensemble.average([none, one, other])


def test_unlabelled_images_can_be_averaged_but_not_searched():
    members = [changed(make(seed), labels=np.full(300, -1)) for seed in (1, 2)]
    with pytest.raises(PredictionsError):
        ensemble.search(members)
    result = ensemble.describe(members, ensemble.average(members))
    assert result["ensemble"]["top1"] is None and result["ensemble"]["unlabelled"] == 300


def test_the_description_is_json():
    members = [changed(make(1), path="a.npz"), changed(make(2), path="b.npz")]
    result = json.loads(json.dumps(ensemble.describe(members, ensemble.average(members, [3, 1]), [3, 1])))
    assert result["weights"] == [0.75, 0.25]
    assert [(member["path"], member["name"]) for member in result["members"]] == [
        ("a.npz", "model1"),
        ("b.npz", "model2"),
    ]
    assert result["members"][0]["top1"] == metrics.top_k(members[0], 1)
    assert result["ensemble"] == metrics.summary(ensemble.average(members, [3, 1]))


# --- the script ---


@pytest.fixture
def files(tmp_path):
    for seed in (1, 2):
        predictions.save(tmp_path / f"model{seed}.npz", make(seed, order_seed=seed))
    predictions.save(tmp_path / "other.npz", make(3, count=299))
    return tmp_path


def test_the_script_prints_a_table_and_writes_the_average(files, tool):
    pair = ("model1.npz", "model2.npz")
    done = tool("ensemble", *pair, "--weights", 1, 3, "--out", "both.npz", cwd=files)
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()[1:]}
    both = ensemble.average([predictions.load(files / name) for name in pair], [1, 3])
    assert rows["model2"][1] == "0.750"
    assert rows["ensemble"][1] == f"{100 * metrics.top_k(both, 1):.2f}"
    assert (predictions.load(files / "both.npz").probabilities == both.probabilities).all()


def test_the_script_prints_one_json_object(files, tool):
    arguments = ("model1.npz", "model2.npz", "--search", "--folds", 4, "--seed", 9)
    result = json.loads(tool("ensemble", *arguments, "--json", cwd=files).stdout)
    assert set(result) == {"split", "crops", "records", "members", "ensemble", "weights", "search", "held_out"}
    assert result["search"]["note"] == ensemble.OPTIMISTIC
    assert result["ensemble"]["top1"] == pytest.approx(result["search"]["top1"], abs=1 / 300)
    held = ensemble.hold_out([predictions.load(files / f"model{seed}.npz") for seed in (1, 2)], 4, 9)
    assert result["held_out"]["top1"] == held.top1 and len(result["held_out"]["folds"]) == 4
    text = tool("ensemble", *arguments, cwd=files).stdout
    assert f"{100 * held.top1:.2f} %" in text and ensemble.OPTIMISTIC in text


# --- run folders ---


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run without predictions."""
    shutil.copytree(trained, tmp_path / "run", symlinks=True)
    for path in (tmp_path / "run").rglob("predictions*.npz"):
        path.unlink()
    return Run(tmp_path / "run")


def test_run_folders_stand_for_their_predictions(run, tool, tmp_path):
    other = shutil.copytree(run.path, tmp_path / "other", symlinks=True)
    error = tool("ensemble", run.path, other, fails=1).stderr
    assert "predictions.npz" in error and f"tools/evaluate.py {run.path}" in error
    error = tool("ensemble", run.path, other, "--split", "test", "--ten-crop", fails=1).stderr
    assert "predictions_test_tencrop.npz" in error and "--split test --ten-crop" in error
    tool("ensemble", tmp_path, run.path, fails=1)
    evaluate.evaluate_run(run)
    evaluate.evaluate_run(run, checkpoint="10", out=tmp_path / "ten.npz")
    done = tool("ensemble", run.path, tmp_path / "ten.npz", "--out", tmp_path / "both.npz")
    assert done.stderr == ""
    parts = [predictions.load(path) for path in (run.predictions, tmp_path / "ten.npz")]
    assert (predictions.load(tmp_path / "both.npz").probabilities == ensemble.average(parts).probabilities).all()


def test_predictions_of_an_earlier_best_are_noted(run, tool):
    evaluate.evaluate_run(run)
    best = int(run.weights("best").parent.name)
    other = next(iteration for iteration in run.iterations() if iteration != best)
    run.link("best", other)
    evaluate.evaluate_run(run, checkpoint=str(other))
    error = tool("ensemble", run.path, run.path / f"predictions_{other}.npz").stderr
    assert f"{run.predictions} is from iteration {best}" in error and error.count("\n") == 1


def test_checkpoints_can_be_members(run, tool, tmp_path):
    done = tool("ensemble", run.path, "--checkpoints", "--weights", 1, 3, "--out", tmp_path / "both.npz")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [row[:1] + row[2:3] for row in rows[:2]] == [["tiny@10", "0.250"], ["tiny@20", "0.750"]]
    each = [evaluate.predict_run(run, checkpoint=str(iteration)) for iteration in run.iterations()]
    want = ensemble.average(each, [1, 3]).probabilities
    assert (predictions.load(tmp_path / "both.npz").probabilities == want).all()
    kept = run.path / "checkpoints" / "10" / "predictions.npz"
    first = kept.stat().st_mtime_ns
    tool("ensemble", run.path, "--checkpoints")
    assert kept.stat().st_mtime_ns == first  # not predicted again
    os.utime(kept.with_name("weights.caffemodel"))
    tool("ensemble", run.path, "--checkpoints")
    assert kept.stat().st_mtime_ns > first
    assert not run.predictions.exists() and run.resume_from() is not None
    tool("ensemble", run.path, "--checkpoints", "--weights", 1, 1, 1, fails=1)
    shutil.rmtree(run.path / "checkpoints" / "10")
    assert "tiny@20 (run)" in tool("ensemble", run.path, "--checkpoints").stderr  # it is alone


def test_a_member_that_is_given_twice_is_rejected(run, tool, files):
    evaluate.evaluate_run(run)
    (files / "link.npz").symlink_to("model1.npz")
    for arguments in (
        [run.path, run.predictions],
        [run.path, run.path, "--checkpoints"],
        [files / "model1.npz", files / "model2.npz", files / "link.npz"],
    ):
        assert "given twice" in tool("ensemble", *arguments, fails=2).stderr
    assert not list(run.path.glob("checkpoints/*/predictions.npz"))  # rejected before predicting


def test_checkpoints_predict_the_given_data(run, tool, dataset, tmp_path):
    convert.convert(dataset, tmp_path / "moved", workers=1, seed=1)
    convert.convert(dataset, tmp_path / "shuffled", workers=1, seed=9)
    run.update(data=str(tmp_path / "gone"))
    assert "gone" in tool("ensemble", run.path, "--checkpoints", fails=1).stderr
    results = {}
    for name in ("moved", "shuffled", "moved"):
        done = tool("ensemble", run.path, "--checkpoints", "--data", tmp_path / name, "--json")
        results[name] = json.loads(done.stdout)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert results[name]["records"] == manifest["lmdbs"]["val"]["sha256"]
    want = metrics.summary(evaluate.predict_run(run, tmp_path / "shuffled", checkpoint="20"))["top1"]
    assert results["shuffled"]["members"][1]["top1"] == want
    assert "manifest.json" in tool("ensemble", run.path, "--checkpoints", "--data", tmp_path, fails=1).stderr


def test_provenance_is_written_and_printed(run, tool, tmp_path):
    for options in ({}, {"checkpoint": "10"}, {"ten_crop": True}, {"split": "test"}):
        evaluate.evaluate_run(run, **options)
    best = int(run.weights("best").parent.name)
    files = [run.path / f"predictions{name}.npz" for name in ("", "_10", "_tencrop", "_test")]
    result = json.loads(tool("ensemble", *files[:2], "--json").stdout)
    assert (result["split"], result["crops"]) == ("val", "centre")
    assert result["records"] == run.info["lmdbs"]["val"]["sha256"]
    keys = ("name", "model", "run", "checkpoint", "iteration", "split", "crops")
    assert [[member[key] for key in keys] for member in result["members"]] == [
        ["tiny", "tiny", str(run.path), "best", best, "val", "centre"],
        ["tiny", "tiny", str(run.path), "10", 10, "val", "centre"],
    ]
    done = tool("ensemble", files[0], files[2], "--out", tmp_path / "both.npz")
    assert "tiny (run, ten crops)" in done.stderr and "val split, mixed crops" in done.stdout
    assert predictions.load(tmp_path / "both.npz").meta["crops"] == "mixed"
    shutil.copy(files[3], tmp_path / "copy.npz")
    done = tool("ensemble", files[3], tmp_path / "copy.npz")
    assert "test split, centre crop" in done.stdout and done.stdout.count("20 unlabelled") == 3
    tool("ensemble", files[0], files[3], fails=1)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["model1.npz", "model2.npz", "--folds", "2"], 2, "--search"),
        (["model1.npz", "model2.npz", "--search", "--folds", "1"], 2, "--folds"),
        (["model1.npz", "model2.npz", "--search", "--folds", "301"], 1, "301"),
        (["model1.npz"], 2, "two"),
        (["model1.npz", "model2.npz", "--weights", "1"], 2, "--weights"),
        (["model1.npz", "model2.npz", "--weights", "1", "-1"], 2, "-1"),
        (["model1.npz", "model2.npz", "--weights", "1", "x"], 2, "'x'"),
        (["model1.npz", "model2.npz", "--weights", "0", "0", "--out", "both.npz"], 2, "--weights"),
        (["model1.npz", "model2.npz", "--out", "both.csv"], 2, ".npz"),
        (["model1.npz", "none.npz"], 1, "none.npz"),
        (["model1.npz", "other.npz", "--out", "both.npz"], 1, "300 and 299"),
        (["model1.npz", "model2.npz", "--split", "val"], 2, "--split"),
        (["model1.npz", "model2.npz", "--data", "x"], 2, "--checkpoints"),
        (["model1.npz", "model2.npz", "--search", "--seed", "0"], 2, "--folds"),
    ],
)
def test_the_script_rejects_in_one_line_and_writes_nothing(files, tool, arguments, status, named):
    before = sorted(files.iterdir())
    done = tool("ensemble", *arguments, fails=status, cwd=files)
    assert done.stdout == "" and done.stderr.count("\n") == 1 and named in done.stderr
    assert sorted(files.iterdir()) == before
