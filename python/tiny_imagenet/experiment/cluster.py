"""Connection to a Dask cluster: a running one, one of this machine, or jobs of Slurm."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import distributed

from tiny_imagenet import cli, files
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import worker

TIMEOUT = 10.0  # seconds for a scheduler to respond
WORKERS = 2  # started if --workers is not given
DASK = files.shown(Path(sys.prefix) / "bin" / "dask")


@contextlib.contextmanager
def connect(
    scheduler: str, workers: int | None = None, resources: dict[str, int] | None = None
) -> Iterator[distributed.Client]:
    """Connect to a cluster, started if need be, for the block.

    Args:
        scheduler: an address, "local" or "slurm" (`schedulers.scheduler`).
        workers: number of workers to start; None for an address, or for `WORKERS` (one if they take GPUs).
        resources: resources of each worker that is started.

    Raises:
        ClusterError: the cluster cannot be reached or started.
    """
    for name in [*logging.root.manager.loggerDict, "dask_jobqueue"]:
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio", "dask_jobqueue"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # errors are raised here, as one line
    count = workers or (1 if resources and "GPU" in resources else WORKERS)
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        where: Any = scheduler
        if scheduler == "local":
            where = distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=max(1, len(os.sched_getaffinity(0)) // count),
                processes=False,  # each step starts a process
                host="127.0.0.1",
                protocol="tcp",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                resources=resources,
                silence_logs=False,
            )
        elif scheduler == "slurm":
            where = _start_slurm(count, resources)
        else:
            _check_address(scheduler)
        if scheduler in ("local", "slurm"):
            stack.callback(_close, where)
        try:
            client = distributed.Client(where, timeout=TIMEOUT, set_as_default=False)
        except Exception as error:  # the other side may be of any version
            raise _not_dask(scheduler) from error
        stack.callback(_close, client)
        page = _dashboard(client)
        cli.note(f"scheduler {client.scheduler.address}" + (f", dashboard {page}" if page else ""))
        yield client


def _dashboard(client: distributed.Client) -> str:
    """Address of the dashboard, "" if there is none: Dask names one even for --no-dashboard."""
    parts = urlsplit(client.dashboard_link)
    if parts.scheme == "http":  # otherwise it is configured, through a proxy
        with contextlib.closing(http.client.HTTPConnection(parts.netloc, timeout=2)) as connection:
            try:
                connection.request("GET", parts.path)
                if connection.getresponse().status == http.client.NOT_FOUND:
                    return ""
            except TimeoutError:  # it is there, but busy
                pass
            except (OSError, http.client.HTTPException):
                return ""
    return client.dashboard_link


def _close(what: Any) -> None:
    with contextlib.suppress(Exception):  # a scheduler that was lost
        what.close(timeout=TIMEOUT)


def check_workers(client: distributed.Client, expected: dict[str, str], resources: dict[str, int]) -> None:
    """Check the code, the files and the resources of the workers that have joined so far.

    Args:
        client: of the cluster.
        expected: `worker.fingerprint` of this machine.
        resources: resources of a step; at least one worker must offer them.

    Raises:
        ClusterError: a worker cannot be used; the message names it and the difference.
    """
    try:
        reports = client.run(worker.report, expected)
    except Exception as error:  # the worker may be of any version
        text = f"a worker cannot run this code ({type(error).__name__}: {error}): run tools/setup.sh --cluster there"
        raise ClusterError(text) from error
    for address, found in reports.items():
        if found["differences"]:
            raise ClusterError(f"worker {address} (host {found['host']}): {found['differences']}")
    offers = [all(found["resources"].get(n, 0) >= k for n, k in resources.items()) for found in reports.values()]
    if reports and not any(offers):
        command = start_command(client, resources)
        raise ClusterError(f"no worker offers {_listed(resources)}: start one with: {command}")
    if not reports:
        cli.note(f"no workers yet: start some with: {start_command(client, resources)}")


def start_command(client: distributed.Client, resources: dict[str, int]) -> str:
    """The command that starts a worker with some resources."""
    devices = ",".join(map(str, range(resources.get("GPU", 0))))
    command = f"{DASK} worker {client.scheduler.address}"
    if resources:
        command += f" --resources {_listed(resources)}"
    return f"CUDA_VISIBLE_DEVICES={devices} {command}" if devices else command


def _listed(resources: dict[str, int]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in resources.items())


@contextlib.contextmanager
def executor(scheduler: str, workers: int | None, root: str | os.PathLike[str]) -> Iterator[Executor]:
    """Yield an executor whose functions run on the workers of a cluster, which read a data set.

    Args:
        scheduler: as for `connect`.
        workers: as for `connect`.
        root: the data set; workers must see it under the same path.

    Raises:
        ClusterError: the cluster cannot be used, or was lost.
    """
    with connect(scheduler, workers) as client:
        check_workers(client, worker.fingerprint([Path(root) / "wnids.txt"]), {})
        yield _Executor(client)


class _Executor(Executor):
    """Executor of a client whose results raise if the scheduler is lost; `Client.get_executor`'s wait forever."""

    def __init__(self, client: distributed.Client):
        self._client = client

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> _Result:
        return _Result(self._client, self._client.submit(function, *arguments, pure=False))


@dataclass
class _Result:
    client: distributed.Client
    future: distributed.Future

    def result(self) -> Any:
        while self.client.status == "running":
            try:
                return self.future.result(timeout=1)
            except distributed.TimeoutError:
                pass
            except distributed.CancelledError:
                break
            except distributed.KilledWorker as error:
                raise ClusterError(killed(error)) from error
        raise lost(self.client)

    def cancel(self) -> None:
        if self.client.status == "running":
            self.future.cancel()


def killed(error: distributed.KilledWorker) -> str:
    """Describe a task that several workers were lost with."""
    return f"several workers were lost, the last one {error.last_worker.address}: see its log"


def lost(client: distributed.Client) -> ClusterError:
    """The error of a scheduler that was lost."""
    return ClusterError(f"the scheduler {client.scheduler.address} was lost: start it and run the same command again")


def _check_address(address: str) -> None:
    """Check that Dask listens at an address: the client would wait for any other server forever."""
    protocol, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    size = b""
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT / 2) as connection:
            if protocol == "tls":
                return
            size = connection.recv(8, socket.MSG_WAITALL)  # of Dask's greeting
    except TimeoutError:
        pass
    except OSError as error:
        raise ClusterError(
            f"cannot reach a scheduler at {address} ({error.strerror or error}): start one there with: "
            f"{DASK} scheduler --port {port}"
        ) from error
    if not 0 < int.from_bytes(size, "little") < 1 << 20:
        raise _not_dask(address)


def _not_dask(address: str) -> ClusterError:
    return ClusterError(
        f"{address} does not respond as a Dask scheduler compatible with distributed {distributed.__version__}: start "
        f"one with: {DASK} scheduler"
    )


def _start_slurm(workers: int, resources: dict[str, int] | None) -> Any:
    """Submit Slurm jobs as configured for dask-jobqueue, each with a worker."""
    if shutil.which("sbatch") is None:
        raise ClusterError("--scheduler slurm needs Slurm's sbatch, which is missing: run this on a machine of Slurm")
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.slurm import SLURMJob

    refused: list[str] = []

    class Job(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                refused.append(str(error).rpartition("stderr:")[2])
                raise

    more = list(dask.config.get("jobqueue.slurm.worker-extra-args", None) or [])
    more += ["--resources", _listed(resources)] if resources else []
    cluster = None
    try:
        cluster = SLURMCluster(worker_extra_args=more, job_cls=Job)
        cluster.scale(jobs=workers)

        async def submitted() -> None:
            await cluster

        cluster.sync(submitted)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        refused.append(str(error))
    if refused:
        if cluster:
            _close(cluster)
            cluster.shutdown_on_close = False  # or Dask would try again when Python exits
        raise ClusterError(
            f"cannot start workers with Slurm ({' '.join(refused[0].split())}): set cores, memory, queue and so on "
            "under jobqueue: slurm: in ~/.config/dask/jobqueue.yaml"
        )
    return cluster
