"""A Dask cluster: one that runs already, one of processes of this machine, or jobs of Slurm; and whether it is fit."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import dask
import distributed

from tiny_imagenet import cli
from tiny_imagenet.data import pool
from tiny_imagenet.errors import ClusterError
from tiny_imagenet.experiment import address as cluster_address
from tiny_imagenet.experiment import worker
from tiny_imagenet.experiment.address import DASK, REACH
from tiny_imagenet.experiment.worker import Demands

LOCAL = 2  # workers to start where nobody says how many
ANSWER = 30.0  # seconds in which a worker must
LATE = 5.0  # seconds in which the first worker must be there
ALONE = 600.0  # seconds to wait for another where none is left
_SHOWN = 3  # workers named in a message


@dataclass(frozen=True)
class Resource:
    """What a training takes of a worker.

    Attributes:
        name: "training", or "GPU".
        amount: how much; a worker that has twice as much does two at a time, but GPUs are one training's.
    """

    name: str = "training"
    amount: int = 1

    def command(self, address: str) -> str:
        """What starts a worker that has it."""
        devices = ",".join(map(str, range(self.amount)))
        before = f"CUDA_VISIBLE_DEVICES={devices} " if self.name == "GPU" else ""
        return f"{before}{DASK} worker {address} --nworkers 1 --resources {self.name}={self.amount}"


class Cluster:
    """A scheduler and its workers.

    Attributes:
        client: Dask's.
        address: of the scheduler.
        shares_terminal: whether what workers print comes to where this process prints.
    """

    def __init__(self, client: distributed.Client, kind: str, refused_jobs: Sequence[str] = ()):
        """`kind` is the scheduler as people have named it; why Slurm refuses jobs comes to `refused_jobs` in time."""
        self.client = client
        self.address = client.scheduler.address
        self.shares_terminal = kind == "local"
        self._starts = kind == "slurm"  # workers come by themselves, at some time
        self._refused_jobs = refused_jobs
        self._admitted: dict[str, str] = {}
        self._refused: set[str] = set()
        self._alone: float | None = None

    @property
    def dashboard(self) -> str:
        """The address of its page, "" where it has none."""
        with contextlib.suppress(KeyError, ValueError, TypeError):
            link = self.client.dashboard_link or ""
            return link if cluster_address.has_page(link) else ""
        return ""

    def workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler says of each, by its address.

        Raises:
            ClusterError: the scheduler is gone.
        """
        try:
            if self.client.status == "running":
                # Not scheduler_info, which may be what Dask has just asked for in short.
                return self.client.sync(self.client.scheduler.identity, callback_timeout=ANSWER)["workers"]
        except (OSError, distributed.TimeoutError):
            pass
        raise ClusterError(f"the scheduler {self.address} is gone: start it again; the same command goes on")

    def admit(self, demands: Demands, resource: Resource | None, waiting: Callable[[], None] = lambda: None) -> None:
        """See that the workers there are fit for what is going to be asked of them; wait for the first.

        `waiting` is called on and on meanwhile; what it raises ends that.

        Raises:
            ClusterError: there is none, or one is not fit; the message says how to start one.
        """
        until, told = time.monotonic() + LATE, False
        while not (workers := self.workers()):
            if time.monotonic() > until and not self._starts:
                raise ClusterError(f"{self.address} has no workers: start some with: {self._command(resource)}")
            if self._refused_jobs:
                raise _no_slurm(self._refused_jobs[0])
            if self._starts and not told:
                told = True
                cli.note("waiting for the first worker")
            waiting()
            time.sleep(0.2)
        refused = self._refuse(workers, demands, resource)
        if refused:
            raise ClusterError(self._text(refused))
        self._admitted = dict.fromkeys(workers, "")

    def watch(self, demands: Demands, resource: Resource | None) -> None:
        """Look at workers that have come since: those that are not fit are sent away. Waits for none.

        Raises:
            ClusterError: there has been no worker for a long time, or the scheduler is gone.
        """
        workers = self.workers()
        new = {address: info for address, info in workers.items() if address not in self._admitted}
        new = {address: info for address, info in new.items() if address not in self._refused}
        if new:
            refused = self._refuse(new, demands, resource)
            self._admitted |= dict.fromkeys(new.keys() - refused.keys(), "")
            self._refused |= refused.keys()
            if refused:
                cli.note(f"sent away: {self._text(refused)}")
                with contextlib.suppress(Exception):  # it has gone by itself
                    self.client.retire_workers([*refused], close_workers=True)
        if any(address in self._admitted for address in workers):
            self._alone = None
            return
        if self._alone is None:
            self._alone = time.monotonic()
            cli.note(f"no worker is left: waiting for another; start one with: {self._command(resource)}")
        elif time.monotonic() - self._alone > ALONE and not self._starts:
            raise ClusterError(
                f"{self.address} has had no worker for {ALONE / 60:.0f} minutes: start some with: "
                f"{self._command(resource)}; the same command goes on"
            )

    def _command(self, resource: Resource | None) -> str:
        return resource.command(self.address) if resource else f"{DASK} worker {self.address}"

    def _refuse(
        self, workers: dict[str, dict[str, Any]], demands: Demands, resource: Resource | None
    ) -> dict[str, tuple[str, str]]:
        """Of the workers that are not fit: host, and why."""
        with ThreadPoolExecutor(min(32, len(workers))) as threads:
            asked = {address: threads.submit(self._ask, address, demands) for address in workers}
            shown = {address: future.result() for address, future in asked.items()}
        refused: dict[str, tuple[str, str]] = {}
        users: dict[tuple[str, str], str] = {}  # who has some GPUs
        for address, info in workers.items():
            host, why = shown[address].get("host") or info.get("host", ""), shown[address]["misfits"]
            if resource:
                devices = shown[address].get("devices", "")
                only = users.setdefault((host, devices), address) == address
                why += self._lacks(info.get("resources", {}), resource, devices, only)
            if why:
                refused[address] = (host, "; ".join(why))
        return refused

    def _lacks(self, offered: dict[str, float], resource: Resource, devices: str, only: bool) -> list[str]:
        """Why what a worker offers is not what a training takes; `only`: no other worker sees these GPUs."""
        there = offered.get(resource.name, 0)
        if there < resource.amount:
            offer = ", ".join(f"{name}={amount:g}" for name, amount in offered.items()) or "no resources"
            what = f"it offers {offer}, and {resource.name}={resource.amount} is needed: start it with"
        elif resource.name == "GPU" and (there >= 2 * resource.amount or not only):
            what = (
                f"its GPUs would be used by two trainings at once (it offers GPU={there:g} with "
                f"{devices or 'all that there are'}): start a worker for each training, with GPUs of its own"
            )
        else:
            return []
        return [f"{what}: {self._command(resource)}"]

    def _ask(self, address: str, demands: Demands) -> dict[str, Any]:
        """What a worker shows (`worker.show`)."""
        try:
            # The limit is that of `Client.sync`, which `run` hands it on to.
            shown = self.client.run(worker.show, demands, workers=[address], callback_timeout=ANSWER)
            return shown[address]
        except distributed.TimeoutError:
            return {"misfits": [f"it has not answered for {ANSWER:.0f} seconds: end it and start it again"]}
        except ModuleNotFoundError as error:
            return {"misfits": [f"its Python cannot import {error.name}: run tools/setup.sh --cluster there"]}
        except Exception as error:  # whatever its side has raised, another version of it perhaps
            return {"misfits": [f"it cannot be asked ({type(error).__name__}: {error})"]}

    def _text(self, refused: dict[str, tuple[str, str]]) -> str:
        texts = [f"worker {address} (host {host}): {why}" for address, (host, why) in refused.items()]
        more = len(texts) - _SHOWN
        return " | ".join(texts[:_SHOWN]) + (f" | and {more} more" if more > 0 else "")


@contextlib.contextmanager
def connect(scheduler: str, workers: int | None, resource: Resource | None) -> Iterator[Cluster]:
    """A cluster for the block.

    Args:
        scheduler: as `schedulers.scheduler`: an address, "local" or "slurm".
        workers: how many to start; None for an address, or `LOCAL`, with GPUs 1.
        resource: of each that is started.

    Raises:
        ClusterError: it cannot be reached, or not be started.
    """
    for name in [*logging.root.manager.loggerDict, "dask_jobqueue"]:  # what matters is said here, in a line
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio", "dask_jobqueue"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        count = workers or (1 if resource and resource.name == "GPU" else LOCAL)
        refused_jobs: list[str] = []
        if scheduler == "local":
            where: Any = _local(count, resource)
            stack.callback(_close, where)
        elif scheduler == "slurm":
            where = _slurm(count, resource, refused_jobs)
            stack.callback(_close, where)
        else:
            where = scheduler
            cluster_address.check(scheduler)
        try:
            client = distributed.Client(where, timeout=2 * REACH, set_as_default=False)
        except Exception as error:  # whatever comes of what the other side says
            raise cluster_address.not_dask(scheduler, f"{type(error).__name__}: {error}") from error
        stack.callback(_close, client)
        cluster = Cluster(client, scheduler, refused_jobs)
        page = cluster.dashboard
        cli.note(f"scheduler {cluster.address}" + (f", to look at: {page}" if page else ""))
        yield cluster


def _close(what: Any) -> None:
    """Close a client or a cluster."""
    with contextlib.suppress(Exception):  # a scheduler that has gone, a job that never was
        what.close(timeout=REACH)


def _local(workers: int, resource: Resource | None) -> distributed.LocalCluster:
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    resource_tracker.ensure_running()  # the first process would start it, and let Ctrl-C through again
    with pool.no_interrupt():  # it is for this process, which tells the others
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            resources={resource.name: resource.amount} if resource else None,
            silence_logs=logging.CRITICAL,
        )


def _slurm(workers: int, resource: Resource | None, refused_jobs: list[str]) -> Any:
    """A cluster of so many jobs, as the configuration of dask-jobqueue says; why Slurm refuses one comes to a list."""
    if shutil.which("sbatch") is None:
        raise ClusterError("--scheduler slurm needs Slurm's sbatch, which is not here: run it where Slurm is")
    from dask_jobqueue import SLURMCluster  # which takes a moment to load
    from dask_jobqueue.slurm import SLURMJob

    class Job(SLURMJob):
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                refused_jobs.append(str(error).rpartition("stderr:")[2])
                raise

    more = list(dask.config.get("jobqueue.slurm.worker-extra-args", None) or [])
    if resource:
        more += ["--resources", f"{resource.name}={resource.amount}"]
    try:
        with pool.no_interrupt():
            cluster = SLURMCluster(worker_extra_args=more, job_cls=Job)
            cluster.scale(jobs=workers)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise _no_slurm(str(error)) from error
    return cluster


def _no_slurm(why: str) -> ClusterError:
    return ClusterError(
        f"cannot start workers with Slurm ({' '.join(why.split())}): say cores, memory, queue and the like under "
        "jobqueue: slurm: in ~/.config/dask/jobqueue.yaml"
    )
