"""From weights and images to probabilities: centre crop, no flip (section 5.2.2), or the average of ten crops."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import caffe
import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation.ahead import ahead
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.gpu import choose, compute_on
from tiny_imagenet.models import nets

BATCH, GPU_BATCH = 50, 200
CROPS = {False: "centre", True: "ten: four corners, centre, and their mirrors"}  # what a predictions file's meta says


def load(deploy: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> caffe.Net:
    """The net of a deploy prototxt with the weights of a .caffemodel, without one with what its fillers give.

    Raises:
        NetError: a file cannot be read, the net does not build, or a layer of it has no weights there.
    """
    nets.read(deploy)
    try:
        net = caffe.Net(os.fspath(deploy), caffe.TEST)
    except caffe.CaffeError as error:
        raise NetError(f"{deploy}: {error}") from error
    missing = set(net.params) - set(nets.copy_weights(net, weights)) if weights is not None else ()
    if missing:
        raise NetError(f"{weights} has no weights for layer {min(missing)} of {deploy}")
    return net


class Predictor:
    """A deploy net that takes images as they are stored.

    Args:
        deploy: the deploy prototxt; its first layer is an Input of shape (N, 3, side, side).
        mean: the mean image's binaryproto (3, height, width).
        weights: a .caffemodel, or a net whose weights are shared.
        batch: images a forward pass; None for as many as are fast.
        ten_crop: average the probabilities of the four corners, the centre and their mirrors; else the centre's alone.
        gpu: the number of the GPU that computes; None leaves it to this thread's Caffe, that is the CPU unless told.

    Raises:
        NetError: a file does not parse, does not build or does not fit the others.
        GpuError: there is no such GPU, or it cannot be used.
    """

    def __init__(
        self,
        deploy: str | os.PathLike[str],
        mean: str | os.PathLike[str],
        weights,
        batch: int | None = None,
        ten_crop: bool = False,
        gpu: int | None = None,
    ):
        if gpu is not None:
            choose((gpu,))
            compute_on(gpu)
        self.gpu = gpu
        self.batch = batch or (BATCH if gpu is None else GPU_BATCH)
        self.ten_crop = ten_crop
        self.side = nets.crop_size(nets.read(deploy))
        self.mean = datum.read_mean(mean)
        if min(self.mean.shape[1:]) < self.side:
            raise NetError(f"{deploy} takes {self.side}x{self.side} pixels, the mean {mean} is {self.mean.shape[1:]}")
        if isinstance(weights, caffe.Net):
            self.net = load(deploy)
            try:
                self.net.share_with(weights)
            except caffe.CaffeError as error:
                raise NetError(f"{deploy}: {error}") from error
        else:
            self.net = load(deploy, weights)
        if len(self.net.inputs) != 1 or len(self.net.outputs) != 1:
            raise NetError(f"{deploy} must have one input and one output, not {self.net.inputs} and {self.net.outputs}")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), float32, of images (n, 3, height, width), uint8 BGR.

        Raises:
            DatasetError: the images are not of the mean's size.
        """
        starts = range(0, len(images), self.batch)
        parts = [self.forward(self.prepare(images[start : start + self.batch])) for start in starts]
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """What `forward` takes, float32 (crops, n, 3, side, side), of images (n, 3, height, width), uint8 BGR.

        A crop has the mean's same window subtracted, and is mirrored after that, as Caffe's data layers do it.

        Raises:
            DatasetError: the images are not of the mean's size.
        """
        if images.shape[1:] != self.mean.shape:
            raise DatasetError(f"images of shape {images.shape[1:]} do not fit the mean image's {self.mean.shape}")
        down, right = (size - self.side for size in self.mean.shape[1:])
        offsets = [(down // 2, right // 2)]
        if self.ten_crop:
            offsets = [(0, 0), (0, right), (down, 0), (down, right), *offsets]
        inputs = np.empty((len(offsets) * (1 + self.ten_crop), len(images), 3, self.side, self.side), np.float32)
        for crop, (top, left) in zip(inputs, offsets):
            window = (slice(None), slice(top, top + self.side), slice(left, left + self.side))
            np.subtract(images[(slice(None), *window)], self.mean[window], out=crop)
        if self.ten_crop:
            inputs[len(offsets) :] = inputs[: len(offsets), ..., ::-1]
        return inputs

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), float32, of what `prepare` returned: the mean of its crops'."""
        if self.gpu is not None:
            compute_on(self.gpu)  # another net may have been elsewhere since
        blob = self.net.blobs[self.net.inputs[0]]
        if blob.shape[0] != inputs.shape[1]:
            blob.reshape(*inputs.shape[1:])
            self.net.reshape()
        total = 0
        for crop in inputs:
            blob.data[...] = crop
            self.net._forward(0, len(self.net.layers) - 1)
            output = self.net.blobs[self.net.outputs[0]].data.reshape(inputs.shape[1], -1)
            if len(inputs) == 1:
                return output.copy()
            total = total + output.astype(np.float64)
        return (total / len(inputs)).astype(np.float32)


def predict(
    predictor: Predictor,
    lmdb: str | os.PathLike[str],
    meta: dict | None = None,
    between: Callable[[], None] | None = None,
) -> Predictions:
    """Probabilities of every record of an LMDB, in its order.

    A thread reads the records and subtracts the mean while the net computes.

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
    with contextlib.closing(ahead(_inputs(predictor, lmdb))) as ready:
        shown = ready
        if between is None:
            shown = cli.track(ready, -(-count // predictor.batch), f"predict {Path(lmdb).name}")
        for its_keys, its_labels, inputs in shown:
            keys += its_keys
            labels += its_labels
            parts.append(predictor.forward(inputs))
            if between:
                between()
    if not keys:
        raise DatasetError(f"{lmdb} has no records")
    return Predictions(np.array(keys), np.array(labels, np.int64), np.concatenate(parts), meta or {})


def _inputs(predictor: Predictor, lmdb: str | os.PathLike[str]) -> Iterator[tuple[list[str], list[int], np.ndarray]]:
    records = _fitting(lmdb_reader.records(lmdb), predictor.mean.shape, lmdb)
    for batch in batches(records, predictor.batch):
        keys, labels, images = map(list, zip(*batch))
        yield keys, labels, predictor.prepare(np.stack(images))


def _fitting(records: Iterable, shape: tuple[int, ...], lmdb: str | os.PathLike[str]) -> Iterator:
    for record in records:
        if record[2].shape != shape:
            raise DatasetError(f"{lmdb}, record {record[0]}: shape {record[2].shape} is not the mean image's {shape}")
        yield record


def batches(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` items in order; the last may be shorter."""
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])
