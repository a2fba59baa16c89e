"""What people get wrong with a cluster: each is a line within seconds, and nothing is left behind."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from conftest import ROOT
from dask_cluster import Experiment, held
from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import schedulers

pytest.importorskip("distributed", reason="the packages for clusters are not installed")
from tiny_imagenet.experiment import address as cluster_address
from tiny_imagenet.experiment import connection as dask_side
from tiny_imagenet.experiment.worker import Demands


@pytest.fixture
def fails(checkout, data, tmp_path):
    """What an experiment says that does not begin."""

    def call(scheduler, *options, out=tmp_path / "out", status=1):
        start = time.monotonic()
        found, stdout, stderr = Experiment(checkout, data, out, "model1", *options, "--scheduler", scheduler).end()
        assert (found, stdout) == (status, ""), stderr
        assert time.monotonic() - start < 60
        assert "Traceback" not in stderr
        assert not out.exists() or not list(out.rglob("*"))
        last = stderr.splitlines()[-1]
        assert last.startswith("reproduce.py: error: ")
        return last

    return call


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--scheduler", "lokal"], "'lokal' is neither the address of a Dask scheduler, such as tcp://head:8786, nor"),
        (["--scheduler", "tcp://head"], "'tcp://head' is neither"),
        (["--scheduler", "http://head:8786"], "'http://head:8786' is neither"),
        (["--scheduler", "tcp://head:87860"], "'tcp://head:87860' is neither"),
        (["--scheduler", "head:8786", "--workers", "2"], "those of tcp://head:8786 are there already"),
        (["--scheduler", "local", "--workers", "0"], "'0' is not a whole number of at least 1"),
        (["--scheduler", "local", "--workers", "257"], "--workers is 257: at most 256 are started on one machine"),
        (["--scheduler", "local", "--gpu", "1"], "--gpu has the numbers that each worker calls its GPUs"),
        (["--scheduler", "local", "--gpu", "all"], "--gpu has the numbers that each worker calls its GPUs"),
        (["--scheduler", "local", "--tf32"], "--tf32 and --deterministic are settings of GPUs"),
        (["--workers", "2"], "--workers goes with --scheduler local or slurm"),
    ],
)
def test_arguments(tool, tmp_path, options, says):
    done = tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", *options, fails=2)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_address_where_nothing_is(fails, tool, tmp_path, dataset):
    assert "cannot reach a scheduler at tcp://127.0.0.1:1 (Connection refused): start one there" in fails("127.0.0.1:1")
    assert "cannot reach a scheduler at tcp://no-such-host.invalid:8786 (" in fails("tcp://no-such-host.invalid:8786")
    done = tool("convert", dataset, tmp_path / "data", "--scheduler", "127.0.0.1:1", fails=1)
    assert "cannot reach a scheduler at tcp://127.0.0.1:1" in done.stderr
    assert not (tmp_path / "data").exists()


def test_something_else_at_the_address(fails, monkeypatch):
    monkeypatch.setattr(cluster_address, "REACH", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        says = f"{address} answers, but not as a Dask scheduler .*it says nothing for 1 seconds"
        with pytest.raises(ClusterError, match=says):
            cluster_address.check(address)
    with socket.create_server(("127.0.0.1", 0)) as server:
        greeter = threading.Thread(target=greet, args=(server,))
        greeter.start()
        assert "it begins with b'SSH-2.0-'" in fails(f"tcp://127.0.0.1:{server.getsockname()[1]}")
        greeter.join()


def greet(server):
    with server.accept()[0] as connection:
        connection.sendall(b"SSH-2.0-OpenSSH")


@pytest.mark.parametrize(
    ("link", "there"),
    [("", False), ("http://127.0.0.1:1/status", False), ("https://hub.invalid/proxy/8787/status", True)],
)
def test_a_page_that_cannot_be_reached_is_not_named(link, there):
    """One behind a proxy that somebody has configured is for a browser to reach."""
    assert cluster_address.has_page(link) == there


def test_workers_that_are_not_there_or_offer_nothing(cluster, fails, monkeypatch, capfd):
    monkeypatch.setattr(dask_side, "LATE", 0.5)
    command = f"{cluster_address.DASK} worker {cluster.address} --nworkers 1 --resources training=1"
    with dask_side.connect(cluster.address, None, None) as there, pytest.raises(ClusterError) as error:
        there.admit(Demands(()), dask_side.Resource())
    assert str(error.value) == f"{cluster.address} has no workers: start some with: {command}"
    worker = cluster.worker(resources=None)
    said = fails(cluster.address)
    assert f"worker {worker.address} (host {socket.gethostname()}): it offers no resources" in said
    assert said.endswith(f"training=1 is needed: start it with: {command}")
    said = fails(cluster.address, "--gpu", "0,1")
    command = f"CUDA_VISIBLE_DEVICES=0,1 {cluster_address.DASK} worker"
    assert f"it offers no resources, and GPU=2 is needed: start it with: {command}" in said


def test_a_worker_that_hangs(cluster, monkeypatch, capfd):
    monkeypatch.setattr(dask_side, "ANSWER", 1.0)
    worker = cluster.worker()
    os.kill(worker.pid, signal.SIGSTOP)
    start = time.monotonic()
    with (
        dask_side.connect(cluster.address, None, None) as there,
        pytest.raises(ClusterError, match=f"worker {worker.address} .*: it has not answered for 1 seconds"),
    ):
        there.admit(Demands(()), None)
    assert time.monotonic() - start < 60


def test_gpus_that_two_trainings_would_share(cluster, fails):
    first = cluster.worker("GPU=2", environment={"CUDA_VISIBLE_DEVICES": "0,1"})
    said = fails(cluster.address, "--gpu", "0")
    assert "used by two trainings at once (it offers GPU=2 with CUDA_VISIBLE_DEVICES=0,1)" in said
    first.kill()
    first.process.wait()
    cluster.worker("GPU=1", environment={"CUDA_VISIBLE_DEVICES": "0"})
    cluster.worker("GPU=1", environment={"CUDA_VISIBLE_DEVICES": "0"})
    said = fails(cluster.address, "--gpu", "0")
    assert "used by two trainings at once (it offers GPU=1 with CUDA_VISIBLE_DEVICES=0)" in said


def test_a_worker_of_another_version(cluster, fails, checkout, data, tmp_path, tool, dataset):
    """It is refused at the start; one that comes later is sent away, and what it was to do is done by the others."""
    (tmp_path / "old.py").write_text(
        "from tiny_imagenet.experiment import worker as cluster_worker\nfound = dict(cluster_worker.versions())\n"
        "found |= {'libcaffe': '0123456789ab', 'Python': '3.8'}\n"
        "cluster_worker.versions = lambda: tuple(found.items())\n"
    )
    old = cluster.worker(preload=tmp_path / "old.py")
    own = ".".join(map(str, sys.version_info[:2]))
    said = fails(cluster.address)
    assert (
        f"worker {old.address} (host {socket.gethostname()}): Python is 3.8, here {own}; libcaffe is 0123456789ab"
        in said
    )
    done = tool("convert", dataset, tmp_path / "data", "--scheduler", cluster.address, fails=1)
    assert "Python is 3.8, here" in done.stderr
    old.kill()
    old.process.wait()
    good = cluster.worker()
    options = ["model1", "model2", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "out", *options)
    experiment.wait_for(good.steps)
    with held(*good.steps()):  # else all might be done before the other comes
        old = cluster.worker(preload=tmp_path / "old.py")
        experiment.wait_for(lambda: old.process.poll() is not None)
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert f"sent away: worker {old.address}" in stderr
    assert "evaluate" not in (tmp_path / "worker2.log").read_text()


def elsewhere(folder):
    """The command that takes a worker to where a folder is another, empty one."""
    script = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", script, str(folder)]
    done = subprocess.run([*inside, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount anything here: {done.stderr.strip()}")
    return inside


def test_a_folder_that_is_not_shared(cluster, fails, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    worker = cluster.worker(inside=elsewhere(out))
    said = fails(cluster.address)
    assert f"worker {worker.address} (host" in said
    assert f"{out} is not the folder that is there here: it must be on a file system that all share" in said


def test_data_that_a_worker_does_not_see(cluster, fails, data, dataset, tool, tmp_path):
    worker = cluster.worker(inside=elsewhere(data))
    assert f"{data / 'manifest.json'} is not there" in fails(cluster.address)
    worker.kill()
    worker.process.wait()
    cluster.worker(inside=elsewhere(dataset))
    done = tool("convert", dataset, tmp_path / "data", "--scheduler", cluster.address, fails=1)
    assert f"{dataset / 'wnids.txt'} is not there" in done.stderr


def test_a_worker_that_may_not_write(cluster, fails, tmp_path):
    (tmp_path / "out").mkdir()
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", script, str(tmp_path / "out")]
    done = subprocess.run([*inside, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount anything here: {done.stderr.strip()}")
    cluster.worker(inside=inside)
    assert f"{tmp_path / 'out'} cannot be written (Read-only file system)" in fails(cluster.address)


def test_without_the_packages(monkeypatch, tmp_path, dataset, tool):
    """All else works, and what is missing is said."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else real(name))
    assert "needs tools/setup.sh --cluster" in " ".join(tool("reproduce", "--help").stdout.split())
    with pytest.raises(ClusterError, match=r"needs the package distributed, .*tools/setup.sh --cluster"):
        schedulers.check_arguments(cli.Parser("", ""), "local", None)
    schedulers.check_arguments(cli.Parser("", ""), None, 3)
    code = "import runpy, sys; sys.modules['distributed'] = sys.modules['dask'] = None; "
    code += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    for arguments in (["reproduce.py", "--help"], ["convert.py", dataset, tmp_path / "data", "--workers", 1]):
        command = [sys.executable, "-c", code, ROOT / "tools" / arguments[0], *arguments[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
