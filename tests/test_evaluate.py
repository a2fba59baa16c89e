import json
import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix

from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, RunError, TinyImageNetError
from tiny_imagenet.evaluation import evaluate, metrics, predictions
from tiny_imagenet.evaluation.predict import Predictor, predict
from tiny_imagenet.runs import Run


def test_every_record_is_predicted_once_and_the_files_agree(tool, trained, data):
    printed = json.loads(tool("evaluate", trained, "--data", data, "--json").stdout)
    run = Run(trained)
    given = predictions.load(run.predictions)
    assert json.loads(run.evaluation.read_text()) == printed
    assert list(given.keys) == [key for key, _, _ in lmdb_reader.records(data / "val.lmdb")]
    assert list(given.labels) == [label for _, label, _ in lmdb_reader.records(data / "val.lmdb")]
    assert printed["top1"] == metrics.summary(given)["top1"] == np.mean(given.probabilities.argmax(1) == given.labels)
    assert given.meta["class_names"][3] == "three"


def test_the_score_is_the_one_of_the_training_loop(trained, data):
    best = Run(trained).weights("best").parent.name
    recorded = next(r for r in Run(trained).metrics() if r["iteration"] == int(best) and "top1" in r)
    result = evaluate.evaluate_run(Run(trained), data)
    assert result["top1"] == recorded["top1"]
    assert result["loss"] == pytest.approx(recorded["validation_loss"], rel=1e-6)


def test_the_batch_does_not_matter(trained, data):
    run = Run(trained)
    one, other = (
        predict(Predictor(run.deploy, run.mean, run.weights(), batch), data / "val.lmdb").probabilities
        for batch in (7, 40)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-7)


def test_opencv_predicts_the_same_from_the_files(trained, data, tmp_path):
    """LReLU under its stock name: a ReLU with a slope."""
    run = Run(trained)
    stock = run.deploy.read_text().replace('type: "LReLU"', 'type: "ReLU"\n  relu_param { negative_slope: 0.01 }')
    (tmp_path / "deploy.prototxt").write_text(stock)
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "deploy.prototxt"), str(run.weights()))
    mean = predict_mean(run)
    images = np.stack([image for _, _, image in lmdb_reader.records(data / "val.lmdb")]) - mean
    net.setInput(np.ascontiguousarray(images[:, :, 4:60, 4:60]))
    ours = predict(Predictor(run.deploy, run.mean, run.weights()), data / "val.lmdb").probabilities
    np.testing.assert_allclose(ours, net.forward(), rtol=1e-3, atol=1e-5)


def predict_mean(run):
    return datum.read_mean(run.mean)


def test_ten_crops_have_files_of_their_own(tool, trained, data):
    evaluate.evaluate_run(Run(trained), data)
    before = Run(trained).predictions.read_bytes(), Run(trained).evaluation.read_bytes()
    done = tool("evaluate", trained, "--data", data, "--ten-crop")
    assert done.stdout.startswith("val, ten crops: top-1 ")
    given = predictions.load(trained / "predictions_tencrop.npz")
    result = json.loads((trained / "evaluation_tencrop.json").read_text())
    assert result["crops"] == given.meta["crops"] == "ten: four corners, centre, and their mirrors"
    assert result["predictions"] == "predictions_tencrop.npz"
    assert result["top1"] == accuracy_score(given.labels, given.probabilities.argmax(axis=1))
    assert (Run(trained).predictions.read_bytes(), Run(trained).evaluation.read_bytes()) == before
    evaluate.evaluate_run(Run(trained), data, "test", ten_crop=True)
    assert (trained / "predictions_test_tencrop.npz").is_file()


def test_classes_and_confusion_are_those_of_scikit_learn(tool, trained, data, tmp_path):
    out = tmp_path / "confusion.csv"
    done = tool("evaluate", trained, "--data", data, "--per-class", "--confusion", out)
    given = predictions.load(Run(trained).predictions)
    matrix = confusion_matrix(given.labels, given.probabilities.argmax(axis=1), labels=range(10))
    head, *rows = [line.split(",") for line in out.read_text().splitlines()]
    wnids = [f"n{index:08d}" for index in range(10)]
    assert head == ["true", *wnids] and [row[0] for row in rows] == wnids
    assert np.array([row[1:] for row in rows], int).tolist() == matrix.tolist()
    result = json.loads(Run(trained).evaluation.read_text())
    assert [(row["index"], row["wnid"], row["right"]) for row in result["per_class"]] == [
        (index, wnid, matrix[index, index]) for index, wnid in enumerate(wnids)
    ]
    assert result["per_class"][3]["words"] == "three"
    most = max(matrix[i, j] for i in range(10) for j in range(10) if i != j)
    assert result["confused"][0]["count"] == most
    printed = [line for line in done.stdout.splitlines() if line.startswith("n0000")]
    shares = [float(line.split()[2]) for line in printed]
    assert len(printed) == 10 and shares == sorted(shares)
    assert "most often taken for another:" in done.stdout


def test_records_that_are_not_the_manifests_are_refused(trained, data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())

    def write(**changes):
        entry = {**manifest["lmdbs"]["val"], **changes}
        text = json.dumps({**manifest, "lmdbs": {**manifest["lmdbs"], "val": entry}})
        (other / "manifest.json").write_text(text)

    before = Run(trained).predictions.stat().st_mtime_ns if Run(trained).predictions.is_file() else None
    write(count=41)
    with pytest.raises(DatasetError, match=r"val\.lmdb has 40 records, the manifest says 41"):
        evaluate.evaluate_run(Run(trained), other)
    write(sha256="0" * 64)
    with pytest.raises(DatasetError, match=r"keys or labels are not those of the manifest"):
        evaluate.evaluate_run(Run(trained), other)
    after = Run(trained).predictions.stat().st_mtime_ns if Run(trained).predictions.is_file() else None
    assert before == after
    write()
    assert evaluate.evaluate_run(Run(trained), other, out=tmp_path / "p.npz")["count"] == 40


def test_a_net_that_gives_no_probabilities_is_refused(tool, trained, data, tmp_path):
    run = Run(trained)
    text = run.deploy.read_text()
    (tmp_path / "sigmoid.prototxt").write_text(text + 'layer { name: "s" type: "Sigmoid" bottom: "prob" top: "s" }')
    arguments = ("--net", tmp_path / "sigmoid.prototxt", "--weights", run.weights(), "--data", data)
    error = tool("evaluate", *arguments, "--out", tmp_path / "p.npz", fails=1).stderr
    assert "not 1: the net must end in a Softmax layer" in error and not (tmp_path / "p.npz").exists()


def test_another_mean_is_subtracted_where_it_is_named(trained, data, tmp_path):
    run = Run(trained)
    datum.write_mean(tmp_path / "zero.binaryproto", np.zeros((3, 64, 64), np.float32))
    own, zero = (
        evaluate.evaluate(data, run.deploy, run.weights(), mean) for mean in (run.mean, tmp_path / "zero.binaryproto")
    )
    evaluate.evaluate_files(data, run.deploy, run.weights(), out=tmp_path / "own.npz")
    assert (predictions.load(tmp_path / "own.npz").probabilities == own.probabilities).all()
    evaluate.evaluate_files(
        data, run.deploy, run.weights(), out=tmp_path / "zero.npz", mean=tmp_path / "zero.binaryproto"
    )
    assert (predictions.load(tmp_path / "zero.npz").probabilities == zero.probabilities).all()
    assert (zero.probabilities != own.probabilities).any()


def test_the_test_split_has_predictions_and_no_score(tool, trained, data):
    assert "20 images without labels" in tool("evaluate", trained, "--data", data, "--split", "test").stdout
    assert (predictions.load(trained / "predictions_test.npz").labels == -1).all()


def test_a_net_and_weights_without_a_run_folder(tool, trained, data, tmp_path):
    run = Run(trained)
    arguments = ("--net", run.deploy, "--weights", run.weights(), "--data", data)
    result = json.loads(tool("evaluate", *arguments, "--out", tmp_path / "p.npz", "--json").stdout)
    assert result["top1"] == evaluate.evaluate_run(run, data)["top1"]
    assert predictions.load(tmp_path / "p.npz").classes == 10


def test_the_script_says_where_things_are(tool, trained, data, tmp_path):
    out, matrix = tmp_path / "new" / "p.npz", tmp_path / "m.csv"
    assert tool("evaluate", trained).stdout.endswith(f"\nthe predictions are in {trained}/predictions.npz\n")
    lines = tool("evaluate", trained, "--out", out, "--confusion", matrix, "--per-class").stdout.splitlines()
    assert lines[-2:] == [f"the predictions are in {out}", f"the confusion matrix is in {matrix}"]
    assert out.is_file() and matrix.is_file()
    arguments = ("--net", Run(trained).deploy, "--weights", Run(trained).weights(), "--data", data)
    assert tool("evaluate", *arguments).stdout.count("\n") == 1  # nothing was written


@pytest.fixture
def unpredicted(monkeypatch):
    """No net predicts."""

    def fail(*_, **__):
        raise AssertionError("a net was going to predict")

    monkeypatch.setattr(evaluate, "Predictor", fail)


def test_files_that_cannot_be_written_are_refused_before_anything_is_predicted(trained, data, tmp_path, unpredicted):
    run = Run(trained)
    (tmp_path / "file").write_text("")
    (tmp_path / "a.npz").mkdir()
    for ways, message in (
        ({"out": tmp_path / "p.csv"}, "does not end in .npz"),
        ({"out": tmp_path / "a.npz"}, "is a folder: name a file in it"),
        ({"out": tmp_path / "file" / "p.npz"}, "Not a directory"),
        ({"confusion": tmp_path / "m.npz"}, "does not end in .csv"),
        ({"confusion": tmp_path / "file" / "m.csv"}, "Not a directory"),
        ({"confusion": tmp_path / "m.csv", "split": "test"}, "the test split has no labels"),
    ):
        for call in (
            lambda ways: evaluate.evaluate_run(run, **ways),
            lambda ways: evaluate.evaluate_files(data, run.deploy, run.weights(), **ways),
        ):
            with pytest.raises(TinyImageNetError, match=message):
                call(ways)
    moved = Run(tmp_path / "moved")
    shutil.copytree(trained, moved.path, symlinks=True)
    moved.predictions.unlink(missing_ok=True)
    moved.predictions.mkdir()
    with pytest.raises(TinyImageNetError, match=r"predictions\.npz is a folder"):
        evaluate.evaluate_run(moved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "FOLDER"], "--out: FOLDER does not end in .npz"),
        (["--out", "FOLDER/a.npz"], "a.npz is a folder: name a file in it"),
        (["--out", "p.NPZ"], "p.NPZ does not end in .npz"),
        (["--confusion", "m.txt"], "--confusion: m.txt does not end in .csv"),
        (["--split", "test", "--confusion", "m.csv"], "has none of: take --split train, train_screened or val"),
        (["--split", "test", "--per-class"], "--per-class needs labels, which the split test has none of"),
        (["--split", "validation"], "invalid choice: 'validation'"),
        (["--gpu", "x"], "'x' is not the number of a GPU"),
        (["--net", "x"], "not both"),
        (["--mean", "x"], "not both"),
    ],
)
def test_bad_use_is_told_at_once(tool, tmp_path, arguments, message):
    (tmp_path / "a.npz").mkdir()
    arguments = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
    done = tool("evaluate", "no_run", *arguments, fails=2)  # that there is no such run is found later
    assert message.replace("FOLDER", str(tmp_path)) in done.stderr and done.stderr.count("\n") == 1


def test_a_checkpoint_is_one_of_a_run(tool):
    arguments = ("--net", "a", "--weights", "b", "--data", "c", "--checkpoint", "last")
    assert "--checkpoint is one of a run folder" in tool("evaluate", *arguments, fails=2).stderr


def test_a_run_whose_data_is_gone_is_told_of_the_option(tool, trained, data, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, symlinks=True)
    run.update(data=str(tmp_path / "gone"))
    error = tool("evaluate", run.path, fails=1).stderr
    assert f"was trained on {tmp_path}/gone, which is not there any more: name the data folder with --data" in error
    assert "top-1" in tool("evaluate", run.path, "--data", data).stdout


def test_mistakes(tool, trained, data, tmp_path):
    assert "not a run folder" in tool("evaluate", tmp_path, "--data", data, fails=1).stderr
    error = tool("evaluate", trained, "--data", data, "--checkpoint", "15", fails=1).stderr
    assert "no checkpoint '15': it has best, last, 10, 20" in error
    assert "manifest.json is missing" in tool("evaluate", trained, "--data", tmp_path, fails=1).stderr
    tool("evaluate", fails=2)
    with pytest.raises(RunError):
        Run(trained).weights("../../etc")


def test_weights_that_are_not_the_net_s_are_refused(tool, trained, data, tmp_path):
    run = Run(trained)
    (tmp_path / "empty").write_bytes(b"")
    arguments = ("--net", run.deploy, "--data", data, "--weights")
    assert "weights of no layer" in tool("evaluate", *arguments, tmp_path / "empty", fails=1).stderr
    assert "cannot read the weights" in tool("evaluate", *arguments, tmp_path, fails=1).stderr
    assert "no caffemodel" in tool("evaluate", *arguments, run.deploy, fails=1).stderr


def test_scores_elsewhere_leave_the_run_s_own(trained, data, tmp_path):
    evaluate.evaluate_run(Run(trained), data)
    before = Run(trained).evaluation.read_bytes()
    kept = Run(trained).predictions.read_bytes()
    evaluate.evaluate_run(Run(trained), data, checkpoint="10", out=tmp_path / "other.npz")
    evaluate.evaluate_run(Run(trained), data, checkpoint="10")
    assert Run(trained).evaluation.read_bytes() == before and Run(trained).predictions.read_bytes() == kept
    other = json.loads((trained / "evaluation_10.json").read_text())
    assert other["checkpoint"] == 10 and other["predictions"] == "predictions_10.npz"


def test_data_of_another_number_of_classes_is_refused(trained, data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"].pop()
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuntimeError, match="other classes"):
        evaluate.evaluate_run(Run(trained), other)
    with pytest.raises(DatasetError, match="no LMDB|not an LMDB"):
        predict(Predictor(Run(trained).deploy, Run(trained).mean, Run(trained).weights()), tmp_path / "val.lmdb")
