"""An experiment on a Dask cluster: the same results as here, even if workers are lost."""

import os
import signal

import numpy as np
import pytest

from conftest import wait_for
from dask_cluster import Experiment, held, results
from tiny_imagenet import runs
from tiny_imagenet.evaluation import predictions

pytestmark = pytest.mark.slow

pytest.importorskip("distributed", reason="the packages for clusters are not installed")

LONG = ("--epochs", 60)


@pytest.fixture(scope="module")
def here(checkout, data, tmp_path_factory):
    """Experiments run here, one step after the other: short and long."""
    folder = tmp_path_factory.mktemp("here")
    for name, options in (("short", ["model8", "model9", "--epochs", 2]), ("long", ["model4", *LONG])):
        status, _, stderr = Experiment(checkout, data, folder / name, *options, "--quiet").end()
        assert status == 0, stderr
    return folder


def test_local_cluster_gives_the_same_results(checkout, data, here, tmp_path):
    out = tmp_path / "out"
    options = ["model8", "model9", "--epochs", 2, "--scheduler"]
    status, stdout, stderr = Experiment(checkout, data, out, *options, "local").end()
    assert status == 0, stderr
    assert "| model8 + model9 |" in stdout
    assert "dashboard http://127.0.0.1:" in stderr
    assert results(out) == results(here / "short")
    for name in ("model9/seed1/predictions.npz", "ensembles/seed1/model8-model9.npz"):
        found, wanted = predictions.load(out / name), predictions.load(here / "short" / name)
        assert np.array_equal(found.probabilities, wanted.probabilities) and np.array_equal(found.keys, wanted.keys)
    finished = Experiment(checkout, data, out, *options, "tcp://127.0.0.1:1")  # does not need the cluster
    assert finished.end()[0] == 0


def test_lost_worker_is_resumed_elsewhere_with_the_same_bytes(checkout, data, here, cluster, tmp_path):
    cluster.worker(), cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    run = experiment.run("model4")
    experiment.wait_for(lambda: len(run.iterations()) > 1)
    [lost] = cluster.working()
    [step] = lost.steps()
    lost.kill()
    wait_for(lambda: not os.path.exists(f"/proc/{step}"))  # the step dies with its worker
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    [other] = [worker for worker in cluster.workers if worker is not lost]
    assert lost.address in stderr and other.address in stderr
    assert len(run.info["sessions"]) == 2
    assert results(tmp_path / "out") == results(here / "long")


def test_killed_training_is_retried_a_few_times(checkout, data, here, cluster, tmp_path):
    worker = cluster.worker()
    options = ["model4", *LONG, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    for _ in range(4):
        experiment.wait_for(worker.steps)
        [step] = worker.steps()
        os.kill(step, signal.SIGKILL)
        wait_for(lambda: step not in worker.steps())  # noqa: B023
    status, stdout, stderr = experiment.end()
    assert status == 1
    assert "killed by SIGKILL" in stderr and "| failed |" in stdout
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options).end()
    assert status == 0, stderr
    assert results(tmp_path / "out") == results(here / "long")


def test_failed_step_does_not_stop_the_others(checkout, data, cluster, tmp_path):
    cluster.worker()
    out = tmp_path / "out"
    (out / "model1" / "seed1").mkdir(parents=True)
    (out / "model1" / "seed1" / "notes.txt").write_text("not a run folder")
    options = ["model1", "model2", "--epochs", 1, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, out, *options)
    status, _, stderr = experiment.end()
    assert status == 1
    assert f"model1, seed 1: {out / 'model1' / 'seed1'} is not empty" in stderr
    assert "- model1, seed 1: " in (out / "table2.md").read_text()
    assert experiment.run("model2").scores


@pytest.mark.parametrize(("offered", "at_once"), [("training=1", 1), ("training=2", 2)])
def test_worker_runs_as_many_steps_as_its_resources_allow(checkout, data, cluster, tmp_path, offered, at_once):
    worker = cluster.worker(offered, threads=2)
    options = ["model1", "model2", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    seen = set()
    wait_for(lambda: seen.add(len(worker.steps())) or experiment.process.poll() is not None)
    assert experiment.end()[0] == 0
    assert max(seen) == at_once


@pytest.mark.parametrize("kind", ["address", "local"])
def test_ctrl_c_ends_each_training_with_a_checkpoint(checkout, data, here, cluster, tmp_path, kind):
    worker, out = cluster.worker(), tmp_path / "out"
    options = ["--scheduler", cluster.address] if kind == "address" else ["--scheduler", "local", "--workers", 1]
    experiment = Experiment(checkout, data, out, "model4", "model1", *LONG, *options)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    os.killpg(experiment.process.pid, signal.SIGINT)  # as a terminal does
    status, _, stderr = experiment.end()
    assert status == 130, stderr
    assert "Traceback" not in stderr
    assert not worker.steps()
    assert experiment.run("model4").resume_from() and not experiment.run("model1").started
    status, _, stderr = Experiment(checkout, data, out, "model4", *LONG).end()  # resumes without the cluster, too
    assert status == 0, stderr
    assert results(out / "model4") == results(here / "long" / "model4")


def test_killed_experiment_stops_its_steps(checkout, data, cluster, tmp_path):
    worker = cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    experiment.process.kill()
    experiment.end()
    wait_for(lambda: not worker.steps())
    assert "finished" not in experiment.run("model4").info
    assert not runs.in_use(experiment.run("model4").path)


def test_worker_that_closes_hands_its_step_over(checkout, data, here, cluster, tmp_path):
    first = cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    second = cluster.worker()
    first.process.terminate()  # as Slurm does at the end of a job's time
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert second.address in stderr
    assert results(tmp_path / "out") == results(here / "long")


def test_worker_that_joins_later_gets_steps(checkout, data, cluster, tmp_path):
    first = cluster.worker()
    options = ["model1", "model2", "model3", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    experiment.wait_for(first.steps)
    [step] = first.steps()
    with held(step):
        second = cluster.worker()
        experiment.wait_for(second.steps)
    status, _, stderr = experiment.end()
    assert status == 0, stderr


def test_lost_scheduler_ends_the_experiment_and_its_steps(checkout, data, cluster, tmp_path):
    worker = cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    cluster.scheduler.kill()
    status, _, stderr = experiment.end()
    assert status == 1
    assert "Traceback" not in stderr and cluster.address in stderr.splitlines()[-1]
    wait_for(lambda: not worker.steps())
    assert not runs.in_use(experiment.run("model4").path)
