"""What a pass of a layer cannot do without: multiplications and additions, and bytes of float32 read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.inspect import outline

FLOAT = 4  # bytes
PASSES = ("forward", "backward")
_RECTIFIERS = {"ReLU", "LReLU", "PReLU"}
_READS_BOTTOM = {"Convolution", "InnerProduct", *_RECTIFIERS}  # for its gradient
_KEEPS = {"Dropout", "SoftmaxWithLoss"}  # something of its bottom's size for the gradient: a mask, the probabilities


class Work(NamedTuple):
    """A layer's.

    Attributes:
        name, type: the layer's.
        shape: of its first top.
        flop: products and sums, each counted, by pass; as the layer is defined, whatever way it is computed.
        bytes: by pass; each array once, whatever is kept in a cache or copied on the way.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    flop: Mapping[str, int]
    bytes: Mapping[str, int]


def of_net(prototxt: str) -> list[Work]:
    """Of the layers of a training net that have a gradient to compute, or lie after one that has.

    Raises:
        NetError: Caffe refuses the net.
    """
    found = outline.outline(text_format.Parse(prototxt, caffe_pb2.NetParameter()), "TRAIN")
    learning: set[str] = set()  # blobs that depend on what is learnt
    sizes: dict[str, int] = {}
    works = []
    for layer, message in zip(found.layers, found.net.layer):
        before = sum(sizes[name] for name in layer.bottoms)
        wanted = sum(sizes[name] for name in layer.bottoms if name in learning)  # gradients to its bottoms
        sizes.update((name, math.prod(shape)) for name, shape in zip(layer.tops, layer.shapes or ()))
        if not wanted and not _learns(layer, message):
            continue
        learning.update(layer.tops)
        works.append(_work(layer, before, sum(sizes[name] for name in layer.tops), wanted))
    return works


def _learns(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> bool:
    rates = [spec.lr_mult for spec in message.param]
    return any(rates[i] if i < len(rates) else 1 for i in range(len(layer.parameters)))


def _work(layer: outline.Layer, before: int, after: int, wanted: int) -> Work:
    """Args: the layer, and values of its bottoms, of its tops and of the gradients to its bottoms."""
    parameters = sum(map(math.prod, layer.parameters))
    kept = before if layer.type in _KEEPS or (layer.type == "PReLU" and layer.in_place) else 0
    read = before if layer.type in _READS_BOTTOM else kept
    forward = before + after + parameters + kept
    backward = (
        after + read + wanted + (2 if wanted else 1) * parameters
    )  # parameters are read for the bottom's gradient
    products = 2 * (layer.multiply_adds or 0)
    return Work(
        layer.name,
        layer.type,
        layer.shapes[0],
        {"forward": products, "backward": (2 if wanted else 1) * products},
        {"forward": FLOAT * forward, "backward": FLOAT * backward},
    )
