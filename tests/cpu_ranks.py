"""Spawned ranks on the CPU, for tests: gradients are averaged through the pipes, everything else is as on GPUs."""

import functools
import os
import signal
import sys
import weakref

import numpy as np
import pytest

from tiny_imagenet.training import solving, spawn, train

TOGETHER = 10  # seconds for the other ranks to release their solvers too


def join(ranks, solver):
    """`Ranks.join`, averaging in float64 and in the order of the ranks, so that the same ranks give the same bytes.

    As with NCCL, all ranks must release their solvers together: one that does so alone exits with status 4.
    """
    blobs = [blob for layer in solver.net.params.values() for blob in layer]
    for blob, values in zip(blobs, ranks.broadcast([blob.data for blob in blobs])):
        blob.data[...] = values

    def average():
        gathered = ranks.gather([blob.diff for blob in blobs])
        means = [np.mean(values, axis=0, dtype=np.float64).astype(np.float32) for values in zip(*gathered)]
        for blob, values in zip(blobs, ranks.broadcast(means)):
            blob.diff[...] = values

    joined = lambda *_: None  # noqa: E731 (one object that the solver keeps)
    solver.add_callback(joined, average)
    solver.net.after_backward(joined)
    weakref.finalize(joined, _leave, ranks._links)


def _leave(links):
    for link in links:
        link.send("leaves")
    for link in links:
        if not link.poll(TOGETHER) or link.recv() != "leaves":
            os._exit(4)


def train_rank(ranks, *arguments):
    """`train.train_rank` on the CPU, with the failures named by TEST_FAILS ("RANK PLACE HOW, ...")."""
    wanted = [one.split() for one in os.environ.get("TEST_FAILS", "").split(",") if one]
    failures = {place: how for rank, place, how in wanted if int(rank) == ranks.rank}
    step = solving.Iterations.step

    def failing_step(iterations, rate):
        if iterations._solver.iter == 12:
            _fail(failures.get("step"))
        return step(iterations, rate)

    def failing_join(solver):
        _fail(failures.get("join"))
        join(ranks, solver)
        if "weights" in failures:
            next(iter(solver.net.params.values()))[0].data[...] *= 1.001

    if failures:
        solving.Iterations.step = failing_step
    ranks.join = failing_join if failures else functools.partial(join, ranks)
    return train.train_rank(ranks, *arguments)


def _fail(how):
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exits":
        os._exit(3)
    if how == "hangs":
        while True:
            signal.pause()
    if how == "raises":
        raise MemoryError("no memory here")


def train_on(count, source, options):
    """Train in `count` processes."""
    names = [f"CPU {rank}" for rank in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return spawn.run(names, train_rank, source, train.resolve_options(options), sys.argv)
