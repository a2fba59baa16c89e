import dataclasses
import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import caffe
import lmdb
import numpy as np
import pytest

from conftest import ROOT, interruptible, write_tiny_net
from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.models import generate, nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import schedule, train
from tiny_imagenet.training.schedule import Plateau
from tiny_imagenet.training.train import Options


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


B, W, D, S = "best", "wait", "drop", "stop"


@pytest.mark.parametrize(
    ("patience", "drops", "accuracies", "verdicts"),
    [
        (2, 2, (0.1, 0.3, 0.3, 0.2, 0.4, 0.4, 0.1), (B, B, W, D, B, W, S)),
        (1, 3, (0.5, 0.4, 0.4, 0.4), (B, D, D, S)),  # each epoch without a better one
        (1, 1, (0.5, 0.5), (B, S)),  # equal is not better
        (3, 3, (0.1, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1), (B, W, W, D, W, W, D)),  # waits anew after a drop
        (3, 3, (0.1, 0.0, 0.0, 0.2, 0.1, 0.1, 0.1), (B, W, W, B, W, W, D)),  # and after a better one
        (2, 2, (0.0, 0.0, 0.0), (B, W, D)),  # even 0 is a best at first
        (2, 1, (0.1, float("nan"), 0.2, 0.2), (B, W, B, W)),
        (0, 1, (0.5, 0.4, 0.4, 0.4, 0.4), (B, W, W, W, W)),  # patience 0: never
        (5, 3, (0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.31), (B, W, W, W, W, D, B)),  # the nine models' own
    ],
)
def test_the_plateau_rule(patience, drops, accuracies, verdicts):
    plateau = Plateau(factor=0.1, patience=patience, drops=drops)
    assert tuple(map(plateau.update, accuracies)) == verdicts
    for split in range(len(accuracies)):  # kept and taken up again at any time, it says the same
        first = Plateau(factor=0.1, patience=patience, drops=drops)
        before = [first.update(top1) for top1 in accuracies[:split]]
        second = Plateau.of(json.loads(json.dumps(first.state())))
        assert (*before, *(second.update(top1) for top1 in accuracies[split:])) == verdicts


def test_memory_does_not_grow_over_five_thousand_iterations(tiny_solver, data, tmp_path):
    code = (
        "import os, sys, pathlib\n"
        "from tiny_imagenet.training import train, trainer\n"
        "os.fsync = lambda descriptor: None\n"  # of 600 checkpoints
        "sizes = []\n"
        "step = trainer.Trainer._step\n"
        "def measured(self):\n"
        "    step(self)\n"
        "    if self.iteration in (1000, 6000):\n"
        "        sizes.append(int(open('/proc/self/statm').read().split()[1]))\n"
        "trainer.Trainer._step = measured\n"
        "data, run = map(pathlib.Path, sys.argv[2:])\n"
        "train.train(sys.argv[1], train.Options(data=data, run=run, max_iter=6000, patience=0, quiet=True))\n"
        "print((sizes[1] - sizes[0]) * 4096)\n"
    )
    text = tiny_solver.read_text()
    tiny_solver.write_text(text.replace("0.0003", "0.000001"))
    done = subprocess.run(
        [sys.executable, "-c", code, tiny_solver, data, tmp_path / "run"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3e6  # bytes; a checkpoint and a validation every tenth iteration are in it


def test_the_rate_drops_in_a_run(tiny_solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: "drop")
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=2))
    rates = [record["learning_rate"] for record in Run(tmp_path / "run").metrics()]
    assert rates == pytest.approx([3e-4, 3e-5])


def test_another_lr_policy_keeps_its_own_schedule(tiny_solver, data, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: "stop")
    policy = 'lr_policy: "step" stepsize: 15 gamma: 0.5'
    tiny_solver.write_text(tiny_solver.read_text().replace('lr_policy: "fixed"', policy))
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", epochs=2))
    rates = [record["learning_rate"] for record in Run(tmp_path / "run").metrics()]
    assert rates == pytest.approx([3e-4, 1.5e-4])


def test_old_checkpoints_are_removed_but_the_best(tiny_solver, data, tmp_path, monkeypatch):
    verdicts = iter(["best", "wait", "wait", "wait"])
    monkeypatch.setattr(schedule.Plateau, "update", lambda self, top1: next(verdicts))
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
    refused(DatasetError, r"train\.lmdb is not in", tiny_solver, tmp_path / "run", data=half)


def test_nets_that_are_wrong(tiny_solver, data, tmp_path):
    train_val = tiny_solver.with_name("train_val.prototxt")
    good = train_val.read_text()
    for old, new, says in [
        ("crop_size", "crop_sise", r"train_val\.prototxt:4:\d+: .*crop_sise"),
        ('type: "LReLU"', 'type: "LRelu"', r"does not build: .*LRelu.*\(tools/describe\.py .* --check says where\)"),
        ("num_output: 10", "num_output: 200", "200 outputs, the data set 10 classes"),
        ("crop_size: 56", "crop_size: 48", "crops 48 pixels, the deploy net takes 56"),
        ("train.lmdb", "other.lmdb", r"other\.lmdb is not in"),
        ("phase: TRAIN", "phase: TEST", "one Data or CropData layer for training"),
    ]:
        train_val.write_text(good.replace(old, new))
        refused(NetError if "lmdb" not in says else DatasetError, says, tiny_solver, tmp_path / "run", data=data)
    train_val.write_text(good)
    tiny_solver.with_name("deploy.prototxt").unlink()
    refused(NetError, r"deploy\.prototxt is missing", tiny_solver, tmp_path / "run", data=data)


def test_what_validation_could_not_repeat_is_refused(tiny_solver, data, tmp_path):
    train_val = tiny_solver.with_name("train_val.prototxt")
    good = train_val.read_text()
    for new in ("crop_size: 56 scale: 0.01", "crop_size: 56 force_gray: true"):
        train_val.write_text(good.replace("crop_size: 56", new))
        refused(NetError, "must have a mean_file and no scale", tiny_solver, tmp_path / "run", data=data)
    train_val.write_text(good.replace("batch_size: 20", "batch_size: 0"))
    refused(NetError, "batch_size of at least 1", tiny_solver, tmp_path / "run", data=data)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max_iter: 20", "max_iter: 0", "max_iter is 0"),
        ("max_iter: 20", "max_iter: 20 iter_size: -3", "iter_size is -3"),
        ("base_lr: 0.0003", "base_lr: nan", "base_lr is nan"),
        (
            'lr_policy: "fixed"',
            'lr_policy: "stairs"',
            r'solver\.prototxt:\d+: lr_policy is "stairs": it must be one of fixed',
        ),
        (
            'lr_policy: "fixed"',
            'lr_policy: "step" gamma: 0.1',
            r'solver\.prototxt:\d+: lr_policy "step" needs stepsize',
        ),
        ('lr_policy: "fixed"', "", r"solver\.prototxt: there is no lr_policy"),
        ("net:", "# net:", "names no net"),
    ],
)
def test_solvers_that_train_nothing_are_refused(old, new, says, tiny_solver, data, tmp_path):
    text = tiny_solver.read_text()
    assert old in text
    tiny_solver.write_text(text.replace(old, new))
    refused(NetError, says, tiny_solver, tmp_path / "run", data=data)


def test_a_net_in_place_of_its_solver_is_refused_and_a_folder_stands_for_its_solver(tiny_solver, data, tmp_path):
    for name in ("train_val.prototxt", "deploy.prototxt"):
        net = tiny_solver.with_name(name)
        refused(NetError, "is a net, and a solver is expected", net, tmp_path / "run", data=data)
    train.train(str(tiny_solver.parent), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").info["source"] == str(tiny_solver)
    refused(NetError, r"cannot read .*solver\.prototxt: No such file", tmp_path, tmp_path / "other", data=data)


def test_the_net_that_the_solver_names_is_trained(tiny_solver, data, tmp_path):
    """Not one that happens to lie beside the solver under the same name."""
    write_tiny_net(tiny_solver.parent / "other")
    path = tiny_solver.parent / "other" / "train_val.prototxt"
    path.write_text(path.read_text().replace('name: "tiny"', 'name: "other"', 1))
    tiny_solver.write_text(tiny_solver.read_text().replace("train_val.prototxt", "other/train_val.prototxt"))
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").info["model"] == "other"


def test_a_copied_folder_trains_its_own_net(tiny_solver, data, tmp_path, monkeypatch):
    """Also where the name in its solver leads to the original from the working folder."""
    copy = tmp_path / "copy"
    shutil.copytree(tiny_solver.parent, copy)
    for path in copy.iterdir():
        text = path.read_text().replace('"tiny"', '"copied"')
        path.write_text(text.replace('"train_val.prototxt"', '"net/train_val.prototxt"'))
    monkeypatch.chdir(tiny_solver.parent.parent)
    train.train(str(copy / "solver.prototxt"), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").info["model"] == "copied"


def test_the_solver_of_a_model_stands_for_the_model(data, tmp_path):
    """Its outputs are fitted to the data set, as with the model's name; those of a copy elsewhere are not."""
    prototxt = tmp_path / "prototxt"
    row = zoo.MODELS["model1"].replace(convs="3-4 | 3-4 | 3-4 |", hidden=(8,), batch=10)
    generate.write([row], prototxt, ROOT / "tools")
    solver = prototxt / "model1" / "solver.prototxt"
    options = Options(data=data, run=tmp_path / "run", max_iter=1, prototxt=prototxt)
    train.train(str(solver), options)
    assert "outputs of fc3: 10 (the file says 200)" in Run(tmp_path / "run").info["changes"]
    elsewhere = dataclasses.replace(options, run=tmp_path / "other", prototxt=tmp_path)
    with pytest.raises(NetError, match="200 outputs, the data set 10 classes"):
        train.train(str(solver), elsewhere)


def test_a_variant_that_was_not_generated_says_how(data, tmp_path):
    with pytest.raises(NetError, match=r"make it with tools/generate\.py model4_conv5"):
        train.train("model4_conv5", Options(data=data, run=tmp_path / "run", prototxt=ROOT / "prototxt"))


def test_a_deploy_net_that_is_another_is_refused(tiny_solver, data, tmp_path):
    """It would validate with weights that nobody learns, or compute something else with them."""
    deploy = tiny_solver.parent / "deploy.prototxt"
    text = deploy.read_text()
    for old, new, says in (
        (
            'name: "conv1_1"',
            'name: "convX"',
            "layer convX has weights, and train_val.prototxt has no layer of that name",
        ),
        ('type: "LReLU"', 'type: "TanH"', "gets .*TanH.*, and in train_val.prototxt .*LReLU"),
    ):
        deploy.write_text(text.replace(old, new))
        refused(
            NetError,
            rf"deploy.prototxt is not the net of train_val.prototxt: .*{says}",
            tiny_solver,
            tmp_path / "run",
            data=data,
        )


@pytest.mark.parametrize(
    "more",
    ['test_net: "train_val.prototxt" test_iter: 1 test_interval: 5', "test_state { } test_iter: 1 test_interval: 5"],
)
def test_stock_solvers_with_nets_of_all_kinds_train(more, tiny_solver, data, tmp_path):
    text = tiny_solver.read_text()
    if "test_net" in more:
        text = text.replace("net:", "train_net:", 1)
    tiny_solver.write_text(text + more)
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1))


def test_plateau_flags_go_with_a_fixed_policy(tiny_solver, data, tmp_path):
    policy = 'lr_policy: "step" stepsize: 15 gamma: 0.5'
    tiny_solver.write_text(tiny_solver.read_text().replace('lr_policy: "fixed"', policy))
    refused(NetError, 'go with lr_policy "fixed" alone', tiny_solver, tmp_path / "run", data=data, patience=1)


def test_a_stock_data_layer_gets_a_warning(tiny_solver, data, tmp_path, capsys):
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1, quiet=True))
    assert "layer data (Data) reads from its first record again where a run goes on" in capsys.readouterr().err


def test_a_solver_that_asks_for_hdf5_snapshots(tiny_solver, data, tmp_path):
    tiny_solver.write_text(tiny_solver.read_text() + "snapshot_format: HDF5\n")
    train.train(str(tiny_solver), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").weights("last").name == "weights.caffemodel"


def test_init_from_what_has_no_weights_is_refused(tiny_solver, trained, data, tmp_path):
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    (tmp_path / "text.caffemodel").write_text("hello, no weights here")
    for name, says in [
        ("empty.caffemodel", "weights of no layer"),
        ("text.caffemodel", "no caffemodel"),
        ("missing.caffemodel", "cannot read the weights"),
        ("", "cannot read the weights"),
    ]:
        refused(NetError, says, tiny_solver, tmp_path / "run", data=data, init=tmp_path / name)


def copy_with_record(data, folder, key, value, lmdb_name="train.lmdb"):
    """A copy of a converted folder with one more, last record."""
    shutil.copytree(data, folder)
    environment = lmdb.open(str(folder / lmdb_name), map_size=64 << 20, lock=False)
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
        datum.encode(np.zeros((3, 64, 64), np.uint8), -1),
        datum.encode(np.zeros((3, 64, 64), np.uint8), 1)[:500],
    ],
)
def test_a_bad_record_is_named_before_the_first_iteration(value, tiny_solver, data, tmp_path):
    bad = copy_with_record(data, tmp_path / "bad", b"99999999_bad.JPEG", value)
    refused(DatasetError, r"99999999_bad\.JPEG", tiny_solver, tmp_path / "run", data=bad)


def test_a_bad_record_in_caffe_s_own_thread_is_an_exception(data, tmp_path):
    """Stock Caffe ends the process there."""
    for name, value, says in [
        ("shape", datum.encode(np.zeros((3, 32, 32), np.uint8), 1), "Check failed"),
        ("short", datum.encode(np.zeros((3, 64, 64), np.uint8), 1)[:500], "Datum"),
        ("label", datum.encode(np.zeros((3, 64, 64), np.uint8), 500), "number of classes"),
    ]:
        bad = copy_with_record(data, tmp_path / name, b"00000100_bad.JPEG", value)
        net_file = write_tiny_net(tmp_path / name / "net").with_name("train_val.prototxt")
        text = net_file.read_text().replace("train.lmdb", str(bad / "train.lmdb"))
        net_file.write_text(text.replace('"mean.binaryproto"', f'"{bad / "mean.binaryproto"}"'))
        net = caffe.Net(str(net_file), caffe.TRAIN)
        with pytest.raises(caffe.CaffeError, match=says):
            for _ in range(20):
                net.forward()
        if name != "label":  # the thread is gone, and each who asks is told
            with pytest.raises(caffe.CaffeError, match=says):
                net.forward()


def test_a_net_that_diverges_in_the_last_step_is_no_best(data, tmp_path):
    solver = write_tiny_net(tmp_path / "net", base_lr=1e20)
    with pytest.raises(RunError, match="validation probabilities is nan at iteration 1"):
        train.train(str(solver), Options(data=data, run=tmp_path / "run", max_iter=1))
    assert Run(tmp_path / "run").iterations() == []


def test_ctrl_c_leaves_a_checkpoint_and_status_130(data, tiny_solver, tmp_path):
    script = Path(__file__).parent.parent / "tools" / "train.py"
    command = [sys.executable, script, tiny_solver, "--data", data, "--run", tmp_path / "run", "--max-iter", "1000000"]
    with interruptible(command, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert re.search(
        r"error: stopped by SIGINT at iteration \d+, with a checkpoint: .*--resume", stderr.splitlines()[-1]
    )
    assert "Traceback" not in stderr
    assert Run(tmp_path / "run").weights("last").is_file()


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
    tool("train", "model10", "--data", data, "--run", tmp_path / "run", fails=2)
    assert not (tmp_path / "run").exists()
