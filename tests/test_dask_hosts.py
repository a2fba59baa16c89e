"""Hosts as network namespaces, joined by a bridge: one is cut off in the midst of its training."""

import contextlib
import os
import subprocess

import pytest

from conftest import wait_for
from dask_cluster import Cluster, Experiment, held, weights

pytest.importorskip("distributed", reason="the packages for clusters are not installed")


class Hosts:
    """Namespaces, the first with the bridge that the others are joined by."""

    def __init__(self, count):
        self._names = [f"tin{os.getpid()}-{number}" for number in range(count)]
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _make(self):
        for name in self._names:
            ip("netns", "add", name)
            self._stack.callback(ip, "netns", "del", name)
            ip("-n", name, "link", "set", "lo", "up")
        head = self._names[0]
        ip("-n", head, "link", "add", "bridge", "type", "bridge")
        ip("-n", head, "addr", "add", f"{self.address(0)}/24", "dev", "bridge")
        ip("-n", head, "link", "set", "bridge", "up")
        for number, name in enumerate(self._names[1:], 1):
            ip("-n", head, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("-n", head, "link", "set", f"to{number}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def address(self, number):
        return f"10.207.0.{number + 1}"

    def inside(self, number):
        """The command that takes another one there."""
        return ["ip", "netns", "exec", self._names[number]]

    def cut(self, number):
        ip("-n", self._names[0], "link", "set", f"to{number}", "down")


def ip(*arguments):
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no ip program (package iproute2)")
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: ip {' '.join(arguments)}: {done.stderr.strip()}")


def test_a_host_that_is_cut_off(checkout, data, tmp_path):
    """What it trains goes on elsewhere, from its checkpoint, and it writes there no more."""
    out, options = tmp_path / "out", ["model4", "model1", "--epochs", 40]
    assert Experiment(checkout, data, tmp_path / "here", *options).end()[0] == 0
    with Hosts(3) as hosts, Cluster(tmp_path, hosts.address(0), hosts.inside(0)) as cluster:
        workers = {}
        for number in (1, 2):
            worker = cluster.worker(host=hosts.address(number), inside=hosts.inside(number))
            workers[worker.address] = number, worker
        options += ["--scheduler", cluster.address]
        experiment = Experiment(checkout, data, out, *options, inside=hosts.inside(0))
        run = experiment.run("model4")
        experiment.wait_for(lambda: len(run.iterations()) > 1)
        number, lost = workers[experiment.claim("model4")["worker"]]
        [step] = lost.steps()
        with held(step):  # else it is done before anybody misses it
            before = run.iterations()[-1]
            hosts.cut(number)
            status, _, stderr = experiment.end()
        assert status == 0, stderr
        assert lost.address in stderr and "==> train model4, seed 1: again on " in stderr
        assert len(run.info["sessions"]) == 2
        assert f"going on from iteration {before} " in run.log_file.read_text()
        wait_for(lambda: not os.path.exists(f"/proc/{step}"))
    assert weights(out) == weights(tmp_path / "here")
