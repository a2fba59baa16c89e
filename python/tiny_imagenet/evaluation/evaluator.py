"""Evaluation of a net on the records of an LMDB."""

from __future__ import annotations

import tempfile

import caffe
import numpy as np

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.models import derive, nets


class Evaluator:
    """The TEST-phase net of a train_val net."""

    def __init__(self, net, lmdb, mean, weights, *, batch=None, ten_crop=False, gpu=None):
        self.batch = batch or 50
        self.net_param = derive.evaluation(net, lmdb, mean, self.batch)
        self.lmdb, self.count, self.weights = lmdb, lmdb_reader.count(lmdb), weights
        self.keys = [k for k, _ in lmdb_reader.raw_records(lmdb)]

    @property
    def batches(self):
        """Number of batches."""
        return -(-self.count // self.batch)

    def __call__(self, batches=None, between=None):
        """Predictions of some batches."""
        batches = range(self.batches) if batches is None else batches
        p = type(self.net_param)()
        p.CopyFrom(self.net_param)
        p.layer[0].crop_data_param.iteration = batches.start
        with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as f:
            f.write(nets.to_text(p))
            f.flush()
            net = caffe.Net(f.name, caffe.TEST)
        net.share_with(self.weights)
        keys, labels, parts = [], [], []
        d = p.layer[0].top
        for b in batches:
            net.forward()
            n = min(self.batch, self.count - b * self.batch)
            keys += [self.keys[int(i)] for i in net.blobs[d[2]].data[:n]]
            labels.append(net.blobs[d[1]].data[:n].astype(np.int64))
            parts.append(net.blobs[p.layer[-1].top[0]].data[:n].reshape(n, -1).copy())
            if between:
                between()
        return Predictions(np.array(keys), np.concatenate(labels), np.concatenate(parts), {})
