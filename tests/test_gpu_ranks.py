"""Several ranks train one net: on the CPU, through pipes (cpu_ranks), with all but NCCL as on several GPUs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import caffe
import numpy as np
import pytest

import cpu_ranks
from conftest import ROOT, apart, interruptible, wait_for, without_kinks, write_tiny_net
from tiny_imagenet import runs
from tiny_imagenet.errors import NetError, RunError, Stopped
from tiny_imagenet.evaluation import metrics
from tiny_imagenet.evaluation.predict import Predictor, predict
from tiny_imagenet.models import generate, nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import supervisor, train, validation
from tiny_imagenet.training.ranks import Alone
from tiny_imagenet.training.train import Options

ROW = zoo.MODELS["model6"].replace(
    convs="3-4 3-4 | 3-4 | 3-8 |", hidden=(16,), batch=20, classes=10, screened=False, base_lr=0.02, drop_after_stage=3
)
EPOCHS = 6  # of 10 iterations


def write(folder, **changes):
    row = ROW.replace(**changes)
    generate.write([row], folder, ROOT / "tools")
    return str(folder / "model6" / "solver.prototxt")


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    return write(tmp_path_factory.mktemp("nets"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Without dropout, whose masks differ from rank to rank, and without kinks, where rounding decides."""
    return without_kinks(write(tmp_path_factory.mktemp("plain"), dropout=0, drop_after_stage=0))


@pytest.fixture(scope="module")
def whole(solver, data, tmp_path_factory):
    """Two ranks that nothing has stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    cpu_ranks.train(2, solver, Options(data=data, run=run, epochs=EPOCHS, patience=1))
    return Run(run)


def lasting(run):
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in run.metrics()]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks_compute_what_one_process_does(count, plain, data, tmp_path):
    one, several = Run(tmp_path / "one"), Run(tmp_path / "several")
    train.train(plain, Options(data=data, run=one.path, max_iter=20, quiet=True))
    result = cpu_ranks.train(count, plain, Options(data=data, run=several.path, max_iter=20, quiet=True))
    assert result["iterations"] == 20 and result["run"] == str(several.path)
    assert apart(one, several) < 1e-5
    for record, other in zip(lasting(one), lasting(several)):
        assert record == pytest.approx(other, rel=1e-5)
    assert several.info["batch"] == one.info["batch"] == 20


def test_the_same_ranks_give_the_same_bytes(whole, solver, data, tmp_path):
    cpu_ranks.train(2, solver, Options(data=data, run=tmp_path / "run", epochs=EPOCHS, patience=1, quiet=True))
    again = Run(tmp_path / "run")
    assert again.weights("last").read_bytes() == whole.weights("last").read_bytes()
    assert lasting(again) == lasting(whole)
    assert len({record["learning_rate"] for record in lasting(whole)}) > 1  # a drop that both ranks have followed


def test_the_history_is_that_of_one_process_too(plain, data, tmp_path):
    for count, name in ((1, "one"), (4, "four")):
        cpu_ranks.train(count, plain, Options(data=data, run=tmp_path / name, max_iter=7, quiet=True))
    states = [
        caffe.proto.caffe_pb2.SolverState.FromString(
            (tmp_path / name / "checkpoints" / "7" / "solver.solverstate").read_bytes()
        )
        for name in ("one", "four")
    ]
    for one, four in zip(*(state.history for state in states)):
        np.testing.assert_allclose(one.data, four.data, rtol=1e-3, atol=1e-5 * np.abs(one.data).max())


@pytest.mark.parametrize("iter_size", [1, 2])
def test_a_batch_of_stock_data_is_split_too(iter_size, data, tmp_path):
    """Upstream's Data deals its records out in turns: a batch has the same ones, here in ten-crop's fixed place."""
    solver = write_tiny_net(tmp_path / "net", base_lr=0.001)
    with solver.open("a") as stream:
        stream.write(f"iter_size: {iter_size}\n")
    net = solver.with_name("train_val.prototxt")
    net.write_text(
        re.sub("crop_size: 56 mirror: true", "", net.read_text()).replace(
            "kernel_size: 7 stride: 7", "kernel_size: 8 stride: 8"
        )
    )
    deploy = solver.with_name("deploy.prototxt")
    deploy.write_text(
        deploy.read_text()
        .replace("dim: 56 dim: 56", "dim: 64 dim: 64")
        .replace("kernel_size: 7 stride: 7", "kernel_size: 8 stride: 8")
    )
    train.train(str(solver), Options(data=data, run=tmp_path / "one", max_iter=8, quiet=True))
    cpu_ranks.train(4, str(solver), Options(data=data, run=tmp_path / "four", max_iter=8, quiet=True))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "four")) < 1e-5
    assert nets.read(Run(tmp_path / "four").train_val).layer[0].data_param.batch_size == 20


class Part(Alone):
    """A rank of three whose others have already given their shares, or are yet to ask for this one's."""

    def __init__(self, rank, shares, stopped=False):
        super().__init__()
        self.rank, self.names = rank, ["A", "B", "C"]
        self._shares, self._stopped = shares, stopped

    def broadcast(self, value=None):
        return self._stopped

    def gather(self, value):
        self._shares[self.rank] = value
        return [self._shares[rank] for rank in range(3)] if self.rank == 0 else []


def test_validation_is_shared_out_and_the_same(trained, data):
    run, lmdb = Run(trained), data / "val.lmdb"
    whole = predict(Predictor(run.deploy, run.mean, run.weights("last"), batch=7), lmdb)
    shares, forwards = {}, []
    for rank in (2, 1, 0):
        predictor = Predictor(run.deploy, run.mean, run.weights("last"), batch=7)
        forward = predictor.forward
        predictor.forward = lambda inputs, forward=forward: forwards.append(inputs.shape[1]) or forward(inputs)
        found = validation.validate(Part(rank, shares), predictor, lmdb)
    assert forwards == [7, 5, 7, 7, 7, 7]  # 40 records: two batches each, the last of them short
    for name in ("keys", "labels", "probabilities"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    with pytest.raises(validation.StoppedEarly):
        validation.validate(Part(1, shares, stopped=True), predictor, lmdb)


def test_all_ranks_validate_with_the_statistics_of_the_checkpoint(plain, data, tmp_path):
    """BatchNorm's differ from rank to rank; those of rank 0 are written and are to be those that are judged."""
    folder = shutil.copytree(Path(plain).parent, tmp_path / "net")
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "conv1_1" top: "norm" }\n'
    for name in ("train_val", "deploy"):
        file = folder / f"{name}.prototxt"
        before, layer, after = re.split(r'(layer \{\s+name: "conv1_2")', file.read_text())
        file.write_text(before + norm + layer + after.replace('bottom: "conv1_1"', 'bottom: "norm"', 1))
    solver = str(folder / "solver.prototxt")
    cpu_ranks.train(4, solver, Options(data=data, run=tmp_path / "run", max_iter=10, quiet=True))
    run = Run(tmp_path / "run")
    found = predict(Predictor(run.deploy, run.mean, run.weights("last")), data / "val.lmdb")
    assert metrics.summary(found)["loss"] == pytest.approx(run.metrics()[-1]["validation_loss"], rel=1e-6)


def staged(folder):
    """Model 9 with its stage, as small as the sample needs it, in a folder; its solver."""
    row = zoo.MODELS["model9"].replace(
        convs="3-4 3-4 | 3-4 | 3-8 |",
        shallow=("3-4 | 3-4 | 3-8 |",),
        hidden=(16,),
        batch=20,
        classes=10,
        screened=False,
        base_lr=0.02,
        drop_after_stage=0,
    )
    generate.write([row], folder, ROOT / "tools")
    return str(folder / "model9" / "solver.prototxt")


def test_stages_are_trained_by_all_ranks(data, tmp_path):
    result = cpu_ranks.train(2, staged(tmp_path), Options(data=data, run=tmp_path / "run", epochs=1, quiet=True))
    assert result["iterations"] == 10
    assert "weights from" in Run(tmp_path / "run").log_file.read_text()
    assert Run(tmp_path / "run").stage(1).iterations() == [10]


def test_a_run_begun_by_one_goes_on_with_others(plain, data, tmp_path):
    """Without dropout it makes no difference how many there are."""
    whole, parts = Run(tmp_path / "whole"), Run(tmp_path / "parts")
    train.train(plain, Options(data=data, run=whole.path, max_iter=20, quiet=True))
    for count, length in ((1, 6), (4, 13), (2, 20)):
        cpu_ranks.train(count, plain, Options(data=data, run=parts.path, max_iter=length, resume=True, quiet=True))
    assert apart(whole, parts) < 1e-5
    assert len(parts.info["sessions"]) == 3


@pytest.mark.parametrize(
    ("count", "batch", "nearest", "fitting"),
    [(3, 20, "18 and 21", "1, 2, 4, 5, 10"), (6, 20, "18 and 24", "1, 2, 4, 5, 10"), (3, 2, "3", "1, 2")],
)
def test_a_batch_that_does_not_split_is_refused(count, batch, nearest, fitting, plain, data, tmp_path):
    says = rf"a batch of {batch} .* the nearest that do are {nearest} \(--batch\); {batch} splits between {fitting} of"
    with pytest.raises(NetError, match=says) as caught:
        cpu_ranks.train(count, plain, Options(data=data, run=tmp_path / "run", batch=batch, max_iter=1))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# --- Ranks that fail: all end, soon, and one line says which it was. ---


@pytest.mark.parametrize(
    ("place", "how", "says"),
    [
        ("step", "killed", "was ended by SIGKILL, which the system sends where memory runs out"),
        ("step", "exits", "ended with status 3"),
        ("step", "raises", "no memory is left here"),
        ("build", "killed", "was ended by SIGKILL"),
        ("build", "raises", "no memory is left here"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_rank_that_dies_ends_all(rank, place, how, says, solver, data, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TEST_FAILS", f"{rank} {place} {how}")
    monkeypatch.setattr(supervisor, "GRACE", 2)
    begin = time.monotonic()
    with pytest.raises(RunError, match=rf"CPU {rank} \(rank {rank} of 3\): .*{says}") as caught:
        cpu_ranks.train(3, solver, Options(data=data, run=tmp_path / "run", batch=18, epochs=EPOCHS, quiet=True))
    assert time.monotonic() - begin < 60
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    assert not children()
    if place == "step":  # after iteration 12, which is after the first epoch
        assert Run(tmp_path / "run").iterations() == [12]
        assert f"the last good checkpoint is {tmp_path}/run/checkpoints/12: the same command" in str(caught.value)
        assert "CPU " in Run(tmp_path / "run").log_file.read_text().splitlines()[-1]
    elif rank:
        assert not (tmp_path / "run").exists()


def children():
    """The ranks that this process has started and that have not ended."""
    mine = [pid for pid in os.listdir("/proc") if pid.isdecimal() and _parent(pid) == os.getpid()]
    return [pid for pid in mine if b"resource_tracker" not in Path("/proc", pid, "cmdline").read_bytes()]


def _parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return int(stream.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def test_rank_0_that_hangs_when_another_is_gone_is_ended(solver, data, tmp_path, monkeypatch):
    """As it does in NCCL, which waits for a partner for ever."""
    monkeypatch.setenv("TEST_FAILS", "1 step killed, 0 step hangs")
    monkeypatch.setattr(supervisor, "GRACE", 1)
    with pytest.raises(RunError, match=r"^CPU 1 \(rank 1 of 2\): it was ended by SIGKILL.*checkpoints/10"):
        cpu_ranks.train(2, solver, Options(data=data, run=tmp_path / "run", epochs=EPOCHS, quiet=True))
    assert not children()
    ended(tmp_path / "run")
    monkeypatch.delenv("TEST_FAILS")
    options = Options(data=data, run=tmp_path / "run", resume=True, quiet=True)
    assert cpu_ranks.train(2, solver, options)["iterations"] == 10 * EPOCHS


def test_a_second_ctrl_c_ends_ranks_that_hang(solver, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_FAILS", "1 build hangs")
    run = tmp_path / "run"
    with interruptible(command(solver, data, run, 1), stderr=subprocess.PIPE, cwd=ROOT / "tests") as process:
        wait_for((run / "run.json").exists, process)
        process.send_signal(signal.SIGINT)
        while "SIGINT: ending after this iteration" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    ended(run)


def ended(run):
    """Wait until nobody holds the run folder's lock: the ranks of a supervisor that is gone end by themselves."""
    wait_for(lambda: not runs.in_use(run))


def test_weights_that_drift_apart_are_found(solver, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_FAILS", "1 weights drift")
    with pytest.raises(RunError, match="the weights on CPU 1 are not those on CPU 0 after iteration 10"):
        cpu_ranks.train(2, solver, Options(data=data, run=tmp_path / "run", epochs=2, quiet=True))


def test_a_loss_that_is_not_finite_is_said_as_by_one_process(solver, data, tmp_path):
    with pytest.raises(
        RunError, match=r"^the loss is (nan|inf) at iteration \d+: train anew with a --base-lr below 1e"
    ):
        cpu_ranks.train(2, solver, Options(data=data, run=tmp_path / "run", base_lr=1e20, epochs=1, quiet=True))


# --- Ranks that are stopped ---

SCRIPT = """
import sys
from pathlib import Path
import cpu_ranks
from tiny_imagenet import cli
from tiny_imagenet.training.train import Options
solver, data, run, epochs = sys.argv[1:]
options = Options(data=Path(data), run=Path(run), epochs=int(epochs), patience=1, resume=True)
cli.run(lambda: cpu_ranks.train(2, solver, options))
"""


def command(*arguments):
    return [sys.executable, "-c", SCRIPT, *map(str, arguments)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_with_a_checkpoint(number, solver, data, tmp_path):
    run = tmp_path / "run"
    with interruptible(command(solver, data, run, 100_000), stderr=subprocess.PIPE, cwd=ROOT / "tests") as process:
        wait_for((run / "metrics.jsonl").exists, process)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    found = re.search(
        r"error: stopped by (\w+) at iteration (\d+), with a checkpoint: .*--resume", error.splitlines()[-1]
    )
    assert found, error
    assert Run(run).iterations()[-1] == int(found[2])
    assert "Traceback" not in error
    ended(run)


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_stopped_again_and_again_it_ends_as_it_would_have(how, whole, solver, data, tmp_path):
    run, stops = tmp_path / "run", 0
    for _ in range(40):
        with interruptible(command(solver, data, run, EPOCHS), stderr=subprocess.PIPE, cwd=ROOT / "tests") as process:
            seen = Run(run).iterations()[-1:]
            until = time.monotonic() + 60
            while process.poll() is None and stops < 2 and time.monotonic() < until:
                if Run(run).iterations()[-1:] != seen:
                    process.send_signal(signal.SIGTERM if how == "stopped" else signal.SIGKILL)
                    break
                time.sleep(0.005)
            error = process.communicate(timeout=60)[1]
        if process.returncode == 0 and stops:
            break
        if process.returncode == 0:  # it was too fast
            shutil.rmtree(run)
            continue
        assert process.returncode == (128 + signal.SIGTERM if how == "stopped" else -signal.SIGKILL), error
        stops += 1
        ended(run)
    assert stops
    assert Run(run).weights("last").read_bytes() == whole.weights("last").read_bytes()
    assert lasting(Run(run)) == lasting(whole)


def test_the_wish_of_a_caller_is_passed_on(solver, data, tmp_path):
    class Wish:
        signal = "SIGTERM"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    with pytest.raises(Stopped, match="stopped by SIGTERM at iteration") as stopped:
        cpu_ranks.train(2, solver, Options(data=data, run=tmp_path / "run", epochs=1000, quiet=True), Wish())
    assert stopped.value.status == 128 + signal.SIGTERM


def test_run_json_has_what_made_it(whole):
    info = whole.info
    assert (info["gpus"], info["tf32"], info["deterministic"]) == ([], False, False)
    assert info["sessions"][0]["argv"] == sys.argv
    assert json.loads((whole.path / "checkpoints" / "last" / "state.json").read_text())["validated"]
