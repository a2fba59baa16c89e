"""Ranks on one or many machines: MPI passes on what rank 0 says, and averages gradients; on GPUs NCCL does that."""

from __future__ import annotations

import itertools
import os
import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tiny_imagenet.errors import GpuError
from tiny_imagenet.training import buckets, gpu_ranks
from tiny_imagenet.training.mpi_operation import Operation, Steps, pieces
from tiny_imagenet.training.mpi_thread import MpiThread
from tiny_imagenet.training.ranks import Ranks, Traffic

_HEAD = 512  # bytes of a value that travel at once; what is longer follows


class MpiRanks(Ranks):
    """Ranks that a launcher has started.

    Args:
        thread: started.
        local_rank: which of the ranks on this machine this is.
    """

    def __init__(self, thread: MpiThread, local_rank: int):
        super().__init__(thread.rank, thread.names)
        self._thread, self._local_rank = thread, local_rank
        self._on_gpu = False

    def device(self, gpus: Sequence[int]) -> int | None:
        """Of this machine's GPUs the one of this rank: its place among the ranks here is that in `gpus`.

        Where each rank sees one GPU alone (as srun --gpus-per-task=1 has it), it takes that.

        Raises:
            GpuError: there are more ranks here than GPUs.
        """
        self._on_gpu = bool(gpus)
        if not gpus:
            return None
        if len(gpus) == 1 and len(os.environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1:
            return gpus[0]
        if self._local_rank >= len(gpus):
            raise GpuError(
                f"{self.names[self.rank]} is number {self._local_rank} of those on its machine, and --gpu names "
                f"{len(gpus)} there: start as many ranks on each machine as it has GPUs"
            )
        return gpus[self._local_rank]

    def broadcast(self, value: Any = None) -> Any:
        data = pickle.dumps(value) if self.rank == 0 else b""
        return pickle.loads(self._thread.begin(self._broadcast(data)).wait())

    def gather(self, value: Any) -> list[Any]:
        gathered = self._thread.begin(self._gather(pickle.dumps(value))).wait()
        return [pickle.loads(data) for data in gathered]

    def join(self, solver: Any) -> None:
        if self._on_gpu:
            gpu_ranks.join_nccl(self, solver)
            return
        averages = _Averages(solver, self._thread)
        self.traffic = averages.traffic
        averages.share_weights()
        solver.add_callback(averages.begin, averages.finish)
        if solver.param.layer_wise_reduce:
            solver.net.after_backward(averages.layer_done)

    def _broadcast(self, data: bytes) -> Steps:
        comm = self._thread.comm
        head = bytearray(_head(data))
        yield [comm.Ibcast(head)]
        size, first = _of_head(head)
        if size <= len(first):
            return first
        rest = bytearray(data[len(first) :].ljust(size - len(first)))
        for piece in pieces(rest):
            yield [comm.Ibcast(piece)]
        return first + rest

    def _gather(self, data: bytes) -> Steps:
        comm = self._thread.comm
        heads = bytearray(_HEAD * self.count if self.rank == 0 else 0)
        first = _head(data)
        yield [comm.Igather(first, heads if self.rank == 0 else None)]
        if self.rank:
            for piece in pieces(memoryview(data)[len(_of_head(first)[1]) :]):
                yield [comm.Isend(piece, 0)]
            return []
        gathered, rests = [data], []
        for rank in range(1, self.count):
            size, given = _of_head(heads[rank * _HEAD : (rank + 1) * _HEAD])
            gathered.append(bytearray(given.ljust(size)))
            rests.append(pieces(memoryview(gathered[-1])[len(given) :]))
        for step in itertools.zip_longest(*rests):
            yield [comm.Irecv(piece, rank) for rank, piece in enumerate(step, 1) if piece is not None]
        return gathered


def _head(data: bytes) -> bytes:
    """The size of `data` and as much of it as there is room for."""
    return (len(data).to_bytes(8, "little") + data[: _HEAD - 8]).ljust(_HEAD)


def _of_head(head: bytes) -> tuple[int, bytes]:
    size = int.from_bytes(head[:8], "little")
    return size, bytes(head[8 : 8 + size])


class _Averages:
    """The gradients of a solver on the CPU, averaged over all ranks while the backward pass goes on.

    Attributes:
        traffic: what that takes.
    """

    def __init__(self, solver: Any, thread: MpiThread):
        self._thread = thread
        self._blobs, parameters = [], []
        seen: set[int] = set()
        for number, name in enumerate(solver.net._layer_names):
            for blob in solver.net.params.get(name, ()):
                place = blob.diff.ctypes.data
                if place not in seen:  # one that layers share is averaged once
                    seen.add(place)
                    self._blobs.append(blob)
                    parameters.append((number, blob.count))
        self._gradients = [blob.diff.reshape(-1) for blob in self._blobs]
        self._buckets = buckets.layout(parameters)
        self._given = [np.empty(bucket.size, np.float32) for bucket in self._buckets]
        self._sums = [np.empty(bucket.size, np.float32) for bucket in self._buckets]
        self._under_way: list[Operation] = []
        self.traffic = Traffic()

    def share_weights(self) -> None:
        """Give all ranks rank 0's."""
        self._thread.begin(self._share()).wait()

    def _share(self) -> Steps:
        for blob in self._blobs:
            for piece in pieces(blob.data.reshape(-1)):
                yield [self._thread.comm.Ibcast(piece)]

    def begin(self) -> None:
        """Before an iteration."""
        self._under_way = []

    def layer_done(self, layer: int) -> None:
        """After the backward pass of a layer: what is whole by now travels."""
        while len(self._under_way) < len(self._buckets) and layer <= self._buckets[len(self._under_way)].layer:
            number = len(self._under_way)
            self._under_way.append(self._thread.begin(self._average(number)))

    def finish(self) -> None:
        """Before an update: all has come.

        Raises:
            RankLostError: another rank has gone.
        """
        self.layer_done(0)
        begin = time.monotonic()
        for operation in self._under_way:
            operation.wait()
        self.traffic.add(self._under_way[0].begun, begin, self._under_way[-1].ended)

    def _average(self, number: int) -> Steps:
        bucket, given, sums = self._buckets[number], self._given[number], self._sums[number]
        at = 0
        for part in bucket.parts:
            size = part.end - part.begin
            given[at : at + size] = self._gradients[part.parameter][part.begin : part.end]
            at += size
        yield [self._thread.comm.Iallreduce(given, sums)]
        self.traffic.bytes += given.nbytes
        at = 0
        for part in bucket.parts:
            size = part.end - part.begin
            mean = self._gradients[part.parameter][part.begin : part.end]
            np.divide(sums[at : at + size], np.float32(self._thread.size), out=mean)
            at += size
