"""A rank's solver: built for its share of a batch, stepped, compared, saved and restored."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from tiny_imagenet import files
from tiny_imagenet.errors import RunError
from tiny_imagenet.models import nets
from tiny_imagenet.runs import SOLVERSTATE, WEIGHTS
from tiny_imagenet.training.ranks import Ranks


def message(solver: caffe_pb2.SolverParameter, net: caffe_pb2.NetParameter, count: int) -> caffe_pb2.SolverParameter:
    """Return the solver with its net inside, for one of `count` ranks and its share of each batch."""
    result = caffe_pb2.SolverParameter()
    result.CopyFrom(solver)
    result.ClearField("net")
    result.net_param.CopyFrom(net)
    for layer in result.net_param.layer:
        if layer.type == "Data" and nets.is_training(layer):
            layer.data_param.batch_size //= count  # per rank, in upstream's layer; CropData divides it by itself
    # Averaged layer by layer, a gradient that sums several passes or layers would be sent before it is complete.
    names = [param.name for layer in net.layer for param in layer.param if param.name]
    if result.iter_size > 1 or len(names) > len(set(names)):
        result.layer_wise_reduce = False
    return result


def relocate(net: caffe_pb2.NetParameter, data: Path) -> None:
    """Let the data layers of a net read from the folder `data`."""
    for layer in nets.lmdb_layers(net):
        param = nets.data_param(layer)
        param.source = str(data / Path(param.source).name)
        if layer.transform_param.mean_file:
            layer.transform_param.mean_file = str(data / Path(layer.transform_param.mean_file).name)


class Iterations:
    """Steps of a solver, each a function of the run's seed, the iteration, the weights and the solver's history.

    CropData draws records, crops and mirrors from seed and iteration. Caffe's generator, which dropout uses, is seeded
    for each iteration and rank.
    """

    def __init__(self, solver: Any, seed: int, ranks: Ranks):
        self._solver, self._seed, self._ranks = solver, seed, ranks
        self._parts: list[float] = []  # losses of the passes of one iteration, if iter_size > 1
        if solver.param.to_proto().iter_size > 1:
            net, last = solver.net, len(solver.net.layers) - 1
            net.after_forward(lambda layer: self._parts.append(_loss(net)) if layer == last else None)

    def step(self, base_lr: float) -> float:
        """Run one iteration and return its loss: of the whole batch in rank 0, of their share in other ranks.

        Raises:
            caffe.CaffeError: the iteration fails.
            RankLostError: another rank was lost.
        """
        self._solver.param.base_lr = base_lr
        caffe.set_random_seed(_dropout_seed(self._seed, self._solver.iter, self._ranks.rank))
        self._parts.clear()
        self._solver.step(1)
        loss = sum(self._parts) / len(self._parts) if self._parts else _loss(self._solver.net)
        losses = self._ranks.gather(loss)
        return sum(losses) / len(losses) if losses else loss


def _loss(net: Any) -> float:
    """Weighted sum of a net's losses in its last forward pass."""
    weights = zip(net.blobs.values(), net._blob_loss_weights)
    return sum(float(np.sum(blob.data)) * weight for blob, weight in weights if weight)


def _dropout_seed(seed: int, iteration: int, rank: int) -> int:
    text = f"{seed}/{iteration}" + (f"/{rank}" if rank else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little") >> 1


# --- Several ranks --------------------------------------------------------------------------------------------------


def digest(net: Any) -> int:
    """Checksum of a net's parameters except those of BatchNorm, which differ between ranks."""
    result = 0
    for name, blobs in net.params.items():
        if net.layer_dict[name].type != "BatchNorm":
            for blob in blobs:
                result = zlib.crc32(blob.data, result)
    return result


def share_statistics(net: Any, ranks: Ranks) -> None:
    """Give all ranks the BatchNorm statistics of rank 0; each rank's are those of its share of the batches."""
    if ranks.count == 1:
        return
    layers = [name for name in net.params if net.layer_dict[name].type == "BatchNorm"]
    values = ranks.broadcast([[blob.data.copy() for blob in net.params[name]] for name in layers])
    for name, arrays in zip(layers, values):
        for blob, array in zip(net.params[name], arrays):
            blob.data[...] = array


# --- Checkpoints ----------------------------------------------------------------------------------------------------


def save(solver: Any, folder: Path) -> None:
    """Write weights.caffemodel and solver.solverstate into a folder.

    Raises:
        RunError: they cannot be written.
    """
    prefix = solver.param.snapshot_prefix
    solver.param.snapshot_prefix = str(folder / "snapshot")
    try:
        solver.snapshot()
    except caffe.CaffeError as error:
        why = str(error).rpartition(": ")[2]  # the text before it names a temporary file
        raise RunError(f"cannot write the checkpoint of iteration {solver.iter}: {why}") from error
    finally:
        solver.param.snapshot_prefix = prefix
    next(folder.glob("snapshot*.caffemodel")).rename(folder / WEIGHTS)
    solverstate = next(folder.glob("snapshot*.solverstate")).rename(folder / SOLVERSTATE)
    with open(solverstate, "ab") as stream:  # the last of two equal fields of a message counts
        stream.write(caffe_pb2.SolverState(learned_net=WEIGHTS).SerializeToString())
    for path in folder.iterdir():
        files.sync(path)


def read_checkpoint(folder: Path) -> dict[str, bytes]:
    """Return the files that `restore` needs, by name."""
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, SOLVERSTATE)}


def restore(solver: Any, folder: Path) -> None:
    """Restore weights, history, iteration and CropData's position from a checkpoint's folder.

    Raises:
        caffe.CaffeError: a file does not fit the solver.
    """
    working = Path.cwd()
    os.chdir(folder)  # the solverstate names the weights without a folder
    try:
        solver.restore(SOLVERSTATE)
    finally:
        os.chdir(working)


def restore_bytes(solver: Any, checkpoint: dict[str, bytes]) -> None:
    """`restore` from what `read_checkpoint` returned on another machine."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in checkpoint.items():
            (Path(folder) / name).write_bytes(content)
        restore(solver, Path(folder))
