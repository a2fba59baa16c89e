"""The experiment on a cluster of Dask: the same files as here, whatever is lost on the way."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from conftest import wait_for
from dask_cluster import Cluster, Experiment, held, weights
from tiny_imagenet import runs
from tiny_imagenet.evaluation import predictions
from tiny_imagenet.experiment import reproduce
from tiny_imagenet.training.train import Options

pytest.importorskip("distributed", reason="the packages for clusters are not installed")
from tiny_imagenet.experiment import address
from tiny_imagenet.experiment import dask_graph as graph
from tiny_imagenet.experiment import worker as cluster_worker

LONG = ("--epochs", 60)


@pytest.fixture(scope="module")
def sequential(checkout, data, tmp_path_factory):
    """What comes out here, one after the other: for a few iterations, and for many."""
    folder = tmp_path_factory.mktemp("sequential")
    for name, options in (("short", ["model8", "model9", "--epochs", 2]), ("long", ["model4", *LONG])):
        status, _, stderr = Experiment(checkout, data, folder / name, *options, "--quiet").end()
        assert status == 0, stderr
    return folder


def test_a_local_cluster_gives_the_same_files(checkout, data, sequential, tmp_path):
    out = tmp_path / "out"
    experiment = Experiment(checkout, data, out, "model8", "model9", "--epochs", 2, "--scheduler", "local")
    status, stdout, stderr = experiment.end()
    assert status == 0, stderr
    assert "| model8 + model9 |" in stdout
    assert "to look at: http://127.0.0.1:" in stderr
    assert weights(out) == weights(sequential / "short")
    assert (out / "model9" / "seed1" / "stages" / "1" / "checkpoints" / "last" / "weights.caffemodel").is_file()
    for name in ("model9/seed1/predictions.npz", "ensembles/seed1/model8-model9.npz"):
        found, wanted = predictions.load(out / name), predictions.load(sequential / "short" / name)
        assert np.array_equal(found.probabilities, wanted.probabilities) and np.array_equal(found.keys, wanted.keys)
    assert not (out / ".cluster").exists()
    again = Experiment(checkout, data, out, "model8", "model9", "--epochs", 2, "--scheduler", "tcp://127.0.0.1:1")
    assert again.end()[0] == 0  # there is nothing left that would need the cluster


def test_a_killed_worker(checkout, data, sequential, cluster, tmp_path):
    """Its training goes on from its checkpoint on the other."""
    workers = {worker.address: worker for worker in (cluster.worker(), cluster.worker())}
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    run = experiment.run("model4")
    experiment.wait_for(lambda: len(run.iterations()) > 1)
    workers[experiment.claim("model4")["worker"]].kill()
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert len(run.info["sessions"]) == 2
    assert stderr.splitlines()[0] == f"scheduler {cluster.address}"  # which was told to have no page
    assert "==> train model4, seed 1: again on " in stderr
    assert "going on from iteration" in run.log_file.read_text()
    assert weights(tmp_path / "out") == weights(sequential / "long")


def test_a_killed_training(checkout, data, sequential, cluster, tmp_path):
    """It is begun again a few times, and then a line; the same command goes on."""
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
    assert "its process was ended by SIGKILL, which the system sends where memory runs out, for the 4th time" in stderr
    assert "| model4 | 39.55 | failed |" in stdout
    assert "the same command tries them again" in stderr.splitlines()[-1]
    status, _, stderr = Experiment(checkout, data, tmp_path / "out", *options).end()
    assert status == 0, stderr
    assert weights(tmp_path / "out") == weights(sequential / "long")


def test_trainings_share_no_place(checkout, data, cluster, tmp_path):
    cluster.worker("training=1", threads=2)
    options = ["model1", "model2", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    assert experiment.end()[0] == 0
    times = []
    for name in ("model1", "model2"):
        run = experiment.run(name)
        times.append((run.solver.stat().st_mtime_ns, run.weights("last").stat().st_mtime_ns))
    (_, end), (begin, _) = sorted(times)
    assert end <= begin


def test_a_worker_with_two_places_trains_two_at_once(checkout, data, cluster, tmp_path):
    worker = cluster.worker("training=2", threads=2)
    options = ["model1", "model2", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    experiment.wait_for(lambda: len(worker.steps()) == 2)
    assert experiment.end()[0] == 0


def test_ctrl_c(checkout, data, sequential, cluster, tmp_path):
    """What is under way ends with a checkpoint, the rest does not begin, and it goes on without the cluster too."""
    out = tmp_path / "out"
    worker = cluster.worker()
    options = ["model4", "model1", *LONG, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, out, *options)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1 or experiment.run("model1").iterations())
    experiment.process.send_signal(signal.SIGINT)
    status, _, stderr = experiment.end()
    assert status == 130
    assert "stopped by SIGINT, each training with a checkpoint: the same command goes on" in stderr.splitlines()[-1]
    assert not (out / ".cluster").exists() and not worker.steps()
    assert not [path for path in out.rglob("*") if ".tmp" in path.name]
    [begun] = [experiment.run(name) for name in ("model1", "model4") if experiment.run(name).started]
    assert begun.resume_from() and "finished" not in begun.info
    status, _, stderr = Experiment(checkout, data, out, "model4", *LONG).end()
    assert status == 0, stderr
    assert weights(out / "model4") == weights(sequential / "long" / "model4")


def test_ctrl_c_while_a_step_waits_for_the_lock_of_its_run(checkout, data, cluster, tmp_path):
    cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model1", *LONG, "--scheduler", cluster.address)
    with runs.create(experiment.run("model1").path):
        experiment.wait_for(lambda: experiment.claim("model1"))
        start = time.monotonic()
        experiment.process.send_signal(signal.SIGINT)
        status, _, stderr = experiment.end()
    assert status == 130 and "Traceback" not in stderr
    assert time.monotonic() - start < 0.5 * cluster_worker.PATIENCE
    assert not (tmp_path / "out" / ".cluster").exists()


def test_ctrl_c_at_a_local_cluster(checkout, data, tmp_path):
    """A terminal sends it to all processes at once."""
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", "local", "--workers", 1)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    os.killpg(experiment.process.pid, signal.SIGINT)
    status, _, stderr = experiment.end()
    assert status == 130
    assert "Traceback" not in stderr
    assert "stopped by SIGINT, each training with a checkpoint: the same command goes on" in stderr.splitlines()[-1]
    assert experiment.run("model4").resume_from()


def test_a_worker_that_comes_later_takes_its_share(checkout, data, cluster, tmp_path):
    first = cluster.worker()
    options = ["model1", "model2", "model3", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    experiment.wait_for(first.steps)
    [step] = first.steps()
    with held(step):  # else all might be done before the other comes
        second = cluster.worker()
        experiment.wait_for(second.steps)
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert first.address in stderr and second.address in stderr


def test_a_scheduler_that_is_lost(checkout, data, cluster, tmp_path):
    worker = cluster.worker()
    experiment = Experiment(checkout, data, tmp_path / "out", "model4", *LONG, "--scheduler", cluster.address)
    experiment.wait_for(lambda: len(experiment.run("model4").iterations()) > 1)
    assert runs.in_use(experiment.run("model4").path)
    cluster.scheduler.kill()
    status, _, stderr = experiment.end()
    assert status == 1
    assert "Traceback" not in stderr
    assert f"the scheduler {cluster.address} is gone" in stderr.splitlines()[-1]
    wait_for(lambda: not worker.steps())
    assert not runs.in_use(experiment.run("model4").path)


def test_a_step_that_waits_is_not_given_up_with_its_worker(checkout, data, tmp_path):
    """Dask counts the workers that a step was assigned to; here those count that have begun it."""
    with Cluster(tmp_path, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as cluster:
        lost = cluster.worker()
        options = ["model1", "model2", "--epochs", 20, "--scheduler", cluster.address]
        experiment = Experiment(checkout, data, tmp_path / "out", *options)
        experiment.wait_for(lost.steps)
        lost.kill()
        cluster.worker()
        status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert f"no worker is left: waiting for another; start one with: {address.DASK} worker" in stderr


def test_workers_that_a_step_ends(checkout, data, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(graph, "RETRIES", 0)
    options = Options(data=data, run=tmp_path, epochs=300, prototxt=checkout / "prototxt", quiet=True)
    claim = tmp_path / "out" / ".cluster" / "model1-seed1.claim"
    with Cluster(tmp_path, environment={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}) as cluster:
        worker = cluster.worker()
        killer = threading.Thread(target=lambda: (wait_for(claim.exists), worker.kill()))
        killer.start()
        elsewhere = graph.Elsewhere(cluster.address, None, tmp_path / "out", [])
        [row] = reproduce.reproduce(tmp_path / "out", options, ["model1"], elsewhere=elsewhere.run)
        killer.join()
    assert row.failed[1] == f"worker after worker was lost with it, the last one {worker.address}: see its log"
    assert f"model1, seed 1: {row.failed[1]}" in capfd.readouterr().err
