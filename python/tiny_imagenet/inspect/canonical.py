"""Layers as messages in one form, so that what Caffe takes for the same is the same."""

from __future__ import annotations

import re

from caffe.proto import caffe_pb2

LRELU_SLOPE = 0.01  # of an LReLU layer that names none

# The parameters that a type reads, where they are not those of its own name (InnerProduct: inner_product_param).
_READS = {
    "BatchNorm": {"batch_norm_param"},
    "CropData": {"crop_data_param", "transform_param"},
    "Data": {"data_param", "transform_param"},
    "Deconvolution": {"convolution_param"},
    "HDF5Data": {"hdf5_data_param"},
    "HDF5Output": {"hdf5_output_param"},
    "Im2col": {"convolution_param"},
    "ImageData": {"image_data_param", "transform_param"},
    "InfogainLoss": {"infogain_loss_param", "softmax_param"},
    "LReLU": {"relu_param"},
    "LSTM": {"recurrent_param"},
    "MemoryData": {"memory_data_param", "transform_param"},
    "RNN": {"recurrent_param"},
    "SoftmaxWithLoss": {"softmax_param"},
    "WindowData": {"window_data_param", "transform_param"},
    "MultinomialLogisticLoss": set(),
    "EuclideanLoss": set(),
    "SigmoidCrossEntropyLoss": set(),
}
_AXES = {"kernel": "kernel_size", "stride": "stride", "pad": "pad"}
_UNSET = {"stride": 1, "pad": 0, "dilation": 1}


def idle(layer: caffe_pb2.LayerParameter) -> list[str]:
    """The names of those parameters of a layer that its type does not read."""
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z]|$)|[A-Z][a-z0-9]*", layer.type)
    reads = _READS.get(layer.type, {"_".join(words).lower() + "_param", f"{layer.type.lower()}_param"})
    fields = [field.name for field, _ in layer.ListFields()]
    return [name for name in fields if name.endswith("_param") and name not in reads | {"loss_param"}]


def layer(given: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    """A copy of a layer of today's format in which each thing is said in one way.

    What may be written in several ways: kernels, strides, pads and dilations (one number, one an axis, _h and _w,
    nothing for the default), shapes of Input and DummyData, LReLU's slope, a loss's weight of 1 where it is left out
    and weights of 0, Eltwise's coefficients of 1, BatchNorm's rates of 0, and `param` messages that say the defaults.
    Fields that hold their default stay as they are: reading them gives the same.
    """
    result = caffe_pb2.LayerParameter()
    result.CopyFrom(given)
    if result.HasField("convolution_param"):
        _window(result.convolution_param)
    if result.HasField("pooling_param"):
        _pool(result.pooling_param)
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
        result.ClearField("param")  # it learns nothing, whatever it says
    default = caffe_pb2.ParamSpec()
    while result.param and _same(result.param[-1], default):
        del result.param[-1]
    return result


def _shapes(param) -> None:
    """Shapes as one message a top; as one for all where they are the same. DummyData's old fields become such."""
    if param.DESCRIPTOR.name == "DummyDataParameter" and param.num:
        old = [getattr(param, name) for name in ("num", "channels", "height", "width")]
        count = max(map(len, old))
        shapes = [[sizes[i] if len(sizes) > 1 else sizes[0] for sizes in old if sizes] for i in range(count)]
        for name in ("num", "channels", "height", "width"):
            param.ClearField(name)
        for shape in shapes:
            param.shape.add(dim=shape)
    if len(param.shape) > 1 and all(shape == param.shape[0] for shape in param.shape):
        del param.shape[1:]


def _same(spec, other) -> bool:
    names = ("name", "share_mode", "lr_mult", "decay_mult")
    return all(getattr(spec, name) == getattr(other, name) for name in names)


def _window(param) -> None:
    """A convolution's sizes as one list each: a single number where all axes have the same."""
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


def _pool(param) -> None:
    """A pool's sizes in one field where both axes have the same."""
    if param.global_pooling:
        for name in ("kernel_size", "kernel_h", "kernel_w"):
            param.ClearField(name)
    for short, name in _AXES.items():
        high, wide = f"{short}_h", f"{short}_w"
        if param.HasField(high) and param.HasField(wide) and getattr(param, high) == getattr(param, wide):
            setattr(param, name, getattr(param, high))
            param.ClearField(high)
            param.ClearField(wide)
