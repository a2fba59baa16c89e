"""Ranks on the GPUs of one machine, one process each: NCCL averages their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import caffe

from tiny_imagenet.training.rank_links import LinkedRanks
from tiny_imagenet.training.ranks import Ranks


class GpuRanks(LinkedRanks):
    """Ranks whose solvers compute on a GPU each.

    With the solver's `layer_wise_reduce` (the default) a layer's gradients travel while those of the layers before it
    are computed, else all of them at the end of the backward pass.
    """

    def join(self, solver: Any) -> None:
        join_nccl(self, solver)


def join_nccl(ranks: Ranks, solver: Any) -> None:
    """What `Ranks.join` does, through NCCL; whose unique id goes the ranks' own way.

    Raises:
        RankLostError: another rank has gone.
        caffe.CaffeError: they cannot come together.
    """
    uid = ranks.broadcast(None if ranks.rank else caffe.NCCL.new_uid())
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)


def connect(rank: int, names: list[str], links: Sequence[Connection]) -> GpuRanks:
    """The rank that a process is; see `supervisor.Work`."""
    return GpuRanks(rank, names, links)
