"""Several ranks train one net on this machine, on the CPU (cpu_ranks): everything but NCCL is as on several GPUs."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cpu_ranks
from conftest import ROOT, apart, interruptible, wait_for, without_kinks, write_tiny_net
from tiny_imagenet import runs
from tiny_imagenet.errors import NetError, RankLostError, RunError
from tiny_imagenet.evaluation import evaluate, metrics
from tiny_imagenet.models import generate, nets, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import spawn, train
from tiny_imagenet.training.options import Options

pytestmark = pytest.mark.slow

ROW = zoo.MODELS["model6"].replace(
    convs="3-4 3-4 | 3-4 | 3-8 |", hidden=(16,), batch=20, classes=10, screened=False, base_lr=0.02, drop_after_stage=3
)
EPOCHS = 6  # of 10 iterations
# The rate may drop after each epoch, but no plateau ends training: its length must not depend on how the net learns.
SCHEDULE = {"epochs": EPOCHS, "patience": 1, "lr_factor": 0.5, "lr_drops": 100}


def write(folder, **changes):
    row = ROW.replace(**changes)
    generate.write([row], folder, ROOT / "tools")
    return str(folder / row.name / "solver.prototxt")


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    return write(tmp_path_factory.mktemp("nets"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A net without dropout, whose masks differ between ranks, and without kinks, where rounding decides."""
    return without_kinks(write(tmp_path_factory.mktemp("plain"), dropout=0, drop_after_stage=0))


@pytest.fixture(scope="module")
def whole(solver, data, tmp_path_factory):
    """A run of two ranks that was never stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    cpu_ranks.train_on(2, solver, Options(data=data, run=run, **SCHEDULE))
    return Run(run)


def lasting(run):
    """The records of a run without their times."""
    return [{k: v for k, v in record.items() if k != "images_per_second"} for record in Run(run).metrics()]


def weights(run):
    return Run(run).weights("last").read_bytes()


# --- Results ---


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_ranks_computes_the_same(count, plain, data, tmp_path):
    one, several = tmp_path / "one", tmp_path / "several"
    train.train(plain, Options(data=data, run=one, max_iter=20, quiet=True))
    result = cpu_ranks.train_on(count, plain, Options(data=data, run=several, max_iter=20, quiet=True))
    assert result["iterations"] == 20 and result["run"] == str(several)
    assert apart(Run(one), Run(several)) < 1e-5
    for record, other in zip(lasting(one), lasting(several)):
        assert record == pytest.approx(other, rel=1e-5)


def test_the_same_ranks_give_the_same_bytes(whole, solver, data, tmp_path):
    cpu_ranks.train_on(2, solver, Options(data=data, run=tmp_path / "run", quiet=True, **SCHEDULE))
    assert weights(tmp_path / "run") == weights(whole.path)
    assert lasting(tmp_path / "run") == lasting(whole.path)
    assert whole.info["sessions"][0]["ranks"] == ["CPU 0", "CPU 1"]


def test_a_run_resumes_with_other_numbers_of_ranks(plain, data, tmp_path):
    one, parts = tmp_path / "one", tmp_path / "parts"
    train.train(plain, Options(data=data, run=one, max_iter=20, quiet=True))
    train.train(plain, Options(data=data, run=parts, max_iter=6, quiet=True))
    for count, length in ((4, 13), (2, 20)):
        cpu_ranks.train_on(count, plain, Options(data=data, run=parts, max_iter=length, resume=True, quiet=True))
    assert apart(Run(one), Run(parts)) < 1e-5


def test_a_batch_of_an_upstream_data_layer_is_shared(data, tmp_path):
    """Data deals its records out to the ranks in turn, so that a batch contains the same ones."""
    solver = write_tiny_net(tmp_path / "net", base_lr=0.001)
    with solver.open("a") as stream:
        stream.write("iter_size: 2\n")
    net = solver.with_name("train_val.prototxt")
    text = net.read_text().replace("crop_size: 56 mirror: true", "")  # crops and mirrors differ between ranks
    net.write_text(text.replace("kernel_size: 7 stride: 7", "kernel_size: 8 stride: 8"))
    train.train(str(solver), Options(data=data, run=tmp_path / "one", max_iter=8, quiet=True))
    cpu_ranks.train_on(4, str(solver), Options(data=data, run=tmp_path / "four", max_iter=8, quiet=True))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "four")) < 1e-5
    assert nets.read(Run(tmp_path / "four").train_val).layer[0].data_param.batch_size == 20


def test_all_ranks_validate_with_the_batch_norm_statistics_of_rank_0(plain, data, tmp_path):
    """Those of the checkpoint: each rank computes its own from its share of the batches."""
    folder = shutil.copytree(Path(plain).parent, tmp_path / "net")
    file = folder / "train_val.prototxt"
    before, layer, after = re.split(r'(layer \{\s+name: "conv1_2")', file.read_text())
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "conv1_1" top: "norm" }\n'
    file.write_text(before + norm + layer + after.replace('bottom: "conv1_1"', 'bottom: "norm"', 1))
    solver = str(folder / "solver.prototxt")
    cpu_ranks.train_on(4, solver, Options(data=data, run=tmp_path / "run", max_iter=10, quiet=True))
    run = Run(tmp_path / "run")
    found = metrics.summary(evaluate.predict_run(run, data))
    assert found["loss"] == pytest.approx(run.metrics()[-1]["validation_loss"], rel=1e-6)


def staged(folder):
    """Write a small Model 9 with one stage, and return its solver."""
    small = {"convs": "3-4 3-4 | 3-4 | 3-8 |", "hidden": (16,), "batch": 20, "classes": 10, "screened": False}
    row = zoo.MODELS["model9"].replace(shallow=("3-4 | 3-4 | 3-8 |",), base_lr=0.02, drop_after_stage=0, **small)
    generate.write([row], folder, ROOT / "tools")
    return str(folder / "model9" / "solver.prototxt")


def test_all_ranks_train_the_stages(data, tmp_path):
    result = cpu_ranks.train_on(2, staged(tmp_path), Options(data=data, run=tmp_path / "run", epochs=1, quiet=True))
    assert result["iterations"] == 10
    assert Run(tmp_path / "run").stage(1).iterations() == [10]


# --- Failures ---


def test_a_batch_that_cannot_be_shared_is_refused(plain, data, tmp_path):
    with pytest.raises(NetError, match="batch of 20"):
        cpu_ranks.train_on(3, plain, Options(data=data, run=tmp_path / "run", max_iter=1))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_rank_0s_error(solver, data, tmp_path):
    with pytest.raises(RunError, match="base-lr"):
        cpu_ranks.train_on(2, solver, Options(data=data, run=tmp_path / "run", base_lr=1e20, epochs=1, quiet=True))


@pytest.mark.parametrize(
    ("rank", "place", "how", "cause"),
    [
        (0, "step", "killed", "SIGKILL"),
        (2, "step", "exits", "status 3"),
        (1, "step", "raises", "no memory here"),
        (0, "join", "raises", "no memory here"),
        (2, "join", "killed", "SIGKILL"),
    ],
)
def test_a_rank_that_fails_ends_all(rank, place, how, cause, solver, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_FAILS", f"{rank} {place} {how}")
    with pytest.raises(RankLostError, match=f"CPU {rank} .*{cause}"):
        cpu_ranks.train_on(3, solver, Options(data=data, run=tmp_path / "run", batch=18, epochs=EPOCHS, quiet=True))
    assert not children()
    if place == "step":  # iteration 12 is the end of the first epoch
        assert Run(tmp_path / "run").iterations() == [12]


def children():
    """The ranks that this process started and that have not ended."""
    pids = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in pids if b"spawn_main" in Path("/proc", pid, "cmdline").read_bytes()]


def test_a_rank_that_waits_for_a_lost_one_forever_is_ended(solver, data, tmp_path, monkeypatch):
    """NCCL waits like this."""
    monkeypatch.setenv("TEST_FAILS", "1 step killed,0 step hangs")
    monkeypatch.setattr(spawn, "GRACE", 1)
    with pytest.raises(RankLostError, match="CPU 1"):
        cpu_ranks.train_on(2, solver, Options(data=data, run=tmp_path / "run", epochs=EPOCHS, quiet=True))
    assert not children()
    monkeypatch.delenv("TEST_FAILS")
    options = Options(data=data, run=tmp_path / "run", resume=True, quiet=True)
    assert cpu_ranks.train_on(2, solver, options)["iterations"] == 10 * EPOCHS


def test_weights_that_differ_between_ranks_are_detected(solver, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_FAILS", "1 weights drift")
    with pytest.raises(RunError, match="CPU 1"):
        cpu_ranks.train_on(2, solver, Options(data=data, run=tmp_path / "run", epochs=2, quiet=True))


# --- Signals ---

SCRIPT = """
import sys
from pathlib import Path
import cpu_ranks
import test_spawn
from tiny_imagenet import cli
from tiny_imagenet.training.options import Options
solver, data, run, epochs = sys.argv[1:]
schedule = {**test_spawn.SCHEDULE, "epochs": int(epochs)}
cli.run(lambda: cpu_ranks.train_on(2, solver, Options(data=Path(data), run=Path(run), resume=True, **schedule)))
"""


@contextlib.contextmanager
def training(*arguments):
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    with interruptible(command, stderr=subprocess.PIPE, cwd=ROOT / "tests") as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_resumes_to_the_same_bytes(number, solver, data, tmp_path):
    run = tmp_path / "run"
    with training(solver, data, run, 100_000) as process:
        wait_for((run / "checkpoints" / "last").exists, process)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    if number == signal.SIGKILL:  # the ranks see that and end
        wait_for(lambda: not runs.in_use(run))
    else:
        assert process.returncode == 128 + number
        assert f"stopped by {signal.Signals(number).name}" in error.splitlines()[-1]
        assert "Traceback" not in error
    last = Run(run).iterations()[-1]
    for folder in (run, tmp_path / "other"):  # the other one is never stopped
        options = {**SCHEDULE, "epochs": None, "max_iter": last + 15}
        cpu_ranks.train_on(2, solver, Options(data=data, run=folder, resume=True, quiet=True, **options))
    assert weights(run) == weights(tmp_path / "other")


def test_a_second_ctrl_c_ends_ranks_that_hang(solver, data, tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_FAILS", "1 join hangs")
    run = tmp_path / "run"
    with training(solver, data, run, 1) as process:
        wait_for((run / "run.json").exists, process)
        process.send_signal(signal.SIGINT)
        while "SIGINT" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    wait_for(lambda: not runs.in_use(run))


def test_results_and_errors_pass_through_processes():
    assert spawn.run(["one", "two"], exchange) == [("from rank 0", 0), ("from rank 0", 1)]


def exchange(ranks):
    assert os.getpgrp() == os.getpid()  # Ctrl-C at the terminal reaches the parent alone
    return ranks.gather((ranks.broadcast(f"from rank {ranks.rank}"), ranks.rank))
