"""Deploy and evaluation nets, derived from a train_val.prototxt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError, from_caffe

CROPS = 10  # per picture with ten_crop

_SOFTMAX_LOSSES = ("SoftmaxWithLoss", "InfogainLoss")
_CONSTANTS = ("DummyData", "Parameter")  # layers without a bottom that are not an input
_ENDS = ("Accuracy", "ArgMax", "HDF5Output", "Silence")  # may read the probabilities; so may losses
_SIZED = {"ImageData": ("new_height", "new_width"), "MemoryData": ("height", "width")}

Layer = caffe_pb2.LayerParameter


def filtered(net: caffe_pb2.NetParameter, phase: int) -> caffe_pb2.NetParameter:
    """The net that Caffe builds in a phase: upgraded to today's format, include and exclude rules applied.

    Args:
        net: of any format; its `state` supplies the level and stages.
        phase: caffe.TRAIN or caffe.TEST.

    Raises:
        NetError: Caffe cannot upgrade the net.
    """
    try:
        return _caffe._inspect.resolve(net, phase, net.state.level)
    except caffe.CaffeError as error:
        raise NetError(from_caffe(str(error))) from error


def upgraded(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """A copy of the net in today's format, with the layers of all phases.

    Raises:
        NetError: Caffe cannot upgrade the net.
    """
    try:
        return _caffe._inspect.upgrade(net)
    except caffe.CaffeError as error:
        raise NetError(from_caffe(str(error))) from error


def deploy(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """The net for prediction: an Input of shape (1, channels, height, width), the TEST-phase layers and a Softmax.

    The classes are those of the last softmax loss. Losses, accuracies and layers that lead only to them are left out.
    The last layer is the Softmax.

    Raises:
        NetError: the net has no softmax or not exactly one input, or the size of its pictures is unknown.
    """
    parts = _parts(net)
    source = Layer(name=parts.source.name, type="Input", top=[parts.blob])
    source.input_param.shape.add(dim=_shape(parts.source, parts.blob))
    return _join(net, source, parts)


def evaluation(
    net: caffe_pb2.NetParameter,
    lmdb: str | os.PathLike[str],
    mean: str | os.PathLike[str] | None,
    batch: int,
    ten_crop: bool = False,
) -> caffe_pb2.NetParameter:
    """The net for evaluation: a CropData layer that reads an LMDB in order, the TEST-phase layers, a Softmax.

    The first layer's tops are the pictures, their labels and their record numbers; the last layer is the Softmax.

    Args:
        net: a train_val net, or a deploy net.
        lmdb: the LMDB's folder.
        mean: the mean image, which replaces the mean_file of the data layer; ignored for a data layer without one.
        batch: records per batch.
        ten_crop: ten samples per record, its ten crops in order, instead of the centre crop.

    Raises:
        NetError: the net has no softmax or not exactly one input, or its input is not square.
    """
    parts = _parts(net)
    taken = [Layer(top=[parts.blob]), *parts.body, parts.softmax]
    tops = [parts.blob, _free("label", taken), _free("record", taken)]
    source = Layer(name=parts.source.name, type="CropData", top=tops)
    source.transform_param.CopyFrom(parts.source.transform_param)
    transform, param = source.transform_param, source.crop_data_param
    transform.ClearField("mirror")
    if parts.source.type not in ("Data", "CropData") and not transform.crop_size:
        _, _, transform.crop_size, width = _shape(parts.source, parts.blob)
        if transform.crop_size != width:
            raise NetError(f"the input of net {net.name!r} is {transform.crop_size}x{width}: expected a square")
    if mean is not None and (parts.source.type == "Input" or transform.mean_file):
        transform.mean_file = os.fspath(mean)
    param.source = os.fspath(lmdb)
    param.batch_size = batch * (CROPS if ten_crop else 1)
    param.seed = 0  # without one, the layer would draw from Caffe's generator
    if ten_crop:
        param.draw = caffe_pb2.CropDataParameter.TEN_CROP
    return _join(net, source, parts)


class _Parts(NamedTuple):
    """The layer that supplies the pictures, their blob, the layers up to the class scores, and the Softmax."""

    source: Layer
    blob: str
    body: list[Layer]
    softmax: Layer


def _parts(net: caffe_pb2.NetParameter) -> _Parts:
    """The parts of the net in phase TEST; a part that it has in phase TRAIN only is taken from there."""
    layers = list(filtered(net, caffe.TEST).layer)
    others = list(filtered(net, caffe.TRAIN).layer)
    end, softmax = _head(net, layers, others)
    body, needed = [], set(softmax.bottom)
    for layer in reversed(layers[:end]):
        if needed.intersection(layer.top):
            body.insert(0, layer)
            needed.update(layer.bottom)
    made = {top for layer in body for top in layer.top}
    sources = [layer for layer in body if _is_source(layer)]
    sources += [layer for layer in others if _is_source(layer) and set(layer.top) & (needed - made)]
    made.update(top for layer in sources for top in layer.top)
    if needed - made:
        raise NetError(f"net {net.name!r} has no layer that makes the blob {min(needed - made)!r}")
    inputs = [(layer, top) for layer in sources for top in layer.top if top in needed]
    if len(inputs) != 1:
        names = ", ".join(top for _, top in inputs) or "none"
        raise NetError(f"net {net.name!r} must have one input that leads to its softmax, it has {len(inputs)}: {names}")
    (source, blob), body = inputs[0], [layer for layer in body if not _is_source(layer)]
    return _Parts(source, blob, body, softmax)


def _head(net: caffe_pb2.NetParameter, layers: Sequence[Layer], others: Sequence[Layer]) -> tuple[int, Layer]:
    """How many layers compute the class scores, at most, and the Softmax over these."""
    for i in reversed(range(len(layers))):
        if layers[i].type in _SOFTMAX_LOSSES and layers[i].bottom:
            return i, _softmax(layers[i], layers)
    for i in reversed(range(len(layers))):
        if layers[i].type == "Softmax":
            readers = [layer for layer in layers[i + 1 :] if set(layers[i].top) & set(layer.bottom)]
            if all(layer.type in _ENDS or "Loss" in layer.type for layer in readers):
                return i, layers[i]
    for loss in reversed(others):
        if loss.type in _SOFTMAX_LOSSES and any(set(loss.bottom[:1]) & set(layer.top) for layer in layers):
            return len(layers), _softmax(loss, layers)
    raise NetError(f"net {net.name!r} does not end in a Softmax or SoftmaxWithLoss: the classes are not known")


def _softmax(loss: Layer, layers: Iterable[Layer]) -> Layer:
    """The Softmax for a softmax loss: that of the net if it has one over the same scores, else a new one."""
    scores = loss.bottom[0]
    for layer in layers:
        if layer.type == "Softmax" and layer.bottom[0] == scores and layer.top[0] != scores:
            return layer
    name = _free("prob", layers)
    softmax = Layer(name=name, type="Softmax", bottom=[scores], top=[name])
    if loss.HasField("softmax_param"):
        softmax.softmax_param.CopyFrom(loss.softmax_param)
    return softmax


def _free(name: str, layers: Iterable[Layer]) -> str:
    """A name that none of the layers nor their blobs has: `name`, or that with underscores."""
    taken = {name for layer in layers for name in (layer.name, *layer.top)}
    while name in taken:
        name += "_"
    return name


def _is_source(layer: Layer) -> bool:
    return not layer.bottom and layer.type not in _CONSTANTS


def _shape(source: Layer, blob: str) -> list[int]:
    """The shape of an input blob, [N, channels, height, width]: N is 1, or that of the Input layer."""
    if source.type == "Input":
        shapes = source.input_param.shape
        dims = list(shapes[list(source.top).index(blob) if len(shapes) > 1 else 0].dim) if shapes else []
        if len(dims) != 4:
            raise NetError(f"layer {source.name!r} has the shape {dims}: expected (N, channels, height, width)")
        return dims
    channels = source.memory_data_param.channels or (1 if source.transform_param.force_gray else 3)
    side = source.transform_param.crop_size or source.window_data_param.crop_size
    height, width = _SIZED.get(source.type, ("", ""))
    param = source.image_data_param if source.type == "ImageData" else source.memory_data_param
    if not side and height and getattr(param, height):
        return [1, channels, getattr(param, height), getattr(param, width)]
    if not side:
        return [1, *_stored(source)]
    return [1, channels, side, side]


def _stored(source: Layer) -> tuple[int, ...]:
    """The shape of the pictures in the LMDB of a data layer without crop_size."""
    lmdb = (source.crop_data_param if source.type == "CropData" else source.data_param).source
    try:
        return caffe.LmdbRecords(lmdb).image(0).shape
    except caffe.CaffeError as error:
        raise NetError(
            f"layer {source.name!r} ({source.type}) has no crop_size, and the size of its pictures is unknown ({error})"
        ) from error


def _join(net: caffe_pb2.NetParameter, source: Layer, parts: _Parts) -> caffe_pb2.NetParameter:
    result = caffe_pb2.NetParameter(name=net.name)
    result.layer.extend([source, *parts.body])
    read = {bottom for layer in (*parts.body, parts.softmax) for bottom in layer.bottom}
    unread = [top for layer in parts.body for top in layer.top if top not in read]
    if unread:  # such as an output of a Slice that led to an auxiliary loss
        result.layer.append(Layer(name="silence", type="Silence", bottom=unread))
    result.layer.append(parts.softmax)
    for layer in result.layer:
        for field in ("include", "exclude", "loss_weight"):
            layer.ClearField(field)
    return result
