"""Mistakes with a cluster: each is one line, and nothing is left behind."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading

import pytest

from conftest import ROOT
from dask_cluster import Experiment, held
from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import schedulers

pytest.importorskip("distributed", reason="the packages for clusters are not installed")
from tiny_imagenet.experiment import cluster as cluster_side

pytestmark = pytest.mark.slow


@pytest.fixture
def fails(checkout, data, tmp_path):
    """Run an experiment that must fail before it trains; return the last line of stderr."""

    def call(scheduler, *options):
        out = tmp_path / "out"
        status, stdout, stderr = Experiment(checkout, data, out, "model1", *options, "--scheduler", scheduler).end()
        assert (status, stdout) == (1, ""), stderr
        assert "Traceback" not in stderr
        assert {path.name for path in out.iterdir()} <= {".lock", "experiment.json"}
        last = stderr.splitlines()[-1]
        assert last.startswith("reproduce.py: error: ")
        return last

    return call


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--scheduler", "lokal"], "Did you mean 'local'?"),
        (["--scheduler", "tcp://head"], "'tcp://head'"),
        (["--scheduler", "http://head:8786"], "'http://head:8786'"),
        (["--scheduler", "tcp://head:87860"], "'tcp://head:87860'"),
        (["--scheduler", "head:8786", "--workers", "2"], "tcp://head:8786"),
        (["--scheduler", "local", "--workers", "0"], "'0'"),
        (["--scheduler", "local", "--gpu", "1"], "--gpu"),
        (["--scheduler", "local", "--tf32"], "--tf32"),
        (["--workers", "2"], "--workers"),
    ],
)
def test_arguments(tool, tmp_path, options, named):
    done = tool("reproduce", "--data", tmp_path, "--out", tmp_path / "out", *options, fails=2)
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_address_without_a_scheduler(fails):
    assert "tcp://127.0.0.1:1 " in fails("127.0.0.1:1")
    assert "no-such-host.invalid" in fails("tcp://no-such-host.invalid:8786")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH", b""])
def test_address_of_another_server(monkeypatch, greeting):
    monkeypatch.setattr(cluster_side, "TIMEOUT", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        greeter = threading.Thread(target=greet, args=(server, greeting))
        greeter.start()
        with pytest.raises(ClusterError, match=address), cluster_side.connect(address):
            pass
        greeter.join()


def greet(server, greeting):
    with server.accept()[0] as connection, contextlib.suppress(OSError):
        connection.sendall(greeting)
        connection.recv(1)


def test_workers_without_the_resource(cluster, fails):
    cluster.worker(resources=None)
    assert f"worker {cluster.address} --resources training=1" in fails(cluster.address)
    command = f"CUDA_VISIBLE_DEVICES=0,1 {cluster_side.DASK} worker {cluster.address} --resources GPU=2"
    assert command in fails(cluster.address, "--gpu", "0,1")


def test_worker_with_other_code(cluster, fails, checkout, data, tmp_path):
    """It is refused at the start; later it is dismissed, and its steps run elsewhere."""
    (tmp_path / "old.py").write_text(
        "from tiny_imagenet.experiment import worker\nfound = worker._versions() | {'caffe': '0123456789ab'}\n"
        "worker._versions = lambda: found\n"
    )
    old = cluster.worker(preload=tmp_path / "old.py")
    said = fails(cluster.address)
    assert old.address in said and "caffe is 0123456789ab" in said
    old.kill()
    old.process.wait()
    good = cluster.worker()
    options = ["model1", "model2", "--epochs", 2, "--scheduler", cluster.address]
    experiment = Experiment(checkout, data, tmp_path / "other", *options)
    experiment.wait_for(good.steps)
    with held(good.steps()[0]):
        old = cluster.worker(preload=tmp_path / "old.py")
        experiment.wait_for(lambda: old.process.poll() is not None)
    status, _, stderr = experiment.end()
    assert status == 0, stderr
    assert old.address in stderr


@pytest.mark.parametrize("folder", ["data", "out"])
def test_folder_that_a_worker_does_not_share(cluster, fails, data, tmp_path, folder):
    (tmp_path / "out").mkdir()
    hidden = data if folder == "data" else tmp_path / "out"
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(hidden)]
    done = subprocess.run([*inside, "true"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount anything here: {done.stderr.strip()}")
    cluster.worker(inside=inside)
    assert str(hidden) in fails(cluster.address)


def test_without_the_packages(monkeypatch, tmp_path, dataset):
    """Everything else works."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "distributed" else real(name))
    with pytest.raises(ClusterError, match="distributed"):
        schedulers.check_arguments(cli.Parser("", ""), "local", None)
    code = "import runpy, sys; sys.modules['distributed'] = sys.modules['dask'] = None; "
    code += "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    for arguments in (["reproduce.py", "--help"], ["convert.py", dataset, tmp_path / "data", "--workers", 1]):
        command = [sys.executable, "-c", code, ROOT / "tools" / arguments[0], *arguments[1:]]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools")}
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
