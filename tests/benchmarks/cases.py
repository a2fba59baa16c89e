"""Nets with generated data instead of data layers, for the caffe programs and for PyTorch.

A case is a JSON object, so that a machine with only the programs can measure it:
    model, batch, side (pixels), classes, parameters; base_lr, momentum, weight_decay of the solver
    training, inference: {"ours", "stock"}, the prototxt for our program and, with upstream's layer types, for stock
        Caffe. Training ends in the loss, inference in the sum of all probabilities, which is the batch.
    layers: the chain of layers between data and loss, as torch_worker builds it
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.errors import BenchmarkError
from tiny_imagenet.export import stock
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import derive, nets, solvers

PIXELS = 60  # standard deviation of the data, similar to that of centred images

# The data is the weight of an Embed layer, drawn once; a Parameter layer that shares it returns it at no cost. Zeros
# would make a GPU faster than images do. The labels are drawn in each iteration.
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
_LABEL = """
layer {{ name: "label" type: "DummyData" top: "label" dummy_data_param {{ shape {{ dim: {batch} }}
  data_filler {{ type: "uniform" min: 0 max: {most} }} }} }}
"""


def case(folder: str | os.PathLike[str], batch: int) -> dict[str, Any]:
    """Return the case of a folder's train_val.prototxt and solver.prototxt.

    Raises:
        NetError: a file is missing or does not parse.
        BenchmarkError: the net is not a chain of layers that torch_worker can build.
    """
    solver = solvers.read(Path(folder) / "solver.prototxt")
    deploy = derive.deploy(nets.read(Path(folder) / "train_val.prototxt"))
    side, classes = nets.crop_size(deploy), nets.outputs(deploy)
    found = outline.outline(deploy, "TEST")
    data = _DATA.format(batch=batch, side=side, values=3 * side * side, std=PIXELS, param=_PARAM)
    label = _LABEL.format(batch=batch, most=classes - 0.5)
    training = text_format.Parse(data + label, caffe_pb2.NetParameter(name=deploy.name))
    training.layer.extend(deploy.layer[1:-1])
    training.layer.add(name="loss", type="SoftmaxWithLoss", bottom=[deploy.layer[-1].bottom[0], "label"], top=["loss"])
    inference = text_format.Parse(data, caffe_pb2.NetParameter(name=deploy.name))
    inference.layer.extend(deploy.layer[1:])
    inference.layer.add(name="all", type="Reduction", bottom=[deploy.layer[-1].top[0]], top=["all"])
    texts = [{"ours": nets.to_text(net), "stock": nets.to_text(stock.export(net))} for net in (training, inference)]
    return {
        "model": deploy.name or Path(folder).name,
        "batch": batch,
        "side": side,
        "classes": classes,
        "parameters": found.parameter_count,
        "training": texts[0],
        "inference": texts[1],
        **{name: _short(getattr(solver, name)) for name in ("base_lr", "momentum", "weight_decay")},
        "layers": _chain(found),
    }


def _chain(found: outline.Outline) -> list[dict[str, Any]]:
    """The layers between input and softmax, each of which reads the one before it."""
    if found.layers[-1].type != "Softmax":
        raise BenchmarkError(f"net {found.name!r} does not end in a Softmax layer")
    chain, before = [], found.layers[0].tops
    for layer, message in zip(found.layers[1:-1], found.net.layer[1:-1]):
        if layer.bottoms != before or len(layer.tops) != 1:
            raise BenchmarkError(f"net {found.name!r} is not a chain of layers: {layer.name} reads {layer.bottoms}")
        before = layer.tops
        values = _values(layer, message)
        if values is None:
            raise BenchmarkError(f"net {found.name!r}: PyTorch is not given layer {layer.name} ({layer.type})")
        chain.append({"type": layer.type, **values})
    return chain


def _values(layer: outline.Layer, message: caffe_pb2.LayerParameter) -> dict[str, Any] | None:
    """The settings of a layer for torch_worker; None if torch_worker does not support them."""
    if layer.type == "Convolution":
        param = message.convolution_param
        known = {"num_output", "kernel_size", "pad", "weight_filler", "bias_filler"}
        is_plain = {field.name for field, _ in param.ListFields()} <= known and len(param.kernel_size) == 1
        if not is_plain or len(param.pad) > 1:
            return None
        return {"outputs": param.num_output, "kernel": param.kernel_size[0], "pad": param.pad[0] if param.pad else 0}
    if layer.type == "Pooling":
        param = message.pooling_param
        is_plain = {field.name for field, _ in param.ListFields()} <= {"pool", "kernel_size", "stride"}
        is_plain = is_plain and param.pool == caffe_pb2.PoolingParameter.MAX
        return {"kernel": param.kernel_size, "stride": param.stride} if is_plain else None
    if layer.type == "InnerProduct":
        return {"outputs": message.inner_product_param.num_output, "inputs": layer.parameters[0][1]}
    if layer.type == "LReLU":
        param = message.relu_param
        return {"slope": _short(param.negative_slope) if param.HasField("negative_slope") else 0.01}
    plain = {"Power": {"scale": message.power_param.scale}, "PReLU": {}}
    plain["Dropout"] = {"ratio": _short(message.dropout_param.dropout_ratio)}
    plain["ReLU"] = None if message.relu_param.negative_slope else {}
    return plain.get(layer.type)


def _short(value: float) -> float:
    """A float32 as the shortest decimal number."""
    return float(f"{value:g}")
