"""Probabilities for the records of an LMDB, read and cropped by CropData."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import DatasetError, NetError, from_caffe
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.gpu import choose, compute_on
from tiny_imagenet.models import derive, nets

BATCH, GPU_BATCH = 50, 200  # crops per forward pass


class Evaluator:
    """A net that predicts the records of an LMDB: the centre crop (section 5.2.2), or the average of ten crops.

    Args:
        net: a train_val net, or a deploy net.
        lmdb: the LMDB's folder.
        mean: the mean image, see `derive.evaluation`.
        weights: a .caffemodel, or a net whose weights are shared.
        batch: records per forward pass, by default as many as are fast.
        ten_crop: average the probabilities of the four corners, the centre and their mirrors.
        gpu: the number of the GPU to use; None leaves it to this thread's Caffe, the CPU by default.

    Attributes:
        net: the net that is run, a caffe.Net.
        records: the records, a caffe.LmdbRecords.
        batch: records per forward pass.
        batches: how many batches cover the LMDB; the last may be smaller.
        classes: outputs of the net.

    Raises:
        DatasetError: the LMDB cannot be read.
        NetError: the net does not build, or the weights do not fit it.
        GpuError: the GPU is missing or cannot be used.
    """

    def __init__(
        self,
        net: caffe_pb2.NetParameter,
        lmdb: str | os.PathLike[str],
        mean: str | os.PathLike[str] | None,
        weights: str | os.PathLike[str] | caffe.Net,
        *,
        batch: int | None = None,
        ten_crop: bool = False,
        gpu: int | None = None,
    ):
        if gpu is not None:
            choose((gpu,))
            compute_on(gpu)
        self.gpu = gpu
        try:
            self.records = caffe.LmdbRecords(lmdb)
        except caffe.CaffeError as error:
            raise DatasetError(str(error)) from error
        self._crops = derive.CROPS if ten_crop else 1
        most = batch or (BATCH if gpu is None else GPU_BATCH) // self._crops
        self.batch = min(most, len(self.records))
        self.batches = -(-len(self.records) // self.batch)
        param = derive.evaluation(net, lmdb, mean, self.batch, ten_crop)
        self._label, self._output = param.layer[0].top[1], param.layer[-1].top[0]
        self.net = build(param, weights)
        self.classes = math.prod(self.net.blobs[self._output].shape[1:])

    def __call__(self, batches: range | None = None, between: Callable[[], None] | None = None) -> Predictions:
        """Predict the records of some batches, or all, in order.

        Args:
            batches: a range of batch numbers with step 1.
            between: called after each batch; may raise to stop.

        Returns:
            Keys, labels and float32 probabilities (n, classes); not finite if the net has diverged.

        Raises:
            DatasetError: a record cannot be read.
        """
        batches = range(self.batches) if batches is None else batches
        if self.gpu is not None:
            compute_on(self.gpu)  # another net may have switched to another since
        first, last = batches.start * self.batch, min(batches.stop * self.batch, len(self.records))
        self.net.seek_data(batches.start)
        labels, parts = [], []
        for number in batches:
            count = min(self.batch, last - number * self.batch)  # CropData continues with the first record
            try:
                self.net._forward(0, len(self.net.layers) - 1)
            except caffe.CaffeError as error:
                raise DatasetError(str(error)) from error
            labels.append(self.net.blobs[self._label].data[: count * self._crops : self._crops].astype(np.int64))
            parts.append(average(self.net.blobs[self._output].data, self._crops)[:count])
            if between:
                between()
        keys = [self.records.key(record) for record in range(first, last)]
        labels.insert(0, np.empty(0, np.int64))
        parts.insert(0, np.empty((0, self.classes), np.float32))
        return Predictions(np.array(keys, str), np.concatenate(labels), np.concatenate(parts), {})


def average(output: np.ndarray, crops: int) -> np.ndarray:
    """The average (n, classes), float32, of the probabilities (n * crops, ...) of each image's crops."""
    rows = output.reshape(len(output) // crops, crops, -1)
    return rows[:, 0].copy() if crops == 1 else rows.mean(axis=1, dtype=np.float64).astype(np.float32)


def build(param: caffe_pb2.NetParameter, weights: str | os.PathLike[str] | caffe.Net | None) -> caffe.Net:
    """A net in phase TEST with the weights of a .caffemodel, those of another net (shared), or for None its fillers'.

    Raises:
        NetError: the net does not build, the weights do not fit, or a layer has none.
    """
    try:
        net = caffe.Net(param, caffe.TEST)
        if isinstance(weights, caffe.Net):
            net.share_with(weights)
    except caffe.CaffeError as error:
        raise NetError(f"net {param.name!r}: {from_caffe(str(error))}") from error
    if weights is None:
        return net
    shared = isinstance(weights, caffe.Net)
    missing = set(net.params) - set(weights.params if shared else nets.copy_weights(net, weights))
    if missing:
        where = "the other net" if shared else weights
        raise NetError(f"{where} has no weights for layer {min(missing)!r} of net {param.name!r}")
    return net
