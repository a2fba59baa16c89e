"""What a shaped layer costs: its multiply-adds and the memory that it keeps for itself, for the whole batch.

The functions take a layer's message, the blobs of its net by name, the shapes of its tops and of its parameters.
"""

from __future__ import annotations

import math

FLOAT = 4  # bytes
RECURRENT = ("LSTM", "RNN")
READING_AHEAD = ("Data", "CropData", "ImageData", "WindowData")


def multiply_adds(layer, blobs, shapes, parameters) -> int:
    """Of convolutions, inner products and recurrent layers; what others do is small beside them and counts as 0."""
    if not parameters:
        return 0
    weights = math.prod(parameters[0])
    if layer.type == "Convolution":
        axis = layer.convolution_param.axis % max(len(shapes[0]), 1)
        places = sum(math.prod(s[:axis]) * math.prod(s[axis + 1 :]) for s in shapes)
        return places * weights
    if layer.type == "Deconvolution":
        bottom = tuple(blobs[layer.bottom[0]].shape)
        axis = layer.convolution_param.axis % max(len(bottom), 1)
        return len(shapes) * math.prod(bottom[:axis]) * math.prod(bottom[axis + 1 :]) * weights
    if layer.type == "InnerProduct":
        axis = layer.inner_product_param.axis % max(len(blobs[layer.bottom[0]].shape), 1)
        return math.prod(shapes[0][:axis]) * weights
    if layer.type in RECURRENT:
        return math.prod(shapes[0][:2]) * sum(math.prod(s) for s in parameters if len(s) > 1)
    return 0


def working_bytes(layer, blobs, shapes, parameters) -> int:
    """Of the layers whose own memory counts beside their blobs, on the CPU and with upstream's convolution."""
    values = sum(map(math.prod, shapes))
    if layer.type in ("Dropout", "SoftmaxWithLoss"):  # the mask; the probabilities
        return FLOAT * math.prod(blobs[layer.bottom[0]].shape)
    in_place = list(layer.top) == list(layer.bottom)
    if layer.type == "BatchNorm":
        return (3 if in_place else 2) * FLOAT * values
    if layer.type == "LRN" or (in_place and layer.type in ("PReLU", "Scale")):  # what the gradient needs beside the top
        return FLOAT * values
    if layer.type == "Pooling" and layer.pooling_param.pool == layer.pooling_param.MAX:
        return FLOAT * values  # where each maximum was
    if layer.type in ("Convolution", "Deconvolution") and math.prod(parameters[0][2:]) > 1:
        # of one image's output a row for each value of a kernel; of Deconvolution's input
        image = blobs[layer.bottom[0]].shape if layer.type == "Deconvolution" else shapes[0]
        axis = layer.convolution_param.axis % max(len(image), 1)
        rows = math.prod(parameters[0][1:]) * layer.convolution_param.group
        return FLOAT * rows * math.prod(image[axis + 1 :])
    if layer.type in READING_AHEAD:
        param = getattr(layer, "crop_data_param" if layer.type == "CropData" else "data_param")
        return param.prefetch * FLOAT * values
    return 0
