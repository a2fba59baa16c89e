"""Cost of a shaped layer: multiply-adds and the memory it allocates besides its blobs, for the whole batch.

The arguments are a layer's message, the net's blobs by name, and the shapes of the layer's tops and parameters.
"""

from __future__ import annotations

import math

from tiny_imagenet.inspect import layer_fields

FLOAT = 4  # bytes
PREFETCHING = ("Data", "CropData", "ImageData", "WindowData")


def multiply_adds(layer, blobs, shapes, parameters) -> int:
    """Multiply-adds of convolutions, inner products and recurrent layers; others are small and count as 0."""
    if not parameters:
        return 0
    weights = math.prod(parameters[0])
    if layer.type in ("Convolution", "Deconvolution"):
        maps = shapes if layer.type == "Convolution" else [tuple(blobs[layer.bottom[0]].shape)] * len(shapes)
        axis = layer.convolution_param.axis % max(len(maps[0]), 1)
        return sum(math.prod(s[:axis]) * math.prod(s[axis + 1 :]) for s in maps) * weights
    if layer.type == "InnerProduct":
        axis = layer.inner_product_param.axis % max(len(blobs[layer.bottom[0]].shape), 1)
        return math.prod(shapes[0][:axis]) * weights
    if layer.type in ("LSTM", "RNN"):
        return math.prod(shapes[0][:2]) * sum(math.prod(s) for s in parameters if len(s) > 1)
    return 0


def working_bytes(layer, blobs, shapes, parameters) -> int:
    """Bytes that a layer allocates for itself on the CPU, with upstream's convolution."""
    values = sum(map(math.prod, shapes))
    if layer.type in ("Dropout", "SoftmaxWithLoss"):  # the mask; the probabilities
        return FLOAT * math.prod(blobs[layer.bottom[0]].shape)
    in_place = list(layer.top) == list(layer.bottom)
    if layer.type == "BatchNorm":
        return (3 if in_place else 2) * FLOAT * values
    if layer.type == "LRN" or (in_place and layer.type in ("PReLU", "Scale")):  # a copy that the gradient needs
        return FLOAT * values
    if layer.type == "Pooling" and layer.pooling_param.pool == layer.pooling_param.MAX:
        return FLOAT * values  # the position of each maximum
    if layer.type in ("Convolution", "Deconvolution") and math.prod(parameters[0][2:]) > 1:
        # one image unfolded: a row per kernel value, a column per place of the kernel
        image = blobs[layer.bottom[0]].shape if layer.type == "Deconvolution" else shapes[0]
        axis = layer.convolution_param.axis % max(len(image), 1)
        rows = math.prod(parameters[0][1:]) * layer.convolution_param.group
        return FLOAT * rows * math.prod(image[axis + 1 :])
    if layer.type in PREFETCHING:
        return getattr(layer_fields.of(layer), "prefetch", layer.data_param.prefetch) * FLOAT * values
    return 0
