"""Nets made ready to be timed: fed by themselves, for the caffe program and for PyTorch.

A case is a JSON object that needs neither Caffe's messages nor the prototxt any more, so that it can be taken to a
machine that has the programs alone:
    model, batch, side (pixels), classes, parameters
    training, inference: of each {"ours", "stock"}, the prototxt for our program and, in upstream's types, for stock
        Caffe's; with data that is drawn once in place of the data layers. Training ends in a loss, inference in the
        sum of all probabilities, which is the batch
    base_lr, momentum, weight_decay: of its solver
    layers: the chain of layers between data and loss, as torch_nets takes them
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.errors import BenchmarkError
from tiny_imagenet.export import stock
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import nets, solvers

PIXELS = 60  # standard deviation of the data, about that of images less their mean

# Data that is drawn when the net is built and costs nothing in an iteration: the parameter of a lookup of one image,
# which a Parameter layer gives out as it stands. Zeros would let a GPU run faster than images do.
_DATA = """
layer {{ name: "first" type: "DummyData" top: "first" dummy_data_param {{ shape {{ dim: 1 }} }} }}
layer {{ name: "image" type: "Embed" bottom: "first" top: "image" {param}
  embed_param {{ input_dim: {batch} num_output: {values} bias_term: false
  weight_filler {{ type: "gaussian" std: {std} }} }} }}
layer {{ name: "unused" type: "Silence" bottom: "image" }}
layer {{ name: "data" type: "Parameter" top: "data" {param}
  parameter_param {{ shape {{ dim: {batch} dim: 3 dim: {side} dim: {side} }} }} }}
"""
_PARAM = 'param { name: "pixels" share_mode: PERMISSIVE lr_mult: 0 decay_mult: 0 }'
# Labels are drawn anew each time.
_LABEL = """
layer {{ name: "label" type: "DummyData" top: "label" dummy_data_param {{ shape {{ dim: {batch} }}
  data_filler {{ type: "uniform" min: 0 max: {most} }} }} }}
"""


def case(folder: str | os.PathLike[str], batch: int) -> dict[str, Any]:
    """The case of the net that a folder's solver.prototxt and deploy.prototxt have.

    Raises:
        NetError: a file is missing or does not parse.
        BenchmarkError: the net is no chain of layers that torch_nets knows.
    """
    solver, deploy = solvers.read(Path(folder) / "solver.prototxt"), nets.read(Path(folder) / "deploy.prototxt")
    side, classes = nets.crop_size(deploy), nets.outputs(deploy)
    found = outline.outline(deploy, "TEST")
    return {
        "model": deploy.name or Path(folder).name,
        "batch": batch,
        "side": side,
        "classes": classes,
        "parameters": found.parameter_count,
        "training": _texts(_training(deploy, batch, side, classes)),
        "inference": _texts(_inference(deploy, batch, side)),
        **{name: float(f"{getattr(solver, name):g}") for name in ("base_lr", "momentum", "weight_decay")},
        "layers": _chain(found),
    }


def _training(deploy: caffe_pb2.NetParameter, batch: int, side: int, classes: int) -> caffe_pb2.NetParameter:
    """The net with data at its beginning and a loss at its end."""
    net = _fed(deploy, batch, side, _LABEL.format(batch=batch, most=classes - 0.5))
    net.layer.extend(deploy.layer[1:-1])
    net.layer.add(name="loss", type="SoftmaxWithLoss", bottom=[deploy.layer[-1].bottom[0], "label"], top=["loss"])
    return net


def _inference(deploy: caffe_pb2.NetParameter, batch: int, side: int) -> caffe_pb2.NetParameter:
    """The net with data at its beginning and one number at its end, so that the program prints one a batch."""
    net = _fed(deploy, batch, side)
    net.layer.extend(deploy.layer[1:])
    net.layer.add(name="all", type="Reduction", bottom=[deploy.layer[-1].top[0]], top=["all"])
    return net


def _fed(deploy: caffe_pb2.NetParameter, batch: int, side: int, more: str = "") -> caffe_pb2.NetParameter:
    data = _DATA.format(batch=batch, side=side, values=3 * side * side, std=PIXELS, param=_PARAM)
    return text_format.Parse(data + more, caffe_pb2.NetParameter(name=deploy.name))


def _texts(net: caffe_pb2.NetParameter) -> dict[str, str]:
    return {"ours": nets.to_text(net), "stock": nets.to_text(stock.export(net))}


def _chain(found: outline.Outline) -> list[dict[str, Any]]:
    """What is between the input and the softmax, each taking what the one before it makes."""
    chain, before = [], found.layers[0].tops
    if found.layers[-1].type != "Softmax":
        raise BenchmarkError(f"net {found.name!r} does not end in a Softmax layer")
    for layer, message in zip(found.layers[1:-1], found.net.layer[1:-1]):
        if layer.bottoms != before or len(layer.tops) != 1:
            raise BenchmarkError(f"net {found.name!r} is no chain of layers: {layer.name} takes {layer.bottoms}")
        before = layer.tops
        values = _VALUES.get(layer.type, lambda *_: None)(layer, message)
        if values is None:
            raise BenchmarkError(f"net {found.name!r}: layer {layer.name} ({layer.type}) is none that PyTorch is given")
        chain.append({"type": layer.type, **values})
    return chain


def _convolution(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> dict[str, Any] | None:
    param = message.convolution_param
    plain = caffe_pb2.ConvolutionParameter(num_output=param.num_output, kernel_size=param.kernel_size, pad=param.pad)
    plain.weight_filler.CopyFrom(param.weight_filler)
    plain.bias_filler.CopyFrom(param.bias_filler)
    if param != plain or len(param.kernel_size) != 1 or len(param.pad) > 1:
        return None
    return {"outputs": param.num_output, "kernel": param.kernel_size[0], "pad": param.pad[0] if param.pad else 0}


def _pooling(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> dict[str, Any] | None:
    param = message.pooling_param
    plain = caffe_pb2.PoolingParameter(pool=param.pool, kernel_size=param.kernel_size, stride=param.stride)
    if param != plain or param.pool != caffe_pb2.PoolingParameter.MAX:
        return None
    return {"kernel": param.kernel_size, "stride": param.stride}


def _slope(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> dict[str, Any]:
    param = message.relu_param
    return {"slope": float(f"{param.negative_slope:g}") if param.HasField("negative_slope") else 0.01}


def _inner_product(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> dict[str, Any]:
    return {"outputs": message.inner_product_param.num_output, "inputs": layer.parameters[0][1]}


# What torch_nets is told of a layer beside its type; None where it has what PyTorch's is not given.
_VALUES: dict[str, Callable[..., dict[str, Any] | None]] = {
    "Power": lambda layer, message: {"scale": message.power_param.scale},
    "Convolution": _convolution,
    "ReLU": lambda layer, message: None if message.relu_param.negative_slope else {},
    "LReLU": _slope,
    "PReLU": lambda layer, message: {},
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "Dropout": lambda layer, message: {"ratio": float(f"{message.dropout_param.dropout_ratio:g}")},
}
