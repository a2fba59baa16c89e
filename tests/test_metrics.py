import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation import metrics, predictions
from tiny_imagenet.evaluation.predictions import Predictions


def make(probabilities, labels, **meta):
    keys = np.array([f"{index:08d}_val_{index}.JPEG" for index in range(len(labels))])
    return Predictions(keys, np.array(labels, np.int64), np.array(probabilities, np.float32), meta)


def random_predictions(seed=0, count=500, classes=20):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return make(probabilities, labels)


# --- scores against scikit-learn ---


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed):
    given_ = random_predictions(seed)
    truth, scores, classes = given_.labels, given_.probabilities, np.arange(20)
    for k in (1, 2, 5, 19):
        assert metrics.top_k(given_, k) == pytest.approx(top_k_accuracy_score(truth, scores, k=k, labels=classes))
    matrix = metrics.confusion(given_)
    assert (matrix == confusion_matrix(truth, scores.argmax(axis=1), labels=classes)).all()
    summary = metrics.summary(given_)
    assert summary["top1"] == pytest.approx(accuracy_score(truth, scores.argmax(axis=1)))
    exact = scores.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    assert summary["loss"] == pytest.approx(log_loss(truth, exact, labels=classes), rel=1e-5)


def test_a_tie_goes_to_the_lower_class():
    tied = [[0.4, 0.4, 0.2]] * 3
    assert metrics.ranks(make(tied, [0, 1, 2])).tolist() == [0, 1, 2]
    given_ = make([[0.2] * 5] * 5, range(5))
    assert [metrics.top_k(given_, k) for k in range(1, 6)] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert metrics.confusion(given_)[:, 0].tolist() == [1] * 5


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_are_those_of_a_stable_sort(data):
    classes = data.draw(st.integers(1, 6))
    count = data.draw(st.integers(1, 5))
    weights = np.array(data.draw(st.lists(st.integers(1, 3), min_size=count * classes, max_size=count * classes)))
    probabilities = weights.reshape(count, classes) / weights.reshape(count, classes).sum(axis=1, keepdims=True)
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    given_ = make(probabilities, labels)
    expected = [
        sorted(range(classes), key=lambda c, row=row: (-row[c], c)).index(label)
        for row, label in zip(given_.probabilities, labels)
    ]
    assert metrics.ranks(given_).tolist() == expected


@pytest.mark.parametrize("count", [1, 2, 7, 50, 10000])
def test_wilson_interval_agrees_with_scipy(count):
    for successes in {0, 1, count // 3, count // 2, count - 1, count}:
        want = binomtest(successes, count).proportion_ci(0.95, method="wilson")
        assert metrics.wilson(successes, count) == pytest.approx((want.low, want.high), abs=1e-12)


@pytest.mark.parametrize("classes", [3, 20])
def test_scores_of_each_class_agree_with_scikit_learn(classes):
    given_ = random_predictions(5, classes=classes)
    labels = given_.labels
    labels[labels == 1] = 0  # a class without images
    guesses = given_.probabilities.argmax(axis=1)
    _, recall, _, support = precision_recall_fscore_support(labels, guesses, labels=np.arange(classes), zero_division=0)
    rows = json.loads(json.dumps(metrics.class_scores(given_)))
    assert [row["count"] for row in rows] == support.tolist()
    assert [row["predicted"] for row in rows] == np.bincount(guesses, minlength=classes).tolist()
    for index, row in enumerate(rows):
        own = labels == index
        if index == 1:
            assert row["top1"] is row["top5"] is row["top1_interval"] is None and row["count"] == row["right"] == 0
            continue
        assert row["top1"] == pytest.approx(recall[index]) == row["right"] / row["count"]
        assert row["top1_interval"] == pytest.approx(metrics.wilson(row["right"], row["count"]))
        if classes < 5:
            assert row["top5"] is None
        else:
            each = top_k_accuracy_score(labels[own], given_.probabilities[own], k=5, labels=np.arange(classes))
            assert row["top5"] == pytest.approx(each)
    summary = metrics.summary(given_)
    assert sum(row["right"] for row in rows) == pytest.approx(summary["top1"] * summary["count"])


def test_the_most_confused_pairs_by_hand():
    order = [(0, 0), (0, 2), (0, 2), (1, 0), (1, 0), (1, 1), (2, 1)]  # true, predicted
    given_ = make(np.eye(3)[[guess for _, guess in order]], [true for true, _ in order])
    assert metrics.confused(given_) == [
        {"true": 0, "predicted": 2, "count": 2, "of": 3},
        {"true": 1, "predicted": 0, "count": 2, "of": 3},
        {"true": 2, "predicted": 1, "count": 1, "of": 1},
    ]
    assert metrics.confused(given_, 1) == metrics.confused(given_)[:1]
    assert metrics.confused(make(np.eye(3), range(3))) == []


def test_summary_is_json_and_consistent():
    given_ = random_predictions()
    summary = json.loads(json.dumps(metrics.summary(given_)))
    assert summary["count"] == 500 and summary["unlabelled"] == 0 and summary["classes"] == 20
    assert summary["error"] == pytest.approx(1 - summary["top1"])
    for key, other in (("error", "top1"), ("top5_error", "top5")):
        assert summary[f"{key}_interval"] == pytest.approx([1 - end for end in summary[f"{other}_interval"][::-1]])
        low, high = summary[f"{key}_interval"]
        assert low < summary[key] < high


def test_each_column_of_score_tables_is_a_key_of_the_summary():
    summary = metrics.summary(random_predictions())
    for score in metrics.SCORES:
        assert score.text(summary) == f"{100 * summary[score.key]:.2f}"
        low, high = summary[f"{score.key}_interval"]
        assert score.interval(summary) == f"{100 * low:.2f} to {100 * high:.2f}"
        assert score.text({}) == score.interval({}) == "-"


def test_unknown_labels_are_left_out():
    known = random_predictions()
    labels = known.labels.copy()
    labels[::2] = -1
    mixed = Predictions(known.keys, labels, known.probabilities)
    half = Predictions(known.keys[1::2], known.labels[1::2], known.probabilities[1::2])
    assert metrics.summary(mixed) == {**metrics.summary(half), "unlabelled": 250}
    assert (metrics.confusion(mixed) == metrics.confusion(half)).all()
    unknown = Predictions(known.keys, np.full(500, -1), known.probabilities, {}, "test.npz")
    for function in (metrics.summary, metrics.confusion, metrics.ranks):
        with pytest.raises(PredictionsError, match=r"test\.npz"):
            function(unknown)
    empty = metrics.summary_if_labelled(unknown)
    assert set(empty) == set(metrics.summary(known)) and (empty["count"], empty["top1"]) == (0, None)
    assert metrics.summary_if_labelled(known) == metrics.summary(known)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_probabilities_that_are_not_finite_are_not_scored(value):
    given_ = random_predictions(count=6)
    given_.labels[:2] = -1
    expected = metrics.summary(given_)
    given_.probabilities[1, 3] = value  # its label is unknown
    assert metrics.summary(given_) == expected
    given_.probabilities[4, given_.labels[4] - 1] = value
    for score in (metrics.labelled, metrics.ranks, metrics.summary, metrics.confusion):
        with pytest.raises(PredictionsError, match=r"1 images, such as '00000004_val_4\.JPEG'"):
            score(given_)
    given_.probabilities[:] = np.nan  # every comparison with NaN is false: all would be first
    with pytest.raises(PredictionsError, match="4 images"):
        metrics.top_k(given_, 1)


def test_few_classes_have_no_top_5():
    summary = metrics.summary(make([[0.5, 0.25, 0.25, 0]] * 2, [0, 3]))
    assert summary["top5"] is summary["top5_interval"] is summary["top5_error"] is None
    assert summary["top5_error_interval"] is None
    assert summary["top1"] == 0.5 and np.isfinite(summary["loss"])


# --- the file ---


def test_a_file_gives_back_what_was_saved(tmp_path):
    given_ = random_predictions()
    given_.meta.update(model="model1", split="val")
    path = tmp_path / "new" / "predictions.npz"
    predictions.save(path, given_)
    loaded = predictions.load(path)
    for name in ("keys", "labels", "probabilities"):
        assert (getattr(loaded, name) == getattr(given_, name)).all()
        assert getattr(loaded, name).dtype == getattr(given_, name).dtype
    assert loaded.meta == given_.meta and loaded.path == str(path) and loaded.name == "model1" and loaded.classes == 20
    assert [file.name for file in path.parent.iterdir()] == ["predictions.npz"]
    first = path.read_bytes()
    predictions.save(path, given_)
    assert path.read_bytes() == first


def test_names_without_a_model():
    given_ = random_predictions()
    for path, name in [("runs/a/predictions.npz", "a"), ("runs/both.npz", "both"), ("", "predictions")]:
        assert Predictions(given_.keys, given_.labels, given_.probabilities, {}, path).name == name


def write(path, **changes):
    given_ = random_predictions(count=4, classes=3)
    arrays = {name: getattr(given_, name) for name in ("keys", "labels", "probabilities")}
    arrays = {**arrays, "meta": np.array("{}"), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def changed(value, at=(1, 1)):
    array = random_predictions(count=4, classes=3).probabilities.copy()
    array[at] = value
    return array


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"meta": None}, "meta"),
        ({"keys": np.array(["a", "b", "c", "b"])}, "'b'"),
        ({"keys": np.arange(4)}, "keys: .*int64"),
        ({"keys": np.array([], "U1")}, r"keys: .*\(0,\)"),
        ({"keys": np.array(list("abc"))}, r"labels: .*\(4,\)"),
        ({"labels": np.array([0, 1, 3, 2])}, "00000002_val_2.JPEG.* -1 to 2"),
        ({"probabilities": changed(0.1).astype(np.float64)}, "probabilities: .*float64"),
        ({"probabilities": changed(0.1)[:3]}, r"probabilities: .*\(3, 3\)"),
        ({"probabilities": changed(np.nan)}, "00000001_val_1.JPEG"),
        ({"probabilities": changed(0.99)}, "00000001_val_1.JPEG"),
        ({"probabilities": np.full((4, 3), [1.5, -0.5, 0], np.float32)}, "negative"),
        ({"meta": np.array("[1]")}, "meta"),
        ({"meta": np.array({"a": 1}, object)}, "allow_pickle"),
    ],
)
def test_an_invalid_file_is_rejected(tmp_path, changes, named):
    write(tmp_path / "bad.npz", **changes)
    with pytest.raises(PredictionsError, match=named) as caught:
        predictions.load(tmp_path / "bad.npz")
    assert str(caught.value).startswith(f"{tmp_path / 'bad.npz'}: ")


def test_other_files_are_rejected(tmp_path):
    whole = tmp_path / "whole.npz"
    write(whole)
    predictions.load(whole)
    cases = {"text.npz": b"keys,labels\n", "empty.npz": b"", "half.npz": whole.read_bytes()[:700]}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in [*cases, "array.npy", "missing.npz", "."]:
        with pytest.raises(PredictionsError, match=r"tools/evaluate\.py"):
            predictions.load(tmp_path / name)


def test_invalid_predictions_are_not_saved(tmp_path):
    given_ = random_predictions(count=4, classes=3)
    with pytest.raises(PredictionsError, match=r"a\.npy"):
        predictions.save(tmp_path / "a.npy", given_)
    wrong = Predictions(given_.keys, given_.labels, given_.probabilities.astype(np.float64))
    with pytest.raises(PredictionsError, match="float64"):
        predictions.save(tmp_path / "a.npz", wrong)
    assert not list(tmp_path.iterdir())
