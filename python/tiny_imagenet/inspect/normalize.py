"""Layers in one form, so that equal settings compare equal."""

from __future__ import annotations

from caffe.proto import caffe_pb2
from google.protobuf.message import Message

from tiny_imagenet.inspect import layer_fields

LRELU_SLOPE = 0.01  # of an LReLU layer without a slope
_AXES = {"kernel": "kernel_size", "stride": "stride", "pad": "pad"}
_UNSET = {"stride": 1, "pad": 0, "dilation": 1}
_WHILE_TRAINING = (
    *("include", "exclude", "phase", "param", "blobs", "loss_weight", "loss_param", "propagate_down"),
    *("weight_filler", "bias_filler", "filler", "engine", "moving_average_fraction"),
)


def layer(given: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    """Return a copy of a layer of today's format in which each setting is written in one way.

    Settings with several forms: kernels, strides, pads and dilations (one number, one per axis, _h and _w, omitted),
    shapes of Input and DummyData, LReLU's slope, a loss weight of 1 or 0, Eltwise's coefficients of 1, BatchNorm's
    rates of 0, and `param` messages that repeat the defaults. Fields set to their default are not changed: reading them
    gives the same value.
    """
    result = caffe_pb2.LayerParameter()
    result.CopyFrom(given)
    if result.HasField("convolution_param"):
        _convolution(result.convolution_param)
    if result.HasField("pooling_param"):
        _pooling(result.pooling_param)
    if result.type == "LReLU" and not result.relu_param.HasField("negative_slope"):
        result.relu_param.negative_slope = LRELU_SLOPE
    if result.HasField("eltwise_param") and set(result.eltwise_param.coeff) == {1}:
        result.eltwise_param.ClearField("coeff")
    if "Loss" in result.type and not result.loss_weight:
        result.loss_weight.append(1)
    while result.loss_weight and not result.loss_weight[-1]:
        del result.loss_weight[-1]
    for name in ("input_param", "dummy_data_param"):
        if result.HasField(name):
            _shapes(getattr(result, name))
    if result.type == "BatchNorm" and all(spec.HasField("lr_mult") and not spec.lr_mult for spec in result.param):
        result.ClearField("param")  # its blobs are never learned
    while result.param and _is_default(result.param[-1]):
        del result.param[-1]
    return result


def _is_default(spec: caffe_pb2.ParamSpec) -> bool:
    return not spec.name and not spec.share_mode and spec.lr_mult == 1 and spec.decay_mult == 1


def computed(given: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    """Return the normalized layer with only those fields that affect its output in phase TEST, given its weights."""
    result = layer(given)
    result.type = {"LReLU": "ReLU"}.get(result.type, result.type)
    if result.type == "BatchNorm" and not result.batch_norm_param.HasField("use_global_stats"):
        result.batch_norm_param.use_global_stats = True
    for name in [*layer_fields.unread(result), *(["dropout_param"] if result.type == "Dropout" else [])]:
        result.ClearField(name)
    for shape in result.input_param.shape:
        shape.dim[:1] = [1] * len(shape.dim[:1])  # the batch
    _clear(result)
    return result


def _clear(message: Message) -> None:
    for field, value in message.ListFields():
        if field.name in _WHILE_TRAINING:
            message.ClearField(field.name)
        elif field.message_type is not None and not field.is_repeated:
            _clear(value)


def _shapes(param) -> None:
    """Write the shapes as `shape` messages: one per top, or one for all if they are equal."""
    if param.DESCRIPTOR.name == "DummyDataParameter" and param.num:  # its old fields
        old = [getattr(param, name) for name in ("num", "channels", "height", "width")]
        for i in range(max(map(len, old))):
            param.shape.add(dim=[sizes[i] if len(sizes) > 1 else sizes[0] for sizes in old if sizes])
        for name in ("num", "channels", "height", "width"):
            param.ClearField(name)
    if len(param.shape) > 1 and all(shape == param.shape[0] for shape in param.shape):
        del param.shape[1:]


def _convolution(param) -> None:
    """Write each size of a convolution as a list, of one value if it is the same for all axes."""
    for short, name in _AXES.items():
        high, wide = f"{short}_h", f"{short}_w"
        if param.HasField(high) or param.HasField(wide):
            getattr(param, name)[:] = [getattr(param, high), getattr(param, wide)]
            param.ClearField(high)
            param.ClearField(wide)
    for name in (*_AXES.values(), "dilation"):
        sizes = getattr(param, name)
        if not sizes and name in _UNSET:
            sizes.append(_UNSET[name])
        if len(set(sizes)) == 1:
            del sizes[1:]


def _pooling(param) -> None:
    """Write each size of a pool as one value if it is the same for both axes."""
    if param.global_pooling:
        for name in ("kernel_size", "kernel_h", "kernel_w"):
            param.ClearField(name)
    for short, name in _AXES.items():
        high, wide = f"{short}_h", f"{short}_w"
        if param.HasField(high) and param.HasField(wide) and getattr(param, high) == getattr(param, wide):
            setattr(param, name, getattr(param, high))
            param.ClearField(high)
            param.ClearField(wide)
