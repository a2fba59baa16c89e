"""Runs the steps of an experiment on the workers of a Dask cluster."""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import distributed

from tiny_imagenet import cli
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import Stopped
from tiny_imagenet.experiment import cluster, worker
from tiny_imagenet.experiment.reproduce import EXPERIMENT, Step
from tiny_imagenet.stop import StopRequest

RETRIES = 3  # of a step whose process was lost
PROGRESS_EVERY = 30.0  # seconds between progress lines


def run(
    steps: list[Step], scheduler: str, workers: int | None = None, gpus: int = 0, quiet: bool = False
) -> Iterator[tuple[Step, str]]:
    """Run steps on a cluster; yield each with the error that it ended with, "" for none.

    Dask runs the steps of a lost worker again on another one, which resumes them from their last checkpoint.

    Args:
        steps: all of one experiment, whose folder and data the workers share with this machine.
        scheduler: as for `cluster.connect`.
        workers: as for `cluster.connect`.
        gpus: number of GPUs per step; 0 for the CPU.
        quiet: print no progress.

    Raises:
        ClusterError: the cluster cannot be used, or was lost.
        Stopped: a signal ended it; each training has a checkpoint.
    """
    if not steps:
        return
    resources = {"GPU": gpus} if gpus else {"training": 1}
    expected = worker.fingerprint(_inputs(steps))
    with StopRequest() as stop, cluster.connect(scheduler, workers, resources) as client:
        cluster.check_workers(client, expected, resources)
        started: set[str] = set()

        def note(event: tuple[float, tuple[str, str]]) -> None:
            name, text = event[1]
            started.add(name)
            if not quiet:
                cli.note(text)

        client.subscribe_topic(worker.TOPIC, note)
        [resource] = resources.items()
        waiting = {
            client.submit(
                worker.run_step,
                step.name,
                pickle.dumps(step),
                expected,
                resource,
                resources=resources,
                retries=RETRIES,
                pure=False,
            ): step
            for step in steps
        }
        printed, has_workers = time.monotonic(), True
        while waiting:
            for future in [future for future in waiting if future.done()]:
                step = waiting.pop(future)
                started.discard(step.name)
                yield step, _error(client, future)
            if stop.signal:
                client.cancel([*waiting])
                client.run(worker.children_ended)
                number = signal.Signals[stop.signal]
                raise Stopped(f"stopped by {stop.signal}: the same command resumes every training", number)
            if time.monotonic() > printed + PROGRESS_EVERY and not quiet:
                printed = time.monotonic()
                before, has_workers = has_workers, bool(client.nthreads())
                if before and not has_workers:
                    cli.note(f"no worker is left: start one with: {cluster.start_command(client, resources)}")
                for step in waiting.values():
                    _print_progress(step, started)
            time.sleep(0.2)


def _inputs(steps: list[Step]) -> list[Path]:
    """Files that every worker must see as they are here; the manifest contains the digests of the records."""
    options = steps[0].options
    nets = [path for step in steps for path in sorted((options.prototxt / step.model).rglob("*.prototxt"))]
    experiment = options.run.parent.parent / EXPERIMENT
    return [options.data / lmdb_reader.MANIFEST, experiment, *dict.fromkeys(nets)]


def _print_progress(step: Step, started: set[str]) -> None:
    """Print the iteration and the best top-1 of a step that has started."""
    records = step.run.metrics() if step.name in started else []
    if records:
        best = max((record["top1"] for record in records if "top1" in record), default=None)
        top1 = "" if best is None else f", top-1 {100 * best:.2f} %"
        cli.note(f"{step.name}: iteration {records[-1]['iteration']}{top1}")


def _error(client: distributed.Client, future: distributed.Future) -> str:
    try:
        return future.result()
    except distributed.CancelledError as error:
        raise cluster.lost(client) from error
    except distributed.KilledWorker as error:
        return cluster.killed(error)
    except Exception as error:  # of Dask, or of a worker of another version
        return str(error)
