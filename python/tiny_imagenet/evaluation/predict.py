"""Probabilities for single images."""

from __future__ import annotations

import os
from collections.abc import Iterable

import caffe
import numpy as np
from caffe.proto import caffe_pb2

from tiny_imagenet.data import datum
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation.evaluator import BATCH, GPU_BATCH, average, build
from tiny_imagenet.gpu import choose, compute_on
from tiny_imagenet.models import derive, nets


def load(path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None) -> caffe.Net:
    """The net of a deploy prototxt with the weights of a .caffemodel, or with those of its fillers.

    Raises:
        NetError: a file cannot be read, the net does not build, or a layer has no weights.
    """
    return build(nets.read(path), weights)


class Predictor:
    """A net that predicts images in memory, cropped as CropData crops those of an LMDB.

    Args:
        net: a train_val net, or a deploy net.
        mean: the mean image's binaryproto, see `derive.evaluation`.
        weights: a .caffemodel, or a net whose weights are shared.
        ten_crop: average the probabilities of the four corners, the centre and their mirrors.
        gpu: the number of the GPU to use; None leaves it to this thread's Caffe, the CPU by default.

    Attributes:
        net: the net that is run, a caffe.Net.
        batch: images per forward pass.
        output: the blob of the probabilities.

    Raises:
        NetError: the net does not build, or the weights do not fit it.
        GpuError: the GPU is missing or cannot be used.
    """

    def __init__(
        self,
        net: caffe_pb2.NetParameter,
        mean: str | os.PathLike[str] | None,
        weights: str | os.PathLike[str] | caffe.Net,
        *,
        ten_crop: bool = False,
        gpu: int | None = None,
    ):
        if gpu is not None:
            choose((gpu,))
            compute_on(gpu)
        self.gpu = gpu
        deploy = derive.deploy(net)
        side, width = deploy.layer[0].input_param.shape[0].dim[2:]
        if side != width:
            raise NetError(f"the input of net {net.name!r} is {side}x{width}: expected a square")
        transform = derive.evaluation(net, "", mean, 1).layer[0].transform_param
        values = list(transform.mean_value) * (3 if len(transform.mean_value) == 1 else 1)
        mean_image = datum.read_mean(transform.mean_file) if transform.mean_file else values or None
        self._crop = {"crop_size": side, "mean": mean_image, "scale": transform.scale, "ten_crop": ten_crop}
        self._crops = derive.CROPS if ten_crop else 1
        self.batch = (BATCH if gpu is None else GPU_BATCH) // self._crops
        self.output = deploy.layer[-1].top[0]
        self.net = build(deploy, weights)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Probabilities (n, classes), float32, of images (n, channels, height, width), uint8 BGR.

        Raises:
            DatasetError: the images and the mean image have different sizes.
        """
        starts = range(0, len(images), self.batch)
        return np.concatenate([self.forward(images[start : start + self.batch]) for start in starts])

    def forward(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """As calling it, in one forward pass: the net's blobs then contain the images' activations."""
        if self.gpu is not None:
            compute_on(self.gpu)  # another net may have switched to another since
        try:
            crops = np.concatenate([caffe.crop_image(image, **self._crop) for image in images])
        except caffe.CaffeError as error:
            raise DatasetError(f"the image does not fit: {error}") from error
        blob = self.net.blobs[self.net.inputs[0]]
        if tuple(blob.shape) != crops.shape:
            blob.reshape(*crops.shape)
        output = self.net.forward(**{self.net.inputs[0]: crops})[self.output]
        return average(output, self._crops)
