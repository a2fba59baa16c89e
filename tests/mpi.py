"""Helpers of the tests of training over MPI: mpirun, and machines that are network namespaces of this one."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, interruptible, wait_for

TRAIN = [sys.executable, ROOT / "tools" / "train.py"]
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
ROOT_MAY = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ENVIRONMENT = {**os.environ, **ROOT_MAY, "OMP_NUM_THREADS": "1"}

needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: tools/setup.sh --cluster installs it")


def several(count, *arguments, others=None, python=()):
    """Return mpirun's command that trains with `count` ranks; `others` are arguments of all but rank 0."""
    command = [*TRAIN[:1], *python, *TRAIN[1:]]
    if others is None:
        return [*MPIRUN, "-n", str(count), *command, *arguments]
    return [*MPIRUN, "-n", "1", *command, *arguments, ":", "-n", str(count - 1), *command, *others]


def run(command, fails=None, **options):
    """Run a command, which must end with the status `fails`, and return its stderr."""
    options = {"env": ENVIRONMENT, "timeout": 300, "cwd": ROOT, **options}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == (fails or 0), done.stderr
    return done.stderr


def errors(text):
    """Return the error lines of the script; mpirun adds other lines."""
    return [line for line in text.splitlines() if line.startswith("train.py: error: ")]


@contextlib.contextmanager
def under_way(command, run_folder, **options):
    """A training that has written a checkpoint, until the end of the block."""
    options = {"env": ENVIRONMENT, "cwd": ROOT, **options}
    with interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        wait_for(lambda: (Path(run_folder) / "checkpoints" / "last").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process


def ranks_of(process):
    """Return the processes that an mpirun started on this machine, in the order of their ranks."""
    found = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        found.update({int(v.partition(b"=")[2]): int(pid) for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")})
    return [found[rank] for rank in sorted(found)]


class Machines:
    """Network namespaces on one switch, each with a host name (node0, ...); mpirun is on the first.

    Args:
        count: number of machines.
        folder: a temporary one.
        mbit: limit of each machine's traffic per direction, in 10^6 bits per second.
    """

    _serial = itertools.count()

    def __init__(self, count, folder, mbit=None):
        # Unique names of at most 15 characters: a network card may outlive its namespace for a moment.
        self._bridge = f"tin{os.getpid() % 10000}x{next(self._serial) % 1000}"
        self._names = [f"{self._bridge}x{number}" for number in range(count)]
        self._addresses = [f"10.213.77.{10 + number}" for number in range(count)]
        self._mbit = mbit
        self._agent = Path(folder) / "agent"
        machines = enumerate(zip(self._addresses, self._names))
        cases = "\n".join(f"  {address}) name={name}; node=node{number} ;;" for number, (address, name) in machines)
        self._agent.write_text(
            f'#!/bin/sh\n# Arguments as for ssh: HOST COMMAND ...\ncase "$1" in\n{cases}\nesac\nshift\n'
            'exec ip netns exec $name unshare --uts sh -c "hostname $node; $*"\n'
        )
        self._agent.chmod(0o755)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.__exit__)
            _ip("link", "add", self._bridge, "type", "bridge", "forward_delay", "0")
            _ip("link", "set", self._bridge, "up")
            for name, address in zip(self._names, self._addresses):
                _ip("netns", "add", name)
                _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
                _ip("link", "set", name, "master", self._bridge, "up")
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                for device in ("eth0", "lo"):
                    _ip("-n", name, "link", "set", device, "up")
            if self._mbit:
                self.limit(self._mbit)
            stack.pop_all()
        return self

    def __exit__(self, *_):
        for number, name in enumerate(self._names):
            self.kill(number)
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", self._bridge])

    def command(self, *arguments, count=None, python=()):
        """Return mpirun's command, on the first machine, that trains with one rank on each of `count` machines."""
        count = count or len(self._names)
        inside = ["ip", "netns", "exec", self._names[0], "unshare", "--uts"]
        inside += ["sh", "-c", 'hostname node0; exec "$@"', "-"]
        options = ["--mca", "plm_rsh_agent", self._agent, "--host", ",".join(self._addresses[:count])]
        rest = several(count, *arguments, python=python)[len(MPIRUN) :]
        return [*inside, *MPIRUN, "-x", "OMP_NUM_THREADS", *options, *rest]

    def limit(self, mbit):
        """Limit each machine's traffic per direction, in 10^6 bits per second; None lifts the limit."""
        shape = ["replace", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "100ms"] if mbit else ["del"]
        for name in self._names:
            for inside, device in (([], name), (["-n", name], "eth0")):
                subprocess.run(["tc", *inside, "qdisc", shape[0], "dev", device, "root", *shape[1:]], check=True)

    def cut(self, number):
        """Disconnect a machine from the network."""
        _ip("link", "set", self._names[number], "down")

    def mend(self, number):
        _ip("link", "set", self._names[number], "up")

    def separate(self, one, other):
        """Let two machines reach all but each other, as behind a firewall."""
        for here, there in ((one, other), (other, one)):
            nowhere = ("lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")
            _ip("-n", self._names[here], "neigh", "replace", self._addresses[there], *nowhere)

    def rejoin(self, one, other):
        for here, there in ((one, other), (other, one)):
            _ip("-n", self._names[here], "neigh", "del", self._addresses[there], "dev", "eth0")

    def ranks(self, number):
        """Return the ranks' processes on a machine."""
        found = []
        for pid in self._pids(number):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                python, *arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if python == sys.executable and str(TRAIN[1]) in arguments:
                    found.append(pid)
        return found

    def kill(self, number):
        """Kill all processes on a machine."""
        for pid in self._pids(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self, number):
        listed = subprocess.run(["ip", "netns", "pids", self._names[number]], capture_output=True, text=True).stdout
        return map(int, listed.split())


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def why_no_machines():
    """Return why namespaces cannot be made here, or ""."""
    if os.geteuid():
        return "network namespaces need root"
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            return f"no program {program} (iproute2, util-linux)"
    name = f"tin{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces cannot be made here"
    pair = ["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"]
    made = subprocess.run(pair, capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name])
    return "" if made else "virtual network cards cannot be made here"
