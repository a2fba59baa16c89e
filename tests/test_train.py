"""Training: run folders, data and options, schedules, mistakes."""

import dataclasses
import fcntl
import json
import re
import shutil
import subprocess
import sys

import caffe
import lmdb
import numpy as np
import pytest

from conftest import ROOT, SMALL, write_tiny_net
from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.models import generate, nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import schedule
from tiny_imagenet.training.options import Options
from tiny_imagenet.training.train import train


def rates(run):
    return [record["learning_rate"] for record in Run(run).metrics()]


def test_contents_of_a_run_folder(trained):
    run = Run(trained)
    info = run.info
    assert info["model"] == "tiny"
    assert (info["seed"], info["batch"], info["classes"], info["train_images"]) == (1, 20, 10, 200)
    assert info["nonlinearity"] == "LReLU"
    assert info["versions"]["caffe"] == caffe.__version__
    validated = [record for record in run.metrics() if "top1" in record]
    assert [(record["iteration"], record["epoch"]) for record in validated] == [(10, 1), (20, 2)]
    assert all(0 <= record["top1"] <= record["top5"] <= 1 for record in validated)
    assert run.iterations() == [10, 20]
    for iteration in run.iterations():
        folder = trained / "checkpoints" / str(iteration)
        assert {path.name for path in folder.iterdir()} == {"solver.solverstate", "state.json", "weights.caffemodel"}
        assert run.state(folder)["iteration"] == iteration
    assert run.weights("last").parent.name == "20"
    best = max(validated, key=lambda record: record["top1"])
    assert run.weights("best").parent.name == str(best["iteration"])
    assert list(run.events.iterdir())
    assert not list(trained.rglob("*.tmp"))


def test_validation_scores_are_those_of_the_last_checkpoint(trained, data):
    """Compared with the deploy net in plain Caffe, with the mean and the crop computed here."""
    run = Run(trained)
    net = caffe.Net(str(run.deploy), caffe.TEST, weights=str(run.weights("last")))
    mean = caffe.proto.caffe_pb2.BlobProto.FromString(run.mean.read_bytes())
    mean = caffe.io.blobproto_to_array(mean)[0]
    losses, hits = [], []
    for _, label, image in lmdb_reader.records(data / "val.lmdb"):
        net.blobs["data"].data[0] = (image - mean)[:, 4:60, 4:60]
        probabilities = net.forward()["prob"][0]
        losses.append(-np.log(probabilities[label]))
        hits.append(probabilities.argmax() == label)
    assert run.metrics()[-1]["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert run.metrics()[-1]["top1"] == pytest.approx(np.mean(hits))


def test_seeds_give_reproducible_weights(tiny_solver, data, tmp_path):
    def weights(name, seed):
        train(str(tiny_solver), Options(data=data, run=tmp_path / name, max_iter=5, seed=seed))
        return Run(tmp_path / name).weights("last").read_bytes()

    assert weights("a", 3) == weights("b", 3) != weights("c", 4)


def test_a_model_is_fitted_to_the_data(tool, data, tmp_path):
    name = next(iter(zoo.MODELS))
    arguments = (name, "--data", data, "--run", tmp_path / "run", "--batch", 4, "--max-iter", 1, "--base-lr", 1e-4)
    done = tool("train", *arguments)
    assert "outputs of fc3: 10" in done.stderr and "training batch: 4" in done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'run'}: best top-1 ")
    run = Run(tmp_path / "run")
    assert nets.outputs(nets.read(run.train_val)) == 10
    assert run.info["model"] == name
    assert run.info["parameters"] == zoo.MODELS[name].parameters - 190 * 257


def test_a_smaller_batch_keeps_the_number_of_epochs(tiny_solver, data, tmp_path):
    result = train(str(tiny_solver), Options(data=data, run=tmp_path / "run", batch=40))  # the file: 20 times 20 images
    assert result["iterations"] == 10


def test_init_copies_weights_by_layer_name(trained, tiny_solver, data, tmp_path):
    weights = Run(trained).weights("last")
    options = Options(data=data, run=tmp_path / "run", max_iter=1, base_lr=1e-12, init=weights)
    train(str(tiny_solver), options)
    net, new = (
        caffe.Net(str(Run(trained).deploy), caffe.TEST, weights=str(w)) for w in (weights, Run(options.run).weights())
    )
    np.testing.assert_allclose(net.params["conv1_1"][0].data, new.params["conv1_1"][0].data, rtol=1e-6)


@pytest.mark.slow
def test_memory_does_not_grow(tiny_solver, data, tmp_path):
    """Over two thousand iterations, with a validation and a checkpoint every ten."""
    code = (
        "import os, sys, pathlib\n"
        "from tiny_imagenet.training import loop, train\n"
        "from tiny_imagenet.training.options import Options\n"
        "os.fsync = lambda descriptor: None\n"
        "sizes, step = [], loop.Loop._step\n"
        "def measured(self):\n"
        "    step(self)\n"
        "    if self.iteration in (1000, 3000):\n"
        "        sizes.append(int(open('/proc/self/statm').read().split()[1]))\n"
        "loop.Loop._step = measured\n"
        "data, run = map(pathlib.Path, sys.argv[2:])\n"
        "train.train(sys.argv[1], Options(data=data, run=run, max_iter=3000, patience=0, quiet=True))\n"
        "print((sizes[1] - sizes[0]) * 4096)\n"
    )
    tiny_solver.write_text(tiny_solver.read_text().replace("0.0003", "0.000001"))
    command = [sys.executable, "-c", code, tiny_solver, data, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3e6  # bytes


# --- Schedules --------------------------------------------------------------------------------------------------------

B, W, D, S = "best", "wait", "drop", "stop"


def plateau(patience, drops):
    return schedule.Plateau(0.5, 100, factor=0.1, patience=patience, drops=drops)


@pytest.mark.parametrize(
    ("patience", "drops", "accuracies", "verdicts"),
    [
        (2, 2, (0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.1), (B, B, W, D, B, W, S)),
        (1, 1, (0.5, 0.5), (B, S)),  # equal is not better
        (3, 3, (0.1, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1), (B, W, W, D, W, W, D)),  # waits again after a drop
        (3, 3, (0.1, 0.0, 0.0, 0.2, 0.1, 0.1, 0.1), (B, W, W, B, W, W, D)),  # and after a better one
        (2, 2, (0.0, 0.0, 0.0), (B, W, D)),  # the first is the best, even 0
        (2, 1, (0.1, float("nan"), 0.2, 0.2), (B, W, B, W)),
        (0, 1, (0.5, 0.4, 0.4, 0.4, 0.4), (B, W, W, W, W)),  # patience 0: never
    ],
)
def test_plateau(patience, drops, accuracies, verdicts):
    rule = plateau(patience, drops)
    assert tuple(map(rule.update, accuracies)) == verdicts
    assert rule.rate(7) == pytest.approx(0.5 * 0.1 ** sum(v in (D, S) for v in verdicts))
    for split in range(len(accuracies)):  # saved and loaded at any time, it decides the same
        first, second = plateau(patience, drops), plateau(patience, drops)
        before = [first.update(top1) for top1 in accuracies[:split]]
        second.load_state(json.loads(json.dumps(first.state())))
        assert (*before, *(second.update(top1) for top1 in accuracies[split:])) == verdicts


def test_the_rate_drops_in_a_run(tiny_solver, data, tmp_path, monkeypatch):
    def drop(self, top1):
        self.dropped += 1
        return "drop"

    monkeypatch.setattr(schedule.Plateau, "update", drop)
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=2))
    assert rates(tmp_path / "run") == pytest.approx([3e-4, 3e-5])


def test_cosine(tiny_solver, data, tmp_path):
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=4, lr_schedule="cosine"))
    expected = [3e-4 * (1 + np.cos(np.pi * (iteration - 1) / 40)) / 2 for iteration in (10, 20, 30, 40)]
    assert rates(tmp_path / "run") == pytest.approx(expected, rel=1e-5)
    assert Run(tmp_path / "run").info["schedule"]["lr_schedule"] == "cosine"


def test_a_row_can_choose_the_cosine_schedule(data, tmp_path):
    row = next(iter(zoo.MODELS.values())).replace(convs="3-2 | 3-2 | 3-2 |", lr_schedule="cosine", **SMALL)
    generate.write([row], tmp_path, ROOT / "tools")
    train(row.name, Options(data=data, run=tmp_path / "run", epochs=2, lr_schedule="cosine", prototxt=tmp_path))
    assert rates(tmp_path / "run")[-1] < row.base_lr / 2


def test_an_lr_policy_of_caffe_is_kept(tiny_solver, data, tmp_path):
    policy = 'lr_policy: "step" stepsize: 15 gamma: 0.5'
    tiny_solver.write_text(tiny_solver.read_text().replace('lr_policy: "fixed"', policy))
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=2, patience=None))
    assert rates(tmp_path / "run") == pytest.approx([3e-4, 1.5e-4])
    refused(NetError, "--patience", tiny_solver, tmp_path / "other", data=data, patience=1)


def test_old_checkpoints_are_removed_except_the_best(tiny_solver, data, tmp_path, monkeypatch):
    verdicts = iter(["best", "wait", "wait", "wait"])
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: next(verdicts))
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=4, keep=1))
    assert Run(tmp_path / "run").iterations() == [10, 40]


# --- Mistakes: one clear line, and no run folder ----------------------------------------------------------------------


def refused(error, match, source, run, **options):
    with pytest.raises(error, match=match) as caught:
        train(str(source), Options(run=run, **options))
    assert "\n" not in str(caught.value)
    assert not run.exists()


def test_missing_data(tiny_solver, data, tmp_path):
    refused(DatasetError, r"nowhere.manifest\.json", tiny_solver, tmp_path / "run", data=tmp_path / "nowhere")
    half = tmp_path / "half"
    half.mkdir()
    for name in ("manifest.json", "mean.binaryproto"):
        (half / name).write_bytes((data / name).read_bytes())
    refused(DatasetError, r"half.train\.lmdb", tiny_solver, tmp_path / "run", data=half)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("crop_size", "crop_sise", r"train_val\.prototxt:4:\d+: .*crop_sise"),
        ('type: "LReLU"', 'type: "LRelu"', "LRelu"),
        ("num_output: 10", "num_output: 200", "200 outputs, but the data has 10 classes"),
        ("train.lmdb", "other.lmdb", r"other\.lmdb"),
        ("phase: TRAIN", "phase: TEST", "for training, got 0"),
        ("batch_size: 20", "batch_size: 0", "batch_size"),
        ("crop_size: 56", "crop_size: 65", "crop_size.* 65"),
    ],
)
def test_invalid_nets(old, new, named, tiny_solver, data, tmp_path):
    train_val = tiny_solver.with_name("train_val.prototxt")
    text = train_val.read_text()
    assert old in text
    train_val.write_text(text.replace(old, new))
    refused((NetError, DatasetError), named, tiny_solver, tmp_path / "run", data=data)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("max_iter: 20", "max_iter: 0", "max_iter is 0"),
        ("max_iter: 20", "max_iter: 20 iter_size: -3", "iter_size is -3"),
        ("base_lr: 0.0003", "base_lr: nan", "base_lr is nan"),
        ('lr_policy: "fixed"', 'lr_policy: "stairs"', r"solver\.prototxt:\d+.*stairs"),
        ('lr_policy: "fixed"', 'lr_policy: "step" gamma: 0.1', r"solver\.prototxt:\d+.*stepsize"),
        ('lr_policy: "fixed"', "", r"solver\.prototxt.*lr_policy"),
        ("net:", "# net:", "net"),
    ],
)
def test_invalid_solvers(old, new, named, tiny_solver, data, tmp_path):
    text = tiny_solver.read_text()
    assert old in text
    tiny_solver.write_text(text.replace(old, new))
    refused(NetError, named, tiny_solver, tmp_path / "run", data=data)


def test_a_folder_stands_for_its_solver_and_a_net_does_not(tiny_solver, data, tmp_path):
    refused(NetError, "is a net", tiny_solver.with_name("train_val.prototxt"), tmp_path / "run", data=data)
    refused(NetError, r"solver\.prototxt", tmp_path, tmp_path / "run", data=data)
    train(str(tiny_solver.parent), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").info["source"] == str(tiny_solver)


def test_a_copied_folder_trains_its_own_net(tiny_solver, data, tmp_path, monkeypatch):
    """Even if the name in its solver leads to the original from the working folder."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_solver.parent, copy)
    for path in copy.iterdir():
        text = path.read_text().replace('"tiny"', '"copied"')
        path.write_text(text.replace('"train_val.prototxt"', '"net/train_val.prototxt"'))
    monkeypatch.chdir(tiny_solver.parent.parent)
    train(str(copy / "solver.prototxt"), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").info["model"] == "copied"


def test_the_solver_of_a_model_stands_for_the_model(data, tmp_path):
    """Its outputs are fitted to the data set; those of a copy elsewhere are not."""
    prototxt = tmp_path / "prototxt"
    row = zoo.MODELS["model1"].replace(convs="3-4 | 3-4 | 3-4 |", hidden=(8,), batch=10)
    generate.write([row], prototxt, ROOT / "tools")
    solver = prototxt / "model1" / "solver.prototxt"
    options = Options(data=data, run=tmp_path / "run", max_iter=1, prototxt=prototxt)
    train(str(solver), options)
    assert any("fc3: 10" in change for change in Run(tmp_path / "run").info["changes"])
    with pytest.raises(NetError, match="200 outputs, but the data has 10 classes"):
        train(str(solver), dataclasses.replace(options, run=tmp_path / "other", prototxt=tmp_path))


def test_unknown_models(data, tmp_path):
    refused(NetError, "model1", "modell1", tmp_path / "run", data=data)
    refused(NetError, r"tools/generate\.py model4_conv5", "model4_conv5", tmp_path / "run", data=data)
    refused(NetError, "nowhere", "nowhere/solver.prototxt", tmp_path / "run", data=data)


@pytest.mark.parametrize("more", ['test_net: "train_val.prototxt"', "test_state { }", "snapshot_format: HDF5"])
def test_fields_of_stock_solvers(more, tiny_solver, data, tmp_path):
    text = tiny_solver.read_text()
    if "test_net" in more:
        text = text.replace("net:", "train_net:", 1)
    tiny_solver.write_text(f"{text} {more} test_iter: 1 test_interval: 5")
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").weights("last").name == "weights.caffemodel"


def test_a_net_of_your_own_needs_no_deploy_net(tiny_solver, data, tmp_path):
    tiny_solver.with_name("deploy.prototxt").unlink(missing_ok=True)
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert nets.read(Run(tmp_path / "run").deploy).layer[-1].type == "Softmax"


def test_an_upstream_data_layer_gets_a_warning(tiny_solver, data, tmp_path, capsys):
    train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1, quiet=True))
    assert "layer data (Data)" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"hello, no weights here", None])
def test_init_from_a_file_without_weights(content, tiny_solver, data, tmp_path):
    path = tmp_path / "some.caffemodel"
    if content is not None:
        path.write_bytes(content)
    refused(NetError, r"some\.caffemodel", tiny_solver, tmp_path / "run", data=data, init=path)


def with_record(data, folder, key, value):
    """A copy of a converted folder with another record in train.lmdb."""
    shutil.copytree(data, folder)
    environment = lmdb.open(str(folder / "train.lmdb"), map_size=64 << 20, lock=False)
    with environment, environment.begin(write=True) as transaction:
        transaction.put(key, value)
    return folder


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"no datum at all",
        datum.encode(np.zeros((3, 32, 32), np.uint8), 1),
        datum.encode(np.zeros((3, 64, 64), np.uint8), 10),
        datum.encode(np.zeros((3, 64, 64), np.uint8), 1)[:500],
    ],
)
def test_an_invalid_record_is_named_before_training(value, tiny_solver, data, tmp_path):
    bad = with_record(data, tmp_path / "bad", b"99999999_bad.JPEG", value)
    refused(DatasetError, r"99999999_bad\.JPEG", tiny_solver, tmp_path / "run", data=bad)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (datum.encode(np.zeros((3, 32, 32), np.uint8), 1), "Check failed"),
        (datum.encode(np.zeros((3, 64, 64), np.uint8), 1)[:500], "Datum"),
        (datum.encode(np.zeros((3, 64, 64), np.uint8), 500), "500"),
    ],
)
def test_an_invalid_record_in_the_prefetch_thread_is_an_exception(value, named, data, tmp_path):
    """Stock Caffe ends the process there."""
    bad = with_record(data, tmp_path / "bad", b"00000100_bad.JPEG", value)
    net_file = write_tiny_net(tmp_path / "net").with_name("train_val.prototxt")
    text = net_file.read_text().replace("train.lmdb", str(bad / "train.lmdb"))
    net_file.write_text(text.replace('"mean.binaryproto"', f'"{bad / "mean.binaryproto"}"'))
    net = caffe.Net(str(net_file), caffe.TRAIN)
    with pytest.raises(caffe.CaffeError, match=named):
        for _ in range(20):
            net.forward()


@pytest.mark.parametrize("base_lr", [1e6, 1e20])
def test_divergence_is_reported_and_leaves_no_run(base_lr, data, tmp_path):
    solver = write_tiny_net(tmp_path / "net", base_lr=base_lr)
    refused(RunError, "diverged.*" + re.escape(f"--base-lr {base_lr / 10:.2g} "), solver, tmp_path / "run", data=data)


def test_a_run_folder_in_use(tiny_solver, data, tmp_path):
    options = Options(data=data, run=tmp_path / "run", max_iter=1)
    options.run.mkdir()
    (options.run / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(str(tiny_solver), options)
    assert [path.name for path in options.run.iterdir()] == ["notes.txt"]
    (options.run / "notes.txt").unlink()
    with open(options.run / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another training"):
            train(str(tiny_solver), options)


def test_usage_errors_of_the_script(tool, data, tmp_path):
    run = ("--run", tmp_path / "run")
    assert "MODEL|SOLVER, --data, --run" in tool("train", fails=2).stderr
    tool("train", "model1", "--data", data, *run, "--epochs", "0", fails=2)
    tool("train", "model1", "--data", data, *run, "--epochs", "1", "--max-iter", "5", fails=2)
    assert "'--epochs'" in tool("train", "model1", "--data", data, *run, "--epoch", "1", fails=2).stderr
    assert "model1" in tool("train", "modell1", "--data", data, *run, fails=2).stderr
    assert not (tmp_path / "run").exists()
