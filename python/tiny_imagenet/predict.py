"""From weights and images to probabilities: centre crop, no flip (section 5.2.2)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import caffe
import numpy as np

from tiny_imagenet import cli, datum, lmdb_reader, nets
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.predictions import Predictions

BATCH = 50


class Predictor:
    """A deploy net that takes images as they are stored.

    Args:
        deploy: the deploy prototxt; its first layer is an Input of shape (N, 3, side, side).
        mean: the mean image's binaryproto (3, height, width).
        weights: a .caffemodel, or a net whose weights are shared.
        batch: images a forward pass.

    Raises:
        NetError: a file does not parse, does not build or does not fit the others.
    """

    def __init__(self, deploy: str | os.PathLike[str], mean: str | os.PathLike[str], weights, batch: int = BATCH):
        self.batch = batch
        self.side = nets.crop_size(nets.read(deploy))
        self.mean = datum.read_mean(mean)
        if min(self.mean.shape[1:]) < self.side:
            raise NetError(f"{deploy} takes {self.side}x{self.side} pixels, the mean {mean} is {self.mean.shape[1:]}")
        try:
            self.net = caffe.Net(os.fspath(deploy), caffe.TEST)
            if isinstance(weights, caffe.Net):
                self.net.share_with(weights)
        except caffe.CaffeError as error:
            raise NetError(f"{deploy}: {error}") from error
        if not isinstance(weights, caffe.Net):
            missing = set(self.net.params) - set(nets.copy_weights(self.net, weights))
            if missing:
                raise NetError(f"{weights} has no weights for layer {sorted(missing)[0]} of {deploy}")
        if len(self.net.inputs) != 1 or len(self.net.outputs) != 1:
            raise NetError(f"{deploy} must have one input and one output, not {self.net.inputs} and {self.net.outputs}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), float32, of images (n, 3, height, width), uint8 BGR.

        Raises:
            DatasetError: the images are not of the mean's size.
        """
        if images.shape[1:] != self.mean.shape:
            raise DatasetError(f"images of shape {images.shape[1:]} do not fit the mean image's {self.mean.shape}")
        top, left = ((size - self.side) // 2 for size in self.mean.shape[1:])
        window = (slice(None), slice(top, top + self.side), slice(left, left + self.side))
        mean = self.mean[window]
        parts = []
        for start in range(0, len(images), self.batch):
            batch = images[(slice(start, start + self.batch), *window)]
            blob = self.net.blobs[self.net.inputs[0]]
            if blob.shape[0] != len(batch):
                blob.reshape(len(batch), *batch.shape[1:])
                self.net.reshape()
            np.subtract(batch, mean, out=blob.data)
            self.net._forward(0, len(self.net.layers) - 1)
            output = self.net.blobs[self.net.outputs[0]].data
            parts.append(output.reshape(len(batch), -1).copy())
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def predict(
    predictor: Predictor,
    lmdb: str | os.PathLike[str],
    meta: dict | None = None,
    between: Callable[[], None] | None = None,
) -> Predictions:
    """Probabilities of every record of an LMDB, in its order.

    Args:
        predictor: the net.
        lmdb: the LMDB's folder.
        meta: of the predictions.
        between: called after each batch, in place of showing how far it is; what it raises ends the prediction.

    Raises:
        DatasetError: it cannot be read.
    """
    count = lmdb_reader.count(lmdb)
    keys, labels, parts = [], [], []
    records = _fitting(lmdb_reader.records(lmdb), predictor.mean.shape, lmdb)
    batches = _batches(records, predictor.batch)
    if between is None:
        batches = cli.track(batches, -(-count // predictor.batch), f"predict {Path(lmdb).name}")
    for batch in batches:
        keys += [key for key, _, _ in batch]
        labels += [label for _, label, _ in batch]
        parts.append(predictor(np.stack([image for _, _, image in batch])))
        if between:
            between()
    if not keys:
        raise DatasetError(f"{lmdb} has no records")
    return Predictions(np.array(keys), np.array(labels, np.int64), np.concatenate(parts), meta or {})


def _fitting(records: Iterable, shape: tuple[int, ...], lmdb: str | os.PathLike[str]) -> Iterator:
    for record in records:
        if record[2].shape != shape:
            raise DatasetError(f"{lmdb}, record {record[0]}: shape {record[2].shape} is not the mean image's {shape}")
        yield record


def _batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])
