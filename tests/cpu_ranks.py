"""Ranks on the CPU, for tests: gradients are averaged through the pipes, with everything else as on several GPUs."""

import os
import signal
import sys
import weakref

import numpy as np
import pytest

from tiny_imagenet.stop import StopRequest
from tiny_imagenet.training import solving, supervisor
from tiny_imagenet.training.rank_links import LinkedRanks
from tiny_imagenet.training.train import settled

TOGETHER = 10  # seconds that a rank waits for the others to give their solvers back, too


class CpuRanks(LinkedRanks):
    """Averages in float64 and in the order of the ranks, so that the same ranks give the same bytes.

    As with NCCL, what joins the solvers goes in all ranks at the same time: one that gives its solver back by itself
    waits, and ends with status 4.
    """

    def join(self, solver):
        blobs = [blob for layer in solver.net.params.values() for blob in layer]
        for blob, values in zip(blobs, self.broadcast(None if self.rank else [blob.data for blob in blobs])):
            blob.data[...] = values

        def average():
            of_all = self.gather([blob.diff for blob in blobs])
            mean = [np.mean(values, axis=0, dtype=np.float64).astype(np.float32) for values in zip(*of_all)]
            for blob, values in zip(blobs, self.broadcast(mean)):
                blob.diff[...] = values

        joined = lambda *_: None  # noqa: E731 (one object, which both keep)
        solver.add_callback(joined, average)
        solver.net.after_backward(joined)
        weakref.finalize(joined, self._part)

    def _part(self):
        for link in self._links:
            link.send("parts")
        for link in self._links:
            if not link.poll(TOGETHER) or link.recv() != "parts":
                os._exit(4)


class Failing(CpuRanks):
    """They do what TEST_FAILS says ("RANK PLACE HOW, ..."): before they build, in an iteration, to the weights."""

    def __init__(self, *given):
        super().__init__(*given)
        wanted = (one.split() for one in os.environ["TEST_FAILS"].split(","))
        self._places = {place: how for rank, place, how in wanted if int(rank) == self.rank}
        step = solving.Iterations.step

        def failing(iterations):
            if iterations._solver.iter == 12:
                self._fail("step")
            return step(iterations)

        solving.Iterations.step = failing

    def prepare(self):
        self._fail("build")
        super().prepare()

    def join(self, solver):
        super().join(solver)
        if "weights" in self._places:
            next(iter(solver.net.params.values()))[0].data[...] *= 1.001

    def _fail(self, place):
        how = self._places.get(place)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exits":
            os._exit(3)
        if how == "hangs":
            signal.pause()
        if how == "raises":
            raise MemoryError("no memory is left here")


def connect(rank, names, links):
    return (Failing if "TEST_FAILS" in os.environ else CpuRanks)(rank, names, links)


def train(count, source, options, stop=None):
    """`tiny_imagenet.training.train.train` in `count` processes."""
    names = [f"CPU {rank}" for rank in range(count)]
    with pytest.MonkeyPatch.context() as patch, stop or StopRequest() as stop:
        patch.setenv("OMP_NUM_THREADS", "1")
        return supervisor.train("cpu_ranks:connect", names, source, settled(options), sys.argv, stop)
