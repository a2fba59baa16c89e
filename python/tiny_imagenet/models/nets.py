"""Nets as NetParameter messages: built from a row of the zoo, read from prototxt, fitted to a data set."""

from __future__ import annotations

import os
from pathlib import Path

from caffe import CaffeError, NetSpec, layers
from caffe.proto import caffe_pb2
from google.protobuf import message, text_format

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import derive, prototxt
from tiny_imagenet.models.zoo import Model

LMDB_TYPES = ("Data", "CropData")  # the layers that read an LMDB
DATA_FOLDER = "data"  # in the generated files; training replaces it by its --data
TEST_BATCH = 100


def build(model: Model) -> caffe_pb2.NetParameter:
    """Return the train_val net of a model: data layers, scaling, the model's layers, loss and accuracies.

    Pixels are scaled by a layer of the net, so that every use of the net includes the scaling.
    """
    spec, train = NetSpec(), NetSpec()
    train.data, train.label = _data(model, "TRAIN")
    spec.data, spec.label = _data(model, "TEST")
    spec.scaled = layers.Power(spec.data, power_param={"scale": model.input_scale})
    top = _fully_connected(spec, model, _convolutions(spec, model, spec.scaled))
    spec.loss = layers.SoftmaxWithLoss(top, spec.label)
    test = {"phase": caffe_pb2.TEST}
    spec.accuracy = layers.Accuracy(top, spec.label, include=test)
    if model.classes > 5:
        spec.accuracy_top5 = layers.Accuracy(top, spec.label, accuracy_param={"top_k": 5}, include=test)
    return caffe_pb2.NetParameter(name=model.name, layer=[*train.to_proto().layer, *spec.to_proto().layer])


def _data(model: Model, phase: str):
    training = phase == "TRAIN"
    draw = {"draw": caffe_pb2.CropDataParameter.Draw.Value(model.draw)} if training else {}
    return layers.CropData(
        ntop=2,
        include={"phase": getattr(caffe_pb2, phase)},
        transform_param={
            "mirror": training,
            "crop_size": model.crop,
            "mean_file": f"{DATA_FOLDER}/mean.binaryproto",
        },
        crop_data_param={
            "source": f"{DATA_FOLDER}/{model.train_lmdb if training else 'val.lmdb'}",
            "batch_size": model.batch if training else TEST_BATCH,
            **draw,
        },
    )


def _filled() -> dict:
    return {"weight_filler": {"type": "xavier"}, "bias_filler": {"type": "constant"}}


def _activation(model: Model, top):
    if model.activation == "LReLU":
        return layers.LReLU(top, in_place=True, relu_param={"negative_slope": model.negative_slope})
    return getattr(layers, model.activation)(top, in_place=True)


def _convolutions(spec: NetSpec, model: Model, top):
    for s, stage in enumerate(model.stages, 1):
        for conv in stage:
            top = spec[conv.name] = layers.Convolution(
                top,
                convolution_param={
                    "num_output": conv.outputs,
                    "kernel_size": conv.kernel,
                    "pad": conv.kernel // 2,
                    **({"bias_term": False, "weight_filler": {"type": "xavier"}} if model.batch_norm else _filled()),
                },
            )
            if model.batch_norm:
                top = spec[conv.name.replace("conv", "bn")] = layers.BatchNorm(top, in_place=True)
                scale = layers.Scale(top, in_place=True, scale_param={"bias_term": True})
                top = spec[conv.name.replace("conv", "scale")] = scale
            top = spec[conv.name.replace("conv", model.activation.lower())] = _activation(model, top)
        if s == model.drop_after_stage:
            top = _dropout(spec, f"drop_conv{s}", model, top)
        if s <= model.pools:
            pool = {"pool": caffe_pb2.PoolingParameter.MAX, "kernel_size": 2, "stride": 2}
            top = spec[f"pool{s}"] = layers.Pooling(top, pooling_param=pool)
    return top


def _dropout(spec: NetSpec, name: str, model: Model, top):
    if not model.dropout:
        return top
    spec[name] = layers.Dropout(top, in_place=True, dropout_param={"dropout_ratio": model.dropout})
    return spec[name]


def _fully_connected(spec: NetSpec, model: Model, top):
    for name, outputs in model.fully_connected:
        top = spec[name] = layers.InnerProduct(top, inner_product_param={"num_output": outputs, **_filled()})
        if name != "fc3":
            top = spec[f"relu_{name}"] = layers.ReLU(top, in_place=True)
            top = _dropout(spec, f"drop_{name}", model, top)
    return top


def read(path: str | os.PathLike[str]) -> caffe_pb2.NetParameter:
    """Read a net from a prototxt file and upgrade it to today's format.

    Raises:
        NetError: the file is missing, does not parse or has no layers.
    """
    net = derive.upgraded(prototxt.read(caffe_pb2.NetParameter(), path))
    if not net.layer:
        raise NetError(f"{path} has no layers: expected a net's prototxt")
    return net


def to_text(what) -> str:
    """Return a message as prototxt."""
    return text_format.MessageToString(what)


def lmdb_layers(net: caffe_pb2.NetParameter) -> list[caffe_pb2.LayerParameter]:
    """Return the data layers that read an LMDB, of both phases."""
    return [layer for layer in net.layer if layer.type in LMDB_TYPES]


def data_param(layer: caffe_pb2.LayerParameter):
    """Return the parameters of a layer of LMDB_TYPES that contain its source and batch_size."""
    return layer.crop_data_param if layer.type == "CropData" else layer.data_param


def is_training(layer: caffe_pb2.LayerParameter) -> bool:
    """Whether a data layer is one for training: its rules do not restrict it to phase TEST."""
    return not any(rule.phase == caffe_pb2.TEST for rule in layer.include)


def classifier(net: caffe_pb2.NetParameter) -> caffe_pb2.LayerParameter:
    """Return the layer whose outputs are the classes: the input of the softmax.

    Raises:
        NetError: the net has no softmax over an InnerProduct or Convolution layer.
    """
    for softmax in net.layer:
        if softmax.type in ("Softmax", "SoftmaxWithLoss") and softmax.bottom:
            for layer in reversed(net.layer):
                if softmax.bottom[0] in layer.top and layer.type in ("InnerProduct", "Convolution"):
                    return layer
    raise NetError(f"net {net.name!r} has no Softmax or SoftmaxWithLoss over an InnerProduct or Convolution layer")


def outputs(net: caffe_pb2.NetParameter) -> int:
    """Return the number of classes."""
    layer = classifier(net)
    return (layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param).num_output


def set_outputs(net: caffe_pb2.NetParameter, classes: int) -> None:
    """Set the number of classes."""
    layer = classifier(net)
    (layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param).num_output = classes


def nonlinearity(net: caffe_pb2.NetParameter) -> str:
    """Return the type of the activation after the first convolution, past batch normalization, or "none"."""
    tops: set[str] = set()
    for layer in net.layer:
        if not tops:
            tops = set(layer.top) if layer.type == "Convolution" else tops
        elif tops & set(layer.bottom):
            if layer.type not in ("BatchNorm", "Scale", "Bias"):
                return "none" if layer.type in ("Convolution", "InnerProduct") else layer.type
            tops |= set(layer.top)
    return "none"


def copy_weights(net, path: str | os.PathLike[str]) -> list[str]:
    """Copy the weights of a .caffemodel into the layers of the same names and return these names.

    Raises:
        NetError: the file is missing or not a caffemodel, none of its layers is in the net, or a shape differs.
    """
    try:
        stored = caffe_pb2.NetParameter.FromString(Path(path).read_bytes())
    except OSError as error:
        raise NetError(f"cannot read the weights {path}: {error.strerror}") from error
    except message.DecodeError as error:
        raise NetError(f"{path} is not a caffemodel") from error
    names = {layer.name for layer in (*stored.layer, *stored.layers) if layer.blobs}
    taken = [name for name in net.params if name in names]
    if not taken:
        has = ", ".join(sorted(names)) or "none"
        raise NetError(f"{path} has weights of {has}, but the net's layers are {', '.join(net.params)}")
    try:
        net.copy_from(os.fspath(path))
    except CaffeError as error:
        raise NetError(f"{path} does not fit the net: {error}") from error
    return taken


def crop_size(net: caffe_pb2.NetParameter) -> int:
    """Return the side of a deploy net's input in pixels.

    Raises:
        NetError: the first layer is not an Input of shape (N, 3, side, side).
    """
    first = net.layer[0]
    dims = list(first.input_param.shape[0].dim) if first.type == "Input" and first.input_param.shape else []
    if len(dims) != 4 or dims[1] != 3 or dims[2] != dims[3]:
        what = f"{first.type} of shape {tuple(dims)}" if dims else first.type
        raise NetError(f"the first layer of net {net.name!r} is {what}, expected an Input of shape (N, 3, side, side)")
    return dims[2]
