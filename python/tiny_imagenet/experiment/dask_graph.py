"""Takes the steps of an experiment on the workers of a cluster, as `graph.run` does here."""

from __future__ import annotations

import pickle
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import distributed

from tiny_imagenet import cli
from tiny_imagenet.errors import ClusterError, StepLostError, Stopped
from tiny_imagenet.experiment import connection, graph, worker
from tiny_imagenet.experiment.claims import Experiment
from tiny_imagenet.experiment.connection import Cluster, Resource
from tiny_imagenet.experiment.graph import Step
from tiny_imagenet.experiment.worker import Demands, Work
from tiny_imagenet.outcomes import Outcome
from tiny_imagenet.runs import Run
from tiny_imagenet.stop import StopRequest

RETRIES = 3  # times that a step is begun again whose process or worker was lost
AGAIN = 20  # times that it is handed over again because workers were lost that may not have begun it
LOOK = 1.0  # seconds from one look at workers and claims to the next
TELL = 30.0  # seconds from one line of how far the trainings are to the next


class Elsewhere:
    """A cluster to take steps on.

    Args:
        scheduler, workers: as of `connection.connect`.
        out: the folder of the experiment, which all workers must share.
        inputs: the files that steps read; each worker must see them as they are here.
        gpus: how many each training takes; 0: it computes on the CPU.
        quiet: say nothing on the way.
    """

    def __init__(
        self, scheduler: str, workers: int | None, out: Path, inputs: Iterable[Path], gpus: int = 0, quiet: bool = False
    ):
        self._scheduler, self._workers = scheduler, workers
        self._out, self._inputs = out, list(inputs)
        self._resource = Resource("GPU", gpus) if gpus else Resource()
        self._quiet = quiet

    def run(self, steps: list[Step], stop: StopRequest) -> Iterator[tuple[Step, Any]]:
        """Yield each step as it ends, with its result or the TinyImageNetError that it ended with.

        A step that needs one that failed is left out.

        Raises:
            ClusterError: the cluster cannot be reached or is not fit, or all of it is lost.
            Stopped: `stop` has a signal; each training has a checkpoint.
        """
        quick = [step for step in steps if step.quick]
        yield from graph.run(quick, stop)
        done = {step.name for step in quick}
        steps = [step for step in steps if step.name not in done]
        if not steps:
            return
        connected = connection.connect(self._scheduler, self._workers, self._resource)
        with Experiment(self._out) as experiment, connected as there:
            demands = self._demands(experiment)
            there.admit(demands, self._resource, lambda: _check(stop))
            yield from _Session(there, experiment, demands, self._resource, steps, stop, self._quiet).results()

    def _demands(self, experiment: Experiment) -> Demands:
        contents = {str(path): worker.sha256(path) or "" for path in self._inputs}
        return Demands(worker.versions(), tuple(contents.items()), experiment.folder, experiment.token)


def _check(stop: StopRequest) -> None:
    if stop.signal:
        raise Stopped(f"stopped by {stop.signal}: the same command goes on", signal.Signals[stop.signal])


class _Session:
    """Steps under way on a cluster."""

    def __init__(
        self,
        there: Cluster,
        experiment: Experiment,
        demands: Demands,
        resource: Resource,
        steps: list[Step],
        stop: StopRequest,
        quiet: bool,
    ):
        self._cluster, self._experiment = there, experiment
        self._demands, self._resource = demands, resource
        self._steps, self._stop, self._quiet = steps, stop, quiet
        self._told: set[str] = set()  # the tokens of claims that a line has told of, and their steps
        self._again: Counter[str] = Counter()  # how often each step was handed over again
        self._last = time.monotonic()

    def results(self) -> Iterator[tuple[Step, Any]]:
        # What is done is dropped from it: Dask would do it again if a worker was lost that still has it.
        waiting = self._submit()
        try:
            while waiting:
                done = self._wait(waiting)
                self._cluster.watch(self._demands, self._resource)
                self._tell()
                if self._stop.signal:
                    self._end()
                for step in self._steps:
                    if waiting.get(step.name) not in done or self._hand_over_again(step, waiting):
                        continue
                    result = self._result(waiting.pop(step.name))
                    if isinstance(result, Exception):
                        left_out = [waiting.pop(name) for name in self._upon(step) if name in waiting]
                        self._cluster.client.cancel(left_out, force=True)
                    yield step, result
        finally:
            self._cluster.client.cancel([*waiting.values()], force=True)

    def _submit(self) -> dict[str, distributed.Future]:
        """Hand the graph over; by the name of each step what stands for its outcome."""
        futures: dict[str, distributed.Future] = {}
        for step in self._steps:
            work = Work(
                step.name,
                pickle.dumps(step),
                step.run,
                self._demands,
                self._resource.name,
                self._resource.amount,
                silent=self._cluster.shares_terminal,
            )
            futures[step.name] = self._cluster.client.submit(
                worker.perform,
                work,
                *(futures[name] for name in step.needs if name in futures),
                key=f"{re.sub('[^a-z0-9]+', '-', step.name)}-{self._experiment.token}",
                resources={self._resource.name: self._resource.amount},
                retries=RETRIES,
                pure=False,
            )
        return futures

    def _wait(self, waiting: dict[str, distributed.Future]) -> set[distributed.Future]:
        """Wait a little for one to end; those that have."""
        until = time.monotonic() + LOOK
        while not (done := {future for future in waiting.values() if future.done()}) and time.monotonic() < until:
            time.sleep(LOOK / 10)
        return done

    def _hand_over_again(self, step: Step, waiting: dict[str, distributed.Future]) -> bool:
        """Whether a step that has ended is to be begun again, because Dask has given it up too early.

        It does when so many workers were lost to which it had been assigned, had they begun it or not.
        """
        future = waiting[step.name]
        if future.status != "error" or not isinstance(future.exception(), distributed.KilledWorker):
            return False
        begun = [claim["begun"] for claim in self._experiment.claims().values() if claim["step"] == step.name]
        if max(begun, default=0) > RETRIES or self._again[step.name] == AGAIN:
            return False
        self._again[step.name] += 1
        self._cluster.client.retry([future, *(waiting[name] for name in self._upon(step) if name in waiting)])
        return True

    def _upon(self, step: Step) -> list[str]:
        """The names of the steps that need a step, or one that needs it."""
        found = [step.name]
        for other in self._steps:  # what a step needs stands before it
            if set(found).intersection(other.needs):
                found.append(other.name)
        return found[1:]

    def _result(self, future: distributed.Future) -> Any:
        """The result of a step that has ended, or its error."""
        try:
            outcome: Outcome = future.result()
        except StepLostError as error:
            return StepLostError(f"{error}, for the {RETRIES + 1}th time: the logs of its workers may say more")
        except distributed.KilledWorker as error:
            last = error.last_worker.address
            return StepLostError(f"worker after worker was lost with it, the last one {last}: see its log")
        except distributed.CancelledError as error:  # as all are when the scheduler is gone
            raise ClusterError(f"the scheduler {self._cluster.address} is gone: the same command goes on") from error
        if outcome.error == "Stopped" and not self._stop.signal:
            return StepLostError(f"ended early on its worker: {outcome.text}")
        return outcome.value()

    def _end(self) -> None:
        """Let what is under way end with a checkpoint, and the rest not begin."""
        number = signal.Signals[self._stop.signal]
        self._experiment.stop(self._stop.signal)
        while self._at_work():
            time.sleep(LOOK / 4)
        raise Stopped(
            f"stopped by {self._stop.signal}, each training with a checkpoint: the same command goes on", number
        )

    def _at_work(self) -> bool:
        """Whether there is a claim of a worker that is there."""
        workers = self._cluster.workers()
        return any(claim["worker"] in workers for claim in self._experiment.claims().values())

    def _tell(self) -> None:
        """Say what has begun, and from time to time how far it is."""
        if self._quiet:
            return
        claims = self._experiment.claims()
        for claim in claims.values():
            if claim["token"] not in self._told:
                again = "again " if claim["begun"] > 1 or claim["step"] in self._told else ""
                self._told |= {claim["token"], claim["step"]}
                cli.note(f"==> {claim['step']}: {again}on {claim['host']} ({claim['worker']})")
        if time.monotonic() - self._last < TELL:
            return
        self._last = time.monotonic()
        for name, claim in sorted(claims.items()):
            model, _, seed = name.rpartition("-")
            records = Run(self._experiment.folder.parent / model / seed).metrics()
            if records:
                best = [record["top1"] for record in records if "top1" in record]
                top1 = f", top-1 {100 * max(best):.2f} %" if best else ""
                cli.note(f"{claim['step']}: iteration {records[-1]['iteration']}{top1}")
