"""Training and prediction on GPUs; skipped without one. tests/gpu.sh runs these."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
import pytest

from conftest import ROOT, apart, interruptible, wait_for, without_kinks
from tiny_imagenet import gpu, runs
from tiny_imagenet.errors import GpuError, RunError
from tiny_imagenet.evaluation import evaluate, predictions
from tiny_imagenet.models import generate, zoo
from tiny_imagenet.runs import Run
from tiny_imagenet.training import train
from tiny_imagenet.training.options import Options

try:
    THERE, PROBLEM = len(gpu.names()), ""
except GpuError as error:
    THERE, PROBLEM = 0, str(error)

pytestmark = pytest.mark.skipif(not THERE, reason=PROBLEM)
several = pytest.mark.skipif(
    THERE < 2 or not caffe.has_nccl(),
    reason=PROBLEM or ("there is one GPU" if THERE < 2 else "this build has no NCCL"),
)

ROW = zoo.MODELS["model5"].replace(
    convs="5-16 | 3-16 | 3-32 |", hidden=(32,), batch=40, classes=10, screened=False, base_lr=0.02, drop_after_stage=3
)


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    generate.write([ROW], folder, ROOT / "tools")
    return str(folder / "model5" / "solver.prototxt")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A net without dropout, whose masks differ between devices, and without kinks, where rounding decides."""
    folder = tmp_path_factory.mktemp("plain")
    generate.write([ROW.replace(dropout=0, drop_after_stage=0)], folder, ROOT / "tools")
    return without_kinks(str(folder / "model5" / "solver.prototxt"))


@pytest.fixture(scope="module")
def trained_on_gpu(solver, data, tmp_path_factory):
    run = tmp_path_factory.mktemp("gpu") / "run"
    train.train(solver, Options(data=data, run=run, epochs=30, gpus=(0,), deterministic=True))
    return Run(run)


@contextlib.contextmanager
def training_on_two(solver, data, run):
    """tools/train.py on two GPUs, with a record in metrics.jsonl."""
    command = [sys.executable, ROOT / "tools" / "train.py", solver, "--data", data, "--run", run, "--gpu", "0,1"]
    with interruptible([*command, "--epochs", 100_000], stderr=subprocess.PIPE) as process:
        wait_for((run / "metrics.jsonl").exists, process)
        yield process


def test_a_run_records_its_gpu_and_is_evaluated_alike_on_the_cpu(trained_on_gpu, data):
    info = trained_on_gpu.info
    assert (info["gpus"], info["deterministic"]) == ([0], True)
    assert info["machine"]["gpus"] == gpu.names()[:1]
    assert "cuda" in info["versions"]
    on_gpu = evaluate.predict_run(trained_on_gpu, data, gpu=0)
    caffe.set_mode_cpu()
    on_cpu = evaluate.predict_run(trained_on_gpu, data)
    np.testing.assert_allclose(on_gpu.probabilities, on_cpu.probabilities, atol=1e-4)


def test_a_gpu_computes_the_same_as_the_cpu(plain, data, tmp_path):
    for name, options in (("cpu", {}), ("gpu", {"gpus": (0,), "tf32": False}), ("tf32", {"gpus": (0,), "tf32": True})):
        train.train(plain, Options(data=data, run=tmp_path / name, max_iter=20, quiet=True, **options))
        assert Run(tmp_path / name).info["tf32"] is options.get("tf32", False)
    assert apart(Run(tmp_path / "cpu"), Run(tmp_path / "gpu")) < 1e-4
    assert apart(Run(tmp_path / "cpu"), Run(tmp_path / "tf32")) < 5e-2


@pytest.mark.parametrize("parts", [(30,), (7, 30)])
def test_deterministic_runs_give_the_same_bytes(parts, trained_on_gpu, solver, data, tmp_path):
    """Also when they are stopped and resumed."""
    for epochs in parts:
        options = Options(data=data, run=tmp_path / "run", epochs=epochs, resume=True, quiet=True, gpus=(0,))
        train.train(solver, dataclasses.replace(options, deterministic=True))
    assert Run(tmp_path / "run").weights("last").read_bytes() == trained_on_gpu.weights("last").read_bytes()


def test_settings_that_contradict_the_run_are_refused(trained_on_gpu):
    for name, value in (("tf32", True), ("deterministic", False)):
        with pytest.raises(RunError, match=f"--{name}"):
            train.train(None, Options(run=trained_on_gpu.path, resume=True, **{name: value}))


def test_the_tools_take_a_gpu(trained_on_gpu, tool, tmp_path):
    result = json.loads(tool("evaluate", trained_on_gpu.path, "--gpu", 0, "--json").stdout)
    assert result["count"] == 40
    tool("evaluate", trained_on_gpu.path, "--gpu", 0, "--ten-crop")
    tool("ensemble", trained_on_gpu.path, "--checkpoints", "--gpu", 0, "--out", tmp_path / "e.npz")
    assert predictions.load(tmp_path / "e.npz").probabilities.shape == (40, 10)
    tool("predict", trained_on_gpu.path, "--submission", tmp_path / "test.txt", "--gpu", 0)
    tool("visualize", "tsne", trained_on_gpu.path, "--classes", 5, "--gpu", 0, "--out", tmp_path / "tsne.png")
    assert f"GPU {THERE}" in tool("evaluate", trained_on_gpu.path, "--gpu", THERE, fails=2).stderr


# --- Several ---


@several
def test_two_gpus_compute_the_same_as_one(plain, data, tmp_path):
    for name, gpus in (("one", (0,)), ("two", (0, 1))):
        train.train(plain, Options(data=data, run=tmp_path / name, max_iter=20, quiet=True, gpus=gpus, tf32=False))
    assert apart(Run(tmp_path / "one"), Run(tmp_path / "two")) < 1e-4
    assert Run(tmp_path / "two").info["gpus"] == [0, 1]


@several
def test_all_gpus_train_and_resume(solver, data, tmp_path, tool):
    common = "--data", data, "--run", tmp_path / "run", "--gpu", "all", "--batch", 8 * THERE
    tool("train", solver, *common, "--epochs", 10)
    tool("train", "--run", tmp_path / "run", "--resume", "--epochs", 20)
    run = Run(tmp_path / "run")
    assert [len(session["ranks"]) for session in run.info["sessions"]] == [THERE, THERE]
    assert run.iterations()[-1] == run.info["max_iter"]


@several
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all(victim, solver, data, tmp_path):
    with training_on_two(solver, data, tmp_path / "run") as process:
        children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        ranks = [pid for pid in sorted(children) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(ranks[victim], signal.SIGKILL)
        error = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert re.search(rf"error: GPU {victim} .*SIGKILL", error.splitlines()[-1])


@several
def test_ctrl_c_ends_all_with_a_checkpoint(solver, data, tmp_path):
    run = tmp_path / "run"
    with training_on_two(solver, data, run) as process:
        process.send_signal(signal.SIGINT)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped by SIGINT at iteration" in error.splitlines()[-1]
    with runs.reopen(run):
        assert Run(run).iterations()
