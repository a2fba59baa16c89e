"""Explanations of the layers that Caffe cannot shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from caffe.proto import caffe_pb2

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.errors import from_caffe
from tiny_imagenet.inspect import layer_fields
from tiny_imagenet.inspect.shape_stubs import Problem, Shape

_FILLERS = ("constant", "gaussian", "positive_unitball", "uniform", "xavier", "msra", "bilinear")
_WITH_OUTPUTS = ("Convolution", "Deconvolution", "InnerProduct", "Embed", "LSTM", "RNN")


def explain(layer: caffe_pb2.LayerParameter, bottoms: Sequence[Shape], text: str) -> Problem:
    """Return why Caffe cannot shape a layer, with the field that is wrong.

    Args:
        layer: the layer.
        bottoms: shapes of its inputs.
        text: Caffe's error message, which is the answer if the error is none of the usual ones.
    """
    found = next(_usual(layer, bottoms), None)
    if found:
        return found
    reason = from_caffe(text.removeprefix(f"layer {layer.name} ({layer.type}): "))
    field = reason.partition(" is ")[0]
    return Problem(reason, field if layer_fields.has(layer, field) else layer_fields.name(layer.type))


def _usual(layer: caffe_pb2.LayerParameter, bottoms: Sequence[Shape]) -> Iterator[Problem]:
    own, param = layer_fields.name(layer.type), layer_fields.of(layer)
    if layer.type in _WITH_OUTPUTS and not param.num_output:
        yield Problem("num_output is missing or 0", f"{own}.num_output")
    for field, value in param.ListFields():
        if field.name.endswith("filler") and value.type not in _FILLERS:
            hint = did_you_mean(value.type, _FILLERS)
            yield Problem(f"unknown filler {value.type!r}.{hint}", f"{own}.{field.name}.type")
    if layer.type in ("Convolution", "Pooling") and bottoms and len(bottoms[0]) == 4:
        yield from _window(layer, param, own, bottoms[0])
    if layer.type == "Convolution" and bottoms and param.group > 1:
        for size, what in ((bottoms[0][1], "input channels"), (param.num_output, "outputs")):
            if size % param.group:
                yield Problem(f"group {param.group} does not divide its {size} {what}", f"{own}.group")
    if layer.type in ("Eltwise", "Concat"):
        axis = param.axis % len(bottoms[0]) if layer.type == "Concat" and bottoms and bottoms[0] else None
        for i, shape in enumerate(bottoms):
            same = [n for k, n in enumerate(shape) if k != axis] == [n for k, n in enumerate(bottoms[0]) if k != axis]
            if not same:
                what = f"{layer.bottom[i]} is {_text(shape)}, but {layer.bottom[0]} is {_text(bottoms[0])}"
                yield Problem(f"its inputs do not fit: {what}", f"bottom[{i}]")


def _window(layer: caffe_pb2.LayerParameter, param, own: str, bottom: Shape) -> Iterator[Problem]:
    """A kernel that is missing or larger than its input."""
    if layer.type == "Pooling" and param.global_pooling:
        return
    for axis, letter in enumerate("hw"):
        kernel, field = _size(param, "kernel_size", f"kernel_{letter}", axis)
        pad, pad_field = _size(param, "pad", f"pad_{letter}", axis)
        dilation = _size(param, "dilation", "dilation", axis)[0] or 1 if layer.type == "Convolution" else 1
        if not kernel:
            yield Problem("kernel_size is missing or 0", f"{own}.{field}")
        elif layer.type == "Pooling" and pad >= kernel:
            yield Problem(f"{pad_field} {pad} is not smaller than {field} {kernel}", f"{own}.{pad_field}")
        elif dilation * (kernel - 1) + 1 > bottom[2 + axis] + 2 * pad:
            spans = f", dilated by {dilation}," if dilation > 1 else ""
            padded = f" padded by {pad}" if pad else ""
            text = f"{field} {kernel}{spans} is larger than its {bottom[2 + axis]}-pixel input{padded}"
            yield Problem(text, f"{own}.{field}")


def _size(param, name: str, of_axis: str, axis: int) -> tuple[int, str]:
    """A size along an axis and the field that sets it: one number, one per axis, or _h and _w."""
    if getattr(param, of_axis) and name != of_axis:
        return getattr(param, of_axis), of_axis
    value = getattr(param, name)
    if isinstance(value, int):
        return value, name
    return (value[min(axis, len(value) - 1)] if value else 0), name


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single value"
