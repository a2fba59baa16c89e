"""Ranks started by mpirun, mpiexec or srun, on one or several machines.

No MPI call blocks: an operation is started and then tested until it is done. If nothing finishes within the timeout, a
rank or the network was lost, and the error ends all ranks. Which rank it was is for mpirun or srun to report. MPI
transfers data only within its calls, so a thread tests the gradients' operations while the main thread computes; the
two never call MPI at the same time.
"""

from __future__ import annotations

import os
import pickle
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

import caffe
import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError, GpuError, RankLostError, Stopped, TinyImageNetError
from tiny_imagenet.stop import SIGNALS
from tiny_imagenet.training.ranks import Ranks, Traffic, join_nccl

T = TypeVar("T")

INSTALL = "tools/setup.sh --cluster (or apt-get install openmpi-bin libopenmpi-dev and pip install .[cluster])"
PIECE = 1 << 20  # bytes per transfer of a value or of weights, so that a slow network still shows progress
SLICE = 1 << 20  # float32 values of a gradient averaged at once
AT_ONCE = 8  # slices averaged at the same time; more would share the network, and none would finish for a long time
POLL = 5e-5  # seconds between tests of an operation, tenfold once it takes longer than PATIENCE
PATIENCE = 0.1
GRACE = 5.0  # seconds that rank 0 has to report an error and to end all ranks before another rank does
LAUNCHERS = "mpirun|mpiexec|orterun|orted|prterun|prted"

# Variables with the number of processes and the rank, per launcher. The first launcher with several processes counts:
# mpirun under Slurm has Slurm's variables too. In a batch script without srun, Slurm's variables describe no process.
_VARIABLES = {
    "mpirun": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "srun": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    "mpiexec": ("PMI_SIZE", "PMI_RANK"),
}


class Launch(NamedTuple):
    """The program that started this process, the number of processes it started, and the rank of this one."""

    launcher: str
    size: int
    rank: int


def launched(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """Return how this process was started, or None if it was started alone."""
    for launcher, names in _VARIABLES.items():
        values = [environment.get(name, "") for name in names]
        size, rank = (int(value) if value.isdecimal() else 0 for value in values)
        if size > 1 and (launcher != "srun" or "SLURM_STEP_ID" in environment):
            return Launch(launcher, size, rank)
    return None


def let_rank_0_speak() -> None:
    """Wait, except in rank 0, while rank 0 reports an error that all ranks have and the launcher ends them."""
    launch = launched()
    if launch and launch.rank:
        time.sleep(GRACE * min(launch.rank, 3))


def run(function: Callable[..., T], *arguments: Any, timeout: float = 60.0) -> T | None:
    """Call `function(ranks, *arguments)` in each of the processes that the launcher started.

    Args:
        function: all ranks call the methods of `ranks` in the same order.
        arguments: further arguments.
        timeout: seconds after which an operation that makes no progress ends all ranks.

    Returns:
        The result of `function`; None in the other ranks if it raised Stopped.

    Raises:
        ClusterError: MPI is missing or does not connect the processes.
        Stopped: in rank 0; all ranks stop together.

    Any other exception ends all ranks: rank 0 prints it if it has it, otherwise the rank that raised it, with its host.
    """
    try:
        ranks = MpiRanks(_initialize(), timeout)
    except ClusterError:
        let_rank_0_speak()
        raise
    if ranks.rank:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # rank 0 decides when to stop
    try:
        ranks.connect()
        return function(ranks, *arguments)
    except Stopped:
        if ranks.rank == 0:
            raise
        return None
    except BaseException as error:
        _abort(ranks, error)


def _initialize() -> Any:
    """Initialize MPI and return the module mpi4py.MPI.

    Raises:
        ClusterError: mpi4py or the MPI library is missing, or does not work with the launcher.
    """
    launch = launched()
    if launch is None:
        raise ClusterError("this process was not started by mpirun or srun")
    started = f"{launch.launcher} started {launch.size} processes"
    if launch.launcher == "srun" and not {"PMIX_RANK", "PMI_RANK"} & os.environ.keys():
        raise ClusterError(f"{started} without MPI: use srun --mpi=pmix")
    # Open MPI's choice for two or three ranks sends everything to one of them. Both of these send each byte about
    # twice for any number of ranks; the second takes fewer steps and needs a power of two.
    power_of_two = launch.size & (launch.size - 1) == 0
    os.environ.setdefault("OMPI_MCA_coll_libnbc_iallreduce_algorithm", "3" if power_of_two else "1")
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        raise ClusterError(f"{started}, but mpi4py does not work ({error}): install {INSTALL}") from error
    if MPI.COMM_WORLD.size != launch.size:
        library = MPI.Get_library_version().split(",")[0].split("\n")[0]
        hint = "srun --mpi=pmix" if launch.launcher == "srun" else "the mpirun of that library"
        raise ClusterError(f"{started}, but mpi4py's library ({library}) sees {MPI.COMM_WORLD.size}: use {hint}")
    return MPI


class MpiRanks(Ranks):
    """Ranks connected by MPI; gradients are averaged by MPI on CPUs and by NCCL on GPUs.

    Args:
        MPI: the module, initialized.
        timeout: seconds without progress after which an operation raises RankLostError.
    """

    def __init__(self, MPI: Any, timeout: float):  # noqa: N803 (the module)
        self._comm, self._in_place, self._timeout = MPI.COMM_WORLD, MPI.IN_PLACE, timeout
        rank = self._comm.rank
        names = [f"rank {number}" for number in range(self._comm.size)]
        names[rank] += f" on {platform.node()}"
        super().__init__(rank, names)
        self._on_gpu = False

    def connect(self) -> None:
        """Exchange the host names; warn if the launcher restricts a process to few of its machine's cores."""
        about = self.gather((platform.node(), len(os.sched_getaffinity(0)), os.cpu_count() or 1))
        self._hosts, restricted = self.broadcast(_hosts(about) if about else None)
        self.names = [f"rank {rank} on {host}" for rank, host in enumerate(self._hosts)]
        if restricted and self.rank == 0:
            cli.note(f"{restricted}: mpirun --bind-to none, or srun --cpus-per-task, allows more")

    def device(self, gpus: Sequence[int]) -> int | None:
        """Return this rank's GPU: the ranks of a machine take its GPUs in order.

        If each rank sees one GPU only (srun --gpus-per-task=1), it takes that one.

        Raises:
            GpuError: there are more ranks than GPUs on this machine.
        """
        self._on_gpu = bool(gpus)
        if not gpus:
            return None
        if len(gpus) == 1 and len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1:
            return gpus[0]
        local_rank = self._hosts[: self.rank].count(self._hosts[self.rank])
        if local_rank >= len(gpus):
            raise GpuError(
                f"{self.names[self.rank]} is number {local_rank + 1} on its machine, but --gpu names {len(gpus)} GPUs "
                "there: start one rank per GPU"
            )
        return gpus[local_rank]

    def broadcast(self, value: Any = None) -> Any:
        data = bytearray(pickle.dumps(value) if self.rank == 0 else b"")
        size = np.array([len(data)], np.int64)
        self._finish("broadcast", self._comm.Ibcast(size))
        data = data or bytearray(int(size[0]))
        for piece in _pieces(data):
            self._finish("broadcast", self._comm.Ibcast(piece))
        return pickle.loads(data)

    def gather(self, value: Any) -> list[Any]:
        data = pickle.dumps(value)
        sizes = np.zeros(self.count, np.int64) if self.rank == 0 else None
        self._finish("gather", self._comm.Igather(np.array([len(data)], np.int64), sizes))
        if self.rank:
            for piece in _pieces(data):
                self._finish("gather", self._comm.Isend(piece, 0))
            return []
        values = [value]
        for rank in range(1, self.count):
            received = bytearray(int(sizes[rank]))
            for piece in _pieces(received):
                self._finish("gather", self._comm.Irecv(piece, rank))
            values.append(pickle.loads(received))
        return values

    def join(self, solver: Any) -> None:
        if self._on_gpu:
            join_nccl(self, solver)
            return
        for blob in {blob.data.ctypes.data: blob for _, blob in _parameters(solver.net)}.values():
            for piece in _pieces(blob.data.reshape(-1)):
                self._finish("broadcast of weights", self._comm.Ibcast(piece))
        average = _Average(solver, self._comm, self._in_place)
        self.traffic = average.traffic
        solver.add_callback(average.begin, lambda: average.finish(self._wait))
        if solver.param.layer_wise_reduce:
            solver.net.after_backward(average.layer_done)

    def _finish(self, what: str, request: Any) -> None:
        self._wait(what, lambda: not request.Test())

    def _wait(self, what: str, unfinished: Callable[[], int]) -> None:
        """Return when `unfinished()` is 0; raise RankLostError if it does not decrease for `timeout` seconds."""
        left, waited, last = unfinished(), 0.0, time.monotonic()
        while left:
            time.sleep(POLL if waited < PATIENCE else 10 * POLL)
            now = time.monotonic()
            waited += min(now - last, 1.0)  # not the time for which this process was suspended
            before, left, last = left, unfinished(), now
            if left < before:
                waited = 0.0
            elif left and waited > self._timeout:
                raise RankLostError(
                    f"{self.names[self.rank]}: {what} made no progress for {self._timeout:g} s (--timeout): a rank is "
                    "lost or busy, or the network is broken; --resume continues from the last checkpoint"
                )


class _Average:
    """Averages a solver's gradients over all ranks during the backward pass.

    Attributes:
        traffic: time and bytes that it takes.
    """

    def __init__(self, solver: Any, comm: Any, in_place: Any):
        self._comm, self._in_place = comm, in_place
        gradients: dict[int, tuple[int, np.ndarray]] = {}
        for layer, blob in _parameters(solver.net):
            # A parameter shared by layers is averaged once, after the lowest of them.
            gradients.setdefault(blob.diff.ctypes.data, (layer, blob.diff.reshape(-1)))
        # Layer and values, in the order of the backward pass.
        self._slices = [
            (layer, values[begin : begin + SLICE])
            for layer, values in reversed(gradients.values())
            for begin in range(0, len(values), SLICE)
        ]
        self.traffic = Traffic()
        self._ready = threading.Event()
        self.begin()

    def begin(self) -> None:
        """Forget the iteration before."""
        self._left, self._started, self._active, self._start = len(self._slices), 0, [], 0.0
        self._layer, self._error = sys.maxsize, None
        self._thread = None

    def layer_done(self, layer: int) -> None:
        """Begin to average the gradients of the layers from `layer` up."""
        self._layer = layer
        self._ready.set()
        if self._thread is None:
            self._start = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="gradients", daemon=True)
            self._thread.start()

    def finish(self, wait: Callable[[str, Callable[[], int]], None]) -> None:
        """Wait until all gradients are averaged."""
        begin = time.monotonic()
        self.layer_done(0)
        wait("averaging gradients", lambda: 0 if self._error else self._left)
        self._thread.join()
        if self._error:
            raise self._error
        end = time.monotonic()
        self.traffic.iterations += 1
        self.traffic.seconds += end - self._start
        self.traffic.waited += end - begin

    def _run(self) -> None:
        """Average all slices, those of a layer once it has computed its gradients."""
        try:
            while self._left:
                self._ready.clear()
                self._advance(self._layer)
                if self._active:
                    time.sleep(POLL)
                elif self._left:
                    self._ready.wait()
        except BaseException as error:
            self._error = error

    def _advance(self, layer: int) -> None:
        active = [(request, values) for request, values in self._active if not self._done(request, values)]
        while self._started < len(self._slices) and len(active) < AT_ONCE and self._slices[self._started][0] >= layer:
            values = self._slices[self._started][1]
            active.append((self._comm.Iallreduce(self._in_place, values), values))
            self._started += 1
        self._active = active
        self._left = len(active) + len(self._slices) - self._started

    def _done(self, request: Any, values: np.ndarray) -> bool:
        done = request.Test()
        if done:
            values /= self._comm.size
            self.traffic.bytes += values.nbytes
        return done


def _parameters(net: Any) -> Iterator[tuple[int, Any]]:
    """Yield the layer's number and the blob of each parameter, from the bottom of the net up."""
    for layer, name in enumerate(net._layer_names):
        for blob in net.params.get(name, ()):
            yield layer, blob


def _pieces(data: Any) -> Iterator[memoryview]:
    """Cut a buffer or a one-dimensional array into views of at most PIECE bytes."""
    view = memoryview(data)
    length = PIECE // view.itemsize
    for begin in range(0, len(view), length):
        yield view[begin : begin + length]


def _hosts(about: list[tuple[str, int, int]]) -> tuple[list[str], str]:
    """Return the ranks' hosts and, if a rank may use fewer cores than its share of the machine, a sentence about it."""
    hosts = [host for host, _, _ in about]
    for rank, (host, usable, there) in enumerate(about):
        if usable < there // hosts.count(host):
            return hosts, f"rank {rank} on {host} may use {usable} of {there} cores"
    return hosts, ""


def _abort(ranks: MpiRanks, error: BaseException) -> NoReturn:
    """Report an error and end all ranks."""
    let_rank_0_speak()
    ours = isinstance(error, TinyImageNetError)
    if not ours and not isinstance(error, (caffe.CaffeError, MemoryError, OSError)):
        traceback.print_exception(error)
    text = " ".join(str(error).split()) or type(error).__name__
    who = ranks.names[ranks.rank]
    if ours and (ranks.rank == 0 or text.startswith(who)):
        who = ""
    cli.note(f"{os.path.basename(sys.argv[0])}: error: {who}{': ' if who else ''}{text}")
    sys.stdout.flush()
    if isinstance(error, RankLostError):
        _kill_launcher_later()
    signal.alarm(10)  # MPI_Abort may wait for a machine that was lost
    ranks._comm.Abort(getattr(error, "status", 1))
    os._exit(1)


def _kill_launcher_later() -> None:
    """Kill the launcher's process on this machine in ten seconds: mpirun waits forever for a lost machine."""
    parent = os.getppid()
    command = f"sleep 10; grep -qE '^({LAUNCHERS})$' /proc/{parent}/comm && kill -9 {parent}"
    null = subprocess.DEVNULL
    subprocess.Popen(["sh", "-c", command], start_new_session=True, stdin=null, stdout=null, stderr=null)
