"""What the tests of training over MPI share: mpirun, and machines that are network namespaces of this one."""

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
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMP_NUM_THREADS": "1",
}

needs_mpi = pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: tools/setup.sh --cluster installs it")


def several(count, *arguments, others=None, python=()):
    """mpirun's command for training with so many ranks; those beside rank 0 may have other arguments."""
    command = [*TRAIN[:1], *python, *TRAIN[1:]]
    if others is None:
        return [*MPIRUN, "-n", str(count), *command, *arguments]
    return [*MPIRUN, "-n", "1", *command, *arguments, ":", "-n", str(count - 1), *command, *others]


def run(command, fails=None, **options):
    """Run a command to its end and return its stderr; `fails` is the status that it is to fail with."""
    options = {"env": ENVIRONMENT, "timeout": 300, "cwd": ROOT, **options}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == (fails or 0), done.stderr
    return done.stderr


def errors(text):
    """The lines that are errors of the script; mpirun adds paragraphs of its own."""
    return [line for line in text.splitlines() if line.startswith("train.py: error: ")]


@contextlib.contextmanager
def under_way(command, run_folder, **options):
    """A training that has a checkpoint by now, and that ends with the block."""
    options = {"env": ENVIRONMENT, "cwd": ROOT, **options}
    with interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        wait_for(lambda: (Path(run_folder) / "checkpoints" / "last").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process


class Machines:
    """Machines that are network namespaces of this one, on one switch; mpirun is on the first.

    Args:
        count: how many.
        folder: a temporary one.
        mbit: 10^6 bits a second that each sends and receives, at most.
    """

    _serial = itertools.count()

    def __init__(self, count, folder, mbit=None):
        # Names of their own: a network card may outlive its namespace for a moment. They have at most 15 characters.
        self._bridge = f"tin{os.getpid() % 10000}x{next(self._serial) % 1000}"
        self._names = [f"{self._bridge}x{number}" for number in range(count)]
        self._mbit = mbit
        self._addresses = [f"10.213.77.{10 + number}" for number in range(count)]
        self._agent = Path(folder) / "agent"
        cases = "\n".join(
            f"  {a}) name={n}; node=node{i} ;;" for i, (a, n) in enumerate(zip(self._addresses, self._names))
        )
        self._agent.write_text(
            "#!/bin/sh\n# ssh's place: HOST COMMAND ...\n"
            f'case "$1" in\n{cases}\nesac\nshift\n'
            'exec ip netns exec $name unshare --uts sh -c "hostname $node; $*"\n'
        )
        self._agent.chmod(0o755)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self.__exit__)
            self._ip("link", "add", self._bridge, "type", "bridge", "forward_delay", "0")
            self._ip("link", "set", self._bridge, "up")
            for name, address in zip(self._names, self._addresses):
                self._ip("netns", "add", name)
                self._ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
                self._ip("link", "set", name, "master", self._bridge, "up")
                self._ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
                for device in ("eth0", "lo"):
                    self._ip("-n", name, "link", "set", device, "up")
            if self._mbit:
                self.limit(self._mbit)
            stack.pop_all()
        return self

    def __exit__(self, *_):
        for name in self._names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in map(int, pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name])
        subprocess.run(["ip", "link", "del", self._bridge])

    def command(self, *arguments, count=None, python=()):
        """mpirun's command, on the first machine, for training with a rank on each of `count` of them."""
        count = count or len(self._names)
        options = ["--mca", "plm_rsh_agent", self._agent, "--host", ",".join(self._addresses[:count])]
        begin = [
            "ip",
            "netns",
            "exec",
            self._names[0],
            "unshare",
            "--uts",
            "sh",
            "-c",
            'hostname node0; exec "$@"',
            "-",
        ]
        mpirun = [*MPIRUN, "-x", "OMP_NUM_THREADS", *options]
        return [*begin, *mpirun, *several(count, *arguments, python=python)[len(MPIRUN) :]]

    def limit(self, mbit):
        """Let each machine send and receive so many 10^6 bits a second, at most."""
        self._shape("replace", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "100ms")

    def lift(self):
        """Take the limit away."""
        self._shape("del")

    def _shape(self, what, *how):
        for name in self._names:
            for inside, device in (([], name), (["-n", name], "eth0")):
                subprocess.run(["tc", *inside, "qdisc", what, "dev", device, "root", *how], check=True)

    def cut(self, number):
        """Pull the cable of a machine."""
        self._ip("link", "set", self._names[number], "down")

    def mend(self, number):
        self._ip("link", "set", self._names[number], "up")

    def part(self, one, other):
        """Let two machines reach all but each other, as a firewall does that drops what it does not like."""
        for here, there in ((one, other), (other, one)):
            nowhere = ("lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent")
            self._ip("-n", self._names[here], "neigh", "replace", self._addresses[there], *nowhere)

    def join(self, one, other):
        for here, there in ((one, other), (other, one)):
            self._ip("-n", self._names[here], "neigh", "del", self._addresses[there], "dev", "eth0")

    def ranks(self, number):
        """The ranks' processes on a machine."""
        pids = subprocess.run(["ip", "netns", "pids", self._names[number]], capture_output=True, text=True).stdout
        found = []
        for pid in map(int, pids.split()):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                python, *arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                if python == sys.executable and str(TRAIN[1]) in arguments:
                    found.append(pid)
        return found

    @staticmethod
    def _ip(*arguments):
        subprocess.run(["ip", *arguments], check=True)


def why_no_machines():
    """Why namespaces cannot be made here; "" where they can."""
    if os.geteuid():
        return "network namespaces need root"
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            return f"no program {program} (iproute2, util-linux)"
    name = f"tin{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces cannot be made here"
    pair = subprocess.run(
        ["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"], capture_output=True
    )
    subprocess.run(["ip", "netns", "del", name])
    return "" if pair.returncode == 0 else "virtual network cards cannot be made here"


def ranks_of(process):
    """The processes of an mpirun on this machine, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
            rank = [v for v in variables if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if parent == process.pid and rank:
                found[int(rank[0].partition(b"=")[2])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]
