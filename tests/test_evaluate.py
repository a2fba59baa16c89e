import json
import shutil

import cv2
import numpy as np
import pytest

from tiny_imagenet import evaluate, lmdb_reader, metrics, predictions
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.predict import Predictor, predict
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
    from tiny_imagenet import datum

    return datum.read_mean(run.mean)


def test_the_test_split_has_predictions_and_no_score(tool, trained, data):
    assert "20 images without labels" in tool("evaluate", trained, "--data", data, "--split", "test").stdout
    assert (predictions.load(trained / "predictions_test.npz").labels == -1).all()


def test_a_net_and_weights_without_a_run_folder(tool, trained, data, tmp_path):
    run = Run(trained)
    arguments = ("--net", run.deploy, "--weights", run.weights(), "--data", data)
    result = json.loads(tool("evaluate", *arguments, "--out", tmp_path / "p.npz", "--json").stdout)
    assert result["top1"] == evaluate.evaluate_run(run, data)["top1"]
    assert predictions.load(tmp_path / "p.npz").classes == 10


def test_mistakes(tool, trained, data, tmp_path):
    assert "not a run folder" in tool("evaluate", tmp_path, "--data", data, fails=1).stderr
    error = tool("evaluate", trained, "--data", data, "--checkpoint", "15", fails=1).stderr
    assert "no checkpoint '15': it has best, last, 10, 20" in error
    assert "manifest.json is missing" in tool("evaluate", trained, "--data", tmp_path, fails=1).stderr
    tool("evaluate", fails=2)
    tool("evaluate", trained, "--net", "x", fails=2)
    tool("evaluate", trained, "--out", "x.csv", fails=2)
    tool("evaluate", trained, "--split", "validation", fails=2)
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
    evaluate.evaluate_run(Run(trained), data, checkpoint="10", out=tmp_path / "other.npz")
    assert Run(trained).evaluation.read_bytes() == before


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
