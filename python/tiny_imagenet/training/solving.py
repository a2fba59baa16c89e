"""A rank's solver: built for its share of a batch, stepped, and compared with the others'."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from tiny_imagenet.models import nets, solvers
from tiny_imagenet.runs import Run
from tiny_imagenet.training.ranks import Ranks


def message(run: Run, count: int) -> caffe_pb2.SolverParameter:
    """A run folder's solver with its net in itself, as each of `count` ranks needs it for its share of a batch.

    Raises:
        NetError: a file does not parse.
    """
    solver, net = solvers.read(run.solver), nets.read(run.train_val)
    for layer in net.layer:
        if layer.type == "Data" and not any(rule.phase == caffe.TEST for rule in layer.include):
            layer.data_param.batch_size //= count  # upstream's layer takes that to be a rank's; CropData shares it out
    # Layer by layer, a gradient that has not all its parts yet would travel.
    if solver.iter_size > 1 or _shares(net):
        solver.layer_wise_reduce = False
    solver.ClearField("net")
    solver.net_param.CopyFrom(net)
    return solver


def build(solver: caffe_pb2.SolverParameter, ranks: Ranks) -> Any:
    """The solver of a message, as Caffe's mode and this rank's share want it.

    Raises:
        caffe.CaffeError: it does not build.
    """
    ranks.prepare()
    return caffe.get_solver(solver)


def relocate(solver: caffe_pb2.SolverParameter, data: Path) -> None:
    """Let the data layers of a message read the folder `data` in place of another machine's."""
    for layer in solver.net_param.layer:
        if layer.type in nets.LMDB_TYPES:
            param = nets.data_param(layer)
            param.source = str(data.resolve() / Path(param.source).name)
            layer.transform_param.mean_file = str(data.resolve() / Path(layer.transform_param.mean_file).name)


def _shares(net: caffe_pb2.NetParameter) -> bool:
    """Whether two layers have a parameter in common, which they name."""
    names = [param.name for layer in net.layer for param in layer.param if param.name]
    return len(names) > len(set(names))


class Iterations:
    """The iterations of one rank.

    What one computes is a function of the run's seed and the iteration alone, given the weights and the solver's
    history before it: CropData's records, crops and mirrors by themselves, dropout because Caffe's generator is seeded
    anew.

    Args:
        solver: caffe's.
        seed: of the dropout masks; each rank has others.
        ranks: those that train together.
    """

    def __init__(self, solver: Any, seed: int, ranks: Ranks):
        self._solver, self._seed, self._ranks = solver, seed, ranks
        self._parts: list[float] = []  # of an iteration's passes, where iter_size makes them several
        if solver.param.to_proto().iter_size > 1:
            net, last = solver.net, len(solver.net.layers) - 1
            net.after_forward(lambda layer: self._parts.append(_loss(net)) if layer == last else None)

    def step(self) -> float:
        """One iteration; the loss of the whole batch in rank 0, that of their share in the others.

        Raises:
            caffe.CaffeError: it fails.
            RankLostError: another rank has gone.
        """
        caffe.set_random_seed(_seed_of(self._seed, self._solver.iter, self._ranks.rank))
        self._parts.clear()
        self._solver.step(1)
        loss = sum(self._parts) / len(self._parts) if self._parts else _loss(self._solver.net)
        losses = self._ranks.gather(loss)
        return sum(losses) / len(losses) if losses else loss


def digest(net: Any) -> int:
    """A number that tells a net's parameters from others, without those of BatchNorm: each rank has its own."""
    result = 0
    for name, blobs in net.params.items():
        if net.layer_dict[name].type != "BatchNorm":
            for blob in blobs:
                result = zlib.crc32(blob.data, result)
    return result


def _loss(net: Any) -> float:
    """The weighted sum of a net's losses in its last forward pass."""
    weights = zip(net.blobs.values(), net._blob_loss_weights)
    return sum(float(np.sum(blob.data)) * weight for blob, weight in weights if weight)


def _seed_of(seed: int, iteration: int, rank: int) -> int:
    what = f"{seed}/{iteration}" + (f"/{rank}" if rank else "")
    return int.from_bytes(hashlib.blake2b(what.encode(), digest_size=4).digest(), "little") >> 1
