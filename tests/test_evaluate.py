"""tools/evaluate.py: predictions and scores of run folders, and of nets with weights."""

import json
import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, PredictionsError, RunError, TinyImageNetError
from tiny_imagenet.evaluation import evaluate, metrics, predictions
from tiny_imagenet.runs import Run


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the run folder."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    return Run(tmp_path / "copy")


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


def test_opencv_predicts_the_same(trained, data, tmp_path):
    """LReLU under its stock name: a ReLU with a slope."""
    run = Run(trained)
    stock = run.deploy.read_text().replace('type: "LReLU"', 'type: "ReLU"\n  relu_param { negative_slope: 0.01 }')
    (tmp_path / "deploy.prototxt").write_text(stock)
    net = cv2.dnn.readNetFromCaffe(str(tmp_path / "deploy.prototxt"), str(run.weights()))
    images = np.stack([image for _, _, image in lmdb_reader.records(data / "val.lmdb")]) - datum.read_mean(run.mean)
    net.setInput(np.ascontiguousarray(images[:, :, 4:60, 4:60]))
    ours = evaluate.predict_run(run, data).probabilities
    np.testing.assert_allclose(ours, net.forward(), rtol=1e-3, atol=1e-5)


def test_the_run_folder_alone_is_read(copy, data):
    before = evaluate.predict_run(copy, data).probabilities
    copy.deploy.unlink()
    text = copy.train_val.read_text()
    assert "mean.binaryproto" in text
    copy.train_val.write_text(text.replace("mean.binaryproto", "moved.binaryproto"))
    np.testing.assert_array_equal(evaluate.predict_run(copy, data).probabilities, before)


def test_other_splits_crops_and_checkpoints_have_files_of_their_own(tool, trained, data):
    run = Run(trained)
    evaluate.evaluate_run(run, data)
    before = run.predictions.read_bytes(), run.evaluation.read_bytes()
    assert tool("evaluate", trained, "--data", data, "--ten-crop").stdout.startswith("val, ten crops: top-1 ")
    result = json.loads((trained / "evaluation_tencrop.json").read_text())
    given = predictions.load(trained / "predictions_tencrop.npz")
    assert result["crops"] == given.meta["crops"] == "ten: four corners, centre, and their mirrors"
    assert result["predictions"] == "predictions_tencrop.npz"
    evaluate.evaluate_run(run, data, checkpoint="10")
    other = json.loads((trained / "evaluation_10.json").read_text())
    assert other["checkpoint"] == 10 and other["predictions"] == "predictions_10.npz"
    assert "20 images without labels" in tool("evaluate", trained, "--data", data, "--split", "test").stdout
    assert (predictions.load(trained / "predictions_test.npz").labels == -1).all()
    evaluate.evaluate_run(run, data, split="test", ten_crop=True, checkpoint="last")
    assert (trained / "predictions_test_tencrop_last.npz").is_file()
    assert (run.predictions.read_bytes(), run.evaluation.read_bytes()) == before


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
    most = max(matrix[i, j] for i in range(10) for j in range(10) if i != j)
    assert result["confused"][0]["count"] == most
    shares = [float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("n0000")]
    assert len(shares) == 10 and shares == sorted(shares)


@pytest.mark.parametrize("changes", [{"count": 41}, {"sha256": "0" * 64}])
def test_records_that_differ_from_the_manifest_are_refused(copy, data, tmp_path, changes):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["lmdbs"]["val"].update(changes)
    (other / "manifest.json").write_text(json.dumps(manifest))
    copy.predictions.unlink(missing_ok=True)
    with pytest.raises(DatasetError, match=r"val\.lmdb"):
        evaluate.evaluate_run(copy, other)
    assert not copy.predictions.exists()


def test_data_with_other_classes_is_refused(trained, data, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(data, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"].pop()
    (other / "manifest.json").write_text(json.dumps(manifest))
    run = Run(trained)
    with pytest.raises(RunError, match="other classes"):
        evaluate.evaluate_run(run, other)
    with pytest.raises(NetError, match="10 outputs.* 9 classes"):
        evaluate.evaluate_files(other, run.train_val, run.weights())


def test_a_net_that_diverged_is_refused(copy, data):
    import caffe

    net = caffe.Net(str(copy.deploy), caffe.TEST, weights=copy.weights())
    net.params["fc3"][0].data[...] = np.nan
    net.save(str(copy.weights()))
    with pytest.raises(PredictionsError, match="not finite"):
        evaluate.predict_run(copy, data)


def test_a_net_and_weights_without_a_run_folder(tool, trained, data, tmp_path):
    run = Run(trained)
    top1 = evaluate.evaluate_run(run, data)["top1"]
    for net in (run.train_val, run.deploy):
        arguments = ("--net", net, "--weights", run.weights(), "--data", data)
        result = json.loads(tool("evaluate", *arguments, "--out", tmp_path / "p.npz", "--json").stdout)
        assert result["top1"] == top1 and predictions.load(tmp_path / "p.npz").classes == 10
    assert tool("evaluate", *arguments).stdout.count("\n") == 1  # no file is written


def test_a_net_in_an_old_format_is_upgraded(trained, data, tmp_path):
    run = Run(trained)
    body = run.deploy.read_text()
    for new, old in (("InnerProduct", "INNER_PRODUCT"), ("Convolution", "CONVOLUTION"), ("Pooling", "POOLING")):
        body = body.replace(f'"{new}"', old)
    body = body.replace('"LReLU"', "RELU relu_param { negative_slope: 0.01 }").replace('"Softmax"', "SOFTMAX")
    start = body.index("layer", body.index("layer") + 1)
    old = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 56 input_dim: 56\n' + body[start:].replace(
        "layer {", "layers {"
    )
    (tmp_path / "old.prototxt").write_text(old)
    result = evaluate.evaluate_files(data, tmp_path / "old.prototxt", run.weights())
    assert result["loss"] == pytest.approx(evaluate.evaluate_run(run, data)["loss"], rel=1e-6)


def test_another_mean_is_subtracted_if_it_is_named(trained, data, tmp_path):
    run = Run(trained)
    datum.write_mean(tmp_path / "zero.binaryproto", np.zeros((3, 64, 64), np.float32))
    found = []
    for name in ("zero.binaryproto", None):
        evaluate.evaluate_files(data, run.deploy, run.weights(), mean=name and tmp_path / name, out=tmp_path / "p.npz")
        found.append(predictions.load(tmp_path / "p.npz").probabilities)
    np.testing.assert_array_equal(found[1], evaluate.predict_run(run, data).probabilities)
    assert (found[0] != found[1]).any()


def test_the_script_says_where_the_files_are(tool, trained, tmp_path):
    out, matrix = tmp_path / "new" / "p.npz", tmp_path / "m.csv"
    assert str(trained / "predictions.npz") in tool("evaluate", trained).stdout
    lines = tool("evaluate", trained, "--out", out, "--confusion", matrix).stdout.splitlines()
    assert str(out) in lines[-2] and str(matrix) in lines[-1]
    assert out.is_file() and matrix.is_file()


def test_files_that_cannot_be_written_are_refused_before_predicting(trained, data, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "Evaluator", None)
    run = Run(trained)
    (tmp_path / "file").write_text("")
    (tmp_path / "a.npz").mkdir()
    for options in (
        {"out": tmp_path / "p.csv"},
        {"out": tmp_path / "a.npz"},
        {"out": tmp_path / "file" / "p.npz"},
        {"confusion": tmp_path / "m.npz"},
        {"confusion": tmp_path / "file" / "m.csv"},
        {"confusion": tmp_path / "m.csv", "split": "test"},
    ):
        with pytest.raises(TinyImageNetError):
            evaluate.evaluate_run(run, **options)
        with pytest.raises(TinyImageNetError):
            evaluate.evaluate_files(data, run.deploy, run.weights(), **options)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["RUN", "--out", "/"], 2, "--out"),
        (["RUN", "--out", "p.NPZ"], 2, "p.NPZ"),
        (["RUN", "--confusion", "m.txt"], 2, "m.txt"),
        (["RUN", "--split", "test", "--confusion", "m.csv"], 2, "--confusion"),
        (["RUN", "--split", "test", "--per-class"], 2, "--per-class"),
        (["RUN", "--split", "vall"], 2, "Did you mean 'val'"),
        (["RUN", "--gpu", "x"], 2, "'x'"),
        (["--net", "a", "--weights", "b", "--data", "c", "--checkpoint", "last"], 2, "--checkpoint"),
        ([], 2, "RUN"),
        (["/", "--data", "DATA"], 1, "run.json"),
        (["RUN", "--data", "DATA", "--checkpoint", "15"], 1, "'15'"),
        (["RUN", "--data", "/"], 1, "manifest.json"),
        (["--net", "DEPLOY", "--data", "DATA", "--weights", "/"], 1, "/"),
        (["--net", "DEPLOY", "--data", "DATA", "--weights", "DEPLOY"], 1, "deploy.prototxt"),
    ],
)
def test_the_script_refuses_in_one_line(tool, trained, data, arguments, status, named):
    places = {"RUN": trained, "DATA": data, "DEPLOY": trained / "deploy.prototxt"}
    done = tool("evaluate", *(places.get(argument, argument) for argument in arguments), fails=status)
    assert named in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_run_whose_data_is_missing_names_the_option(tool, copy, data, tmp_path):
    copy.update(data=str(tmp_path / "gone"))
    error = tool("evaluate", copy.path, fails=1).stderr
    assert str(tmp_path / "gone") in error and "--data" in error
    assert "top-1" in tool("evaluate", copy.path, "--data", data).stdout
