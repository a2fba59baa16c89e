"""Hosts as network namespaces joined by a bridge; one is cut off in the middle of its training."""

import contextlib
import os
import subprocess

import pytest

from conftest import wait_for
from dask_cluster import Cluster, Experiment, held, results

pytestmark = pytest.mark.slow

pytest.importorskip("distributed", reason="the packages for clusters are not installed")

NAMES = [f"tin{os.getpid()}-{number}" for number in range(3)]


def ip(*arguments):
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("the program ip is missing (package iproute2)")
    if done.returncode:
        pytest.skip(f"cannot create network namespaces here: ip {' '.join(arguments)}: {done.stderr.strip()}")


def inside(number):
    """Command prefix that runs a command on a host."""
    return ["ip", "netns", "exec", NAMES[number]]


@pytest.fixture
def addresses():
    """Addresses of three hosts; the first one has the bridge."""
    found = [f"10.207.0.{number + 1}" for number in range(len(NAMES))]
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", NAMES[0], "link", "add", "bridge", "type", "bridge")
        ip("-n", NAMES[0], "addr", "add", f"{found[0]}/24", "dev", "bridge")
        ip("-n", NAMES[0], "link", "set", "bridge", "up")
        for number, name in enumerate(NAMES[1:], 1):
            ip("-n", NAMES[0], "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", NAMES[0], "link", "set", f"to{number}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{found[number]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield found


def test_training_of_a_host_that_is_cut_off_resumes_elsewhere(checkout, data, tmp_path, addresses):
    options = ["model4", "--epochs", 40]
    assert Experiment(checkout, data, tmp_path / "here", *options).end()[0] == 0
    with Cluster(tmp_path, addresses[0], inside(0)) as cluster:
        for number in (1, 2):
            cluster.worker(host=addresses[number], inside=inside(number))
        options += ["--scheduler", cluster.address]
        experiment = Experiment(checkout, data, tmp_path / "out", *options, inside=inside(0))
        run = experiment.run("model4")
        experiment.wait_for(lambda: len(run.iterations()) > 1)
        [lost] = cluster.working()
        [step] = lost.steps()
        with held(step):  # or it would be done before the loss is noticed
            ip("-n", NAMES[0], "link", "set", f"to{cluster.workers.index(lost) + 1}", "down")
            experiment.wait_for(lambda: any(worker.steps() for worker in cluster.workers if worker is not lost))
        status, _, stderr = experiment.end()
        assert status == 0, stderr
        wait_for(lambda: not os.path.exists(f"/proc/{step}"))
    assert results(tmp_path / "out") == results(tmp_path / "here")
