"""Replacements for layers without their data or files, so that Caffe can shape the rest of the net."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import caffe
from caffe.proto import caffe_pb2
from google.protobuf.message import DecodeError

from tiny_imagenet.cli import did_you_mean
from tiny_imagenet.inspect import layer_fields

Shape = tuple[int, ...]

LARGEST = 2**31 - 1  # values in a blob
_MOST_TOPS = {"CropData": 3, "Data": 2, "ImageData": 2, "MemoryData": 2, "WindowData": 2}


@dataclass(frozen=True)
class Problem:
    """Why a layer has no shapes.

    Attributes:
        text: the error; "" if it lies in an earlier layer.
        field: path of the field in the layer's message, if the error is in one.
        certain: whether the layer is invalid; otherwise its data or code is missing.
    """

    text: str
    field: str = ""
    certain: bool = True


def stub(
    layer: caffe_pb2.LayerParameter, made: set[str], unknown: set[str], inputs: Mapping[str, Shape]
) -> caffe_pb2.LayerParameter | Problem:
    """Return a layer of the same shapes that Caffe can build, or the reason why it has no shapes.

    Args:
        layer: of today's format.
        made: blobs that earlier layers make.
        unknown: those of them without a shape.
        inputs: known shapes of the blobs of data layers.
    """
    problem = _wiring(layer, made)
    if problem:
        return problem
    shapes: list[Shape] | Problem | None = None
    if layer.type in layer_fields.DATA:
        shapes = _data(layer, inputs)
    elif layer.type == "Python":
        code = f"{layer.python_param.module}.{layer.python_param.layer}"
        unshaped = [top for top in layer.top if top not in inputs]
        missing = Problem(f"the output of {code} is unknown: add --shape {''.join(unshaped[:1])}=64,10", certain=False)
        shapes = missing if unshaped else [inputs[top] for top in layer.top]
    elif any(bottom in unknown for bottom in layer.bottom):
        shapes = Problem("")
    elif layer.type == "Input" and any(top in inputs for top in layer.top):
        dims = [tuple(shape.dim) for shape in layer.input_param.shape]
        dims = dims * len(layer.top) if len(dims) == 1 else dims
        shapes = [inputs.get(top, given) for top, given in zip(layer.top, dims)]
    if isinstance(shapes, Problem):
        return shapes
    result = caffe_pb2.LayerParameter()
    if shapes is not None:
        large = [shape for shape in shapes if min(shape, default=1) < 0 or math.prod(shape) > LARGEST]
        if large:
            return Problem(f"its shape would be {large[0]}, but a blob has at most {LARGEST} values")
        result = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
        for shape in shapes:
            result.input_param.shape.add(dim=shape)
        return result
    result.CopyFrom(layer)
    del result.blobs[:]
    for spec in result.param:
        spec.ClearField("name")  # sharing is checked by lint
    if layer.type == "HDF5Output":  # it would open its file
        result.type = "Silence"
    if layer.type == "InfogainLoss":
        result.infogain_loss_param.ClearField("source")
        if len(layer.bottom) == 2:
            result.type = "SoftmaxWithLoss"
    return result


def _wiring(layer: caffe_pb2.LayerParameter, made: set[str]) -> Problem | None:
    """An unknown type, or blobs that are missing or made twice."""
    if layer.type not in caffe.layer_type_list():
        return Problem(f"unknown layer type {layer.type!r}.{did_you_mean(layer.type, caffe.layer_type_list())}", "type")
    missing = [(i, bottom) for i, bottom in enumerate(layer.bottom) if bottom not in made]
    if missing:
        names = ", ".join(repr(bottom) for _, bottom in missing)
        hint = did_you_mean(missing[0][1], made) if len(missing) == 1 else ""
        return Problem(f"no earlier layer makes the blob {names}.{hint}", f"bottom[{missing[0][0]}]")
    for i, top in enumerate(layer.top):
        if top in made and top not in layer.bottom:
            return Problem(f"an earlier layer makes the blob {top!r} too", f"top[{i}]")
        if top in layer.top[:i]:
            return Problem(f"two tops are named {top!r}", f"top[{i}]")
    return None


def _data(layer: caffe_pb2.LayerParameter, inputs: Mapping[str, Shape]) -> list[Shape] | Problem:
    """The shapes of the tops of a data layer."""
    param, transform = layer_fields.of(layer), layer.transform_param
    if layer.bottom:
        return Problem("a data layer takes no bottom", "bottom[0]")
    if not 0 < len(layer.top) <= _MOST_TOPS.get(layer.type, LARGEST):
        return Problem(f"it has {len(layer.top)} tops, expected 1 to {_MOST_TOPS.get(layer.type, 'any number')}")
    if layer.type in layer_fields.READERS and not param.batch_size:
        return Problem("batch_size is missing or 0", f"{layer_fields.name(layer.type)}.batch_size")
    if transform.mean_file and transform.mean_value:
        return Problem("mean_file and mean_value exclude each other", "transform_param.mean_value")
    given = [inputs.get(top) for top in layer.top]
    if given[0] and len(given) == 2 and not given[1]:
        given[1] = (given[0][0],)  # a label per image
    if all(given):
        return given
    if layer.type == "HDF5Data":
        return _unknown(layer, f"the shape of its data is in its files ({param.source})")
    if layer.type == "MemoryData":
        images = (param.batch_size, param.channels, param.height, param.width)
    else:
        channels, *size = _picture(layer)
        crop = transform.crop_size or (param.crop_size if layer.type == "WindowData" else 0)
        if not crop and not size:
            return _unknown(layer, "the size of its images is unknown")
        images = (param.batch_size, channels, *((crop, crop) if crop else size))
    return [inputs.get(top, shape) for top, shape in zip(layer.top, [images, *([(images[0],)] * (len(layer.top) - 1))])]


def _unknown(layer: caffe_pb2.LayerParameter, why: str) -> Problem:
    return Problem(f"{why}: add --shape {layer.top[0]}=64,3,56,56", certain=False)


def _picture(layer: caffe_pb2.LayerParameter) -> tuple[int, ...]:
    """Channels, height and width of the images that a layer reads; only the channels if the size is unknown."""
    param = layer_fields.of(layer)
    if layer.type == "ImageData":
        size = (param.new_height, param.new_width) if param.new_height and param.new_width else ()
        return (3 if param.is_color else 1, *size)
    if layer.type in ("Data", "CropData") and param.source:
        first = _first_record(param.source)
        if first.channels and not first.encoded:
            return first.channels, first.height, first.width
    return (1 if layer.transform_param.force_gray else 3,)


def _first_record(path: str) -> caffe_pb2.Datum:
    """The first record of an LMDB, or an empty one."""
    import lmdb

    try:
        with lmdb.open(path, readonly=True, lock=False) as db, db.begin() as records:
            return caffe_pb2.Datum.FromString(next(iter(records.cursor().iternext(keys=False))))
    except (lmdb.Error, StopIteration, DecodeError):
        return caffe_pb2.Datum()
