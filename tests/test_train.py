import fcntl
import json

import caffe
import numpy as np
import pytest

from conftest import write_tiny_net
from tiny_imagenet import lmdb_reader, nets, train
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.runs import Run
from tiny_imagenet.train import Options, Plateau


def test_a_run_folder_has_what_the_contract_says(trained, data):
    run = Run(trained)
    info = run.info
    assert info["model"] == "tiny"
    assert (info["seed"], info["batch"], info["classes"], info["train_images"]) == (1, 20, 10, 200)
    assert info["nonlinearity"] == "LReLU"
    assert info["versions"]["caffe"] == caffe.__version__
    records = run.metrics()
    validated = [record for record in records if "top1" in record]
    assert [record["iteration"] for record in validated] == [10, 20]
    assert [record["epoch"] for record in validated] == [1, 2]
    assert all(0 <= record["top1"] <= record["top5"] <= 1 for record in validated)
    assert validated[-1]["learning_rate"] == 0.0003
    assert run.iterations() == [10, 20]
    for iteration in run.iterations():
        folder = trained / "checkpoints" / str(iteration)
        assert sorted(path.name for path in folder.iterdir()) == [
            "solver.solverstate",
            "state.json",
            "weights.caffemodel",
        ]
        assert json.loads((folder / "state.json").read_text())["iteration"] == iteration
    assert run.weights("last").parent.name == "20"
    best = max(validated, key=lambda record: record["top1"])
    assert run.weights("best").parent.name == str(best["iteration"])
    assert list(run.events.iterdir())
    assert not list(trained.rglob("*.tmp"))


def test_weights_of_the_last_checkpoint_are_those_validated(trained, data):
    """The recorded loss is found again from the file, by a net of Caffe's own with its own mean and crop."""
    run = Run(trained)
    net = caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights("last")))
    mean = caffe.proto.caffe_pb2.BlobProto.FromString(run.mean.read_bytes())
    mean = caffe.io.blobproto_to_array(mean)[0]
    losses = []
    for _, label, image in lmdb_reader.records(data / "val.lmdb"):
        net.blobs["data"].data[0] = (image - mean)[:, 4:60, 4:60]
        losses.append(-np.log(net.forward()["prob"][0, label]))
    assert run.metrics()[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_same_seed_gives_the_same_weights(tiny_solver, data, tmp_path):
    def weights(name, seed):
        train.train(str(tiny_solver), Options(data=data, run=tmp_path / name, max_iter=5, seed=seed))
        return Run(tmp_path / name).weights("last").read_bytes()

    assert weights("a", 3) == weights("b", 3)
    assert weights("a2", 3) != weights("c", 4)


def test_an_untouched_model_is_fitted_to_the_data_and_says_so(tool, data, tmp_path):
    done = tool(
        "train", "model1", "--data", data, "--run", tmp_path / "run", "--batch", 4, "--max-iter", 1, "--base-lr", 1e-4
    )
    assert "outputs of fc3: 10 (the file says 200)" in done.stderr
    assert "training batch: 4 (the file says 200)" in done.stderr
    assert "best top-1" in done.stdout
    run = Run(tmp_path / "run")
    assert nets.outputs(nets.read(run.deploy)) == 10
    assert run.info["model"] == "model1"
    assert run.info["parameters"] == 1_969_544 - 190 * 257


def test_init_takes_weights_by_layer_name(trained, tiny_solver, data, tmp_path):
    weights = Run(trained).weights("last")
    options = Options(data=data, run=tmp_path / "run", max_iter=1, base_lr=1e-12, init=weights)
    train.train(str(tiny_solver), options)
    net, new = (
        caffe.Net(str(Run(trained).deploy), caffe.TEST, weights=str(w)) for w in (weights, Run(options.run).weights())
    )
    np.testing.assert_allclose(net.params["conv1_1"][0].data, new.params["conv1_1"][0].data, rtol=1e-6)


def test_plateau_drops_and_stops():
    plateau = Plateau(factor=0.1, patience=2, drops=2)
    verdicts = [plateau.update(top1) for top1 in (0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.1)]
    assert verdicts == ["best", "best", "wait", "drop", "best", "wait", "stop"]


def test_the_rate_drops_in_a_run(tiny_solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train.Plateau, "update", lambda self, top1: "drop")
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=2))
    rates = [record["learning_rate"] for record in Run(tmp_path / "run").metrics()]
    assert rates == pytest.approx([3e-4, 3e-5])


def test_old_checkpoints_are_removed_but_the_best(tiny_solver, data, tmp_path, monkeypatch):
    verdicts = iter(["best", "wait", "wait", "wait"])
    monkeypatch.setattr(train.Plateau, "update", lambda self, top1: next(verdicts))
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=4, keep=1))
    assert Run(tmp_path / "run").iterations() == [10, 40]


# Mistakes: one clear line, and no run folder where there was none.


def refused(error, match, source, run, **options):
    with pytest.raises(error, match=match) as caught:
        train.train(str(source), Options(run=run, **options))
    assert "\n" not in str(caught.value)
    assert not run.exists()


def test_data_that_is_missing_or_half_there(tiny_solver, data, tmp_path):
    refused(DatasetError, "manifest.json is missing", tiny_solver, tmp_path / "run", data=tmp_path / "nowhere")
    half = tmp_path / "half"
    half.mkdir()
    for name in ("manifest.json", "mean.binaryproto"):
        (half / name).write_bytes((data / name).read_bytes())
    refused(DatasetError, r"wants train\.lmdb", tiny_solver, tmp_path / "run", data=half)


def test_nets_that_are_wrong(tiny_solver, data, tmp_path):
    train_val = tiny_solver.with_name("train_val.prototxt")
    good = train_val.read_text()
    for old, new, says in [
        ("crop_size", "crop_sise", r"train_val\.prototxt:4:\d+: .*crop_sise"),
        ('type: "LReLU"', 'type: "LRelu"', "does not build: .*LRelu"),
        ("num_output: 10", "num_output: 200", "200 outputs, the data set 10 classes"),
        ("crop_size: 56", "crop_size: 48", "crops 48 pixels, the deploy net takes 56"),
        ("train.lmdb", "other.lmdb", r"wants other\.lmdb"),
        ("phase: TRAIN", "phase: TEST", "one Data layer for training"),
    ]:
        train_val.write_text(good.replace(old, new))
        refused(NetError if "lmdb" not in says else DatasetError, says, tiny_solver, tmp_path / "run", data=data)
    train_val.write_text(good)
    tiny_solver.with_name("deploy.prototxt").unlink()
    refused(NetError, r"deploy\.prototxt is missing", tiny_solver, tmp_path / "run", data=data)


def test_unknown_models_and_solvers(data, tmp_path):
    refused(NetError, "did you mean model1", "modell1", tmp_path / "run", data=data)
    refused(NetError, "cannot read", "nowhere/solver.prototxt", tmp_path / "run", data=data)


def test_a_run_folder_that_is_taken(tiny_solver, data, tmp_path):
    options = Options(data=data, run=tmp_path / "run", max_iter=1)
    options.run.mkdir()
    (options.run / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train.train(str(tiny_solver), options)
    assert [path.name for path in options.run.iterdir()] == ["notes.txt"]
    (options.run / "notes.txt").unlink()
    with open(options.run / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use"):
            train.train(str(tiny_solver), options)


def test_a_loss_that_is_not_finite_stops_with_the_iteration(data, tmp_path):
    solver = write_tiny_net(tmp_path / "net", base_lr=1e6)
    with pytest.raises(
        RunError, match=r"the loss is (nan|inf) at iteration \d+: train anew with a --base-lr below 1e.06"
    ):
        train.train(str(solver), Options(data=data, run=tmp_path / "run"))


def test_the_script_refuses_bad_use(tool, data, tmp_path):
    tool("train", "model1", "--run", tmp_path / "run", fails=2)
    tool("train", "model1", "--data", data, "--run", tmp_path / "run", "--epochs", "0", fails=2)
    tool("train", "model1", "--data", data, "--run", tmp_path / "run", "--epochs", "1", "--max-iter", "5", fails=2)
    tool("train", "model10", "--data", data, "--run", tmp_path / "run", fails=1)
    assert not (tmp_path / "run").exists()
