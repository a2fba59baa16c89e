"""What stands in for layers whose data or files are not here, so that Caffe can shape what follows them."""

from __future__ import annotations

import difflib
import math
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import message

Shape = tuple[int, ...]

DATA_TYPES = ("Data", "CropData", "ImageData", "WindowData", "MemoryData", "HDF5Data")
FILE_TYPES = ("HDF5Output",)  # would open their files


class Sources:
    """Shapes of what data layers make."""

    def __init__(self, inputs: dict[str, Shape]):
        self.inputs = inputs

    def shapes(self, layer: caffe_pb2.LayerParameter) -> list[Shape] | str:
        """Of the tops of a data layer, or why they cannot be told."""
        given = [self.inputs.get(top) for top in layer.top]
        if given and given[0] and len(given) == 2 and not given[1]:
            given[1] = (given[0][0],)  # a label an image
        if all(given):
            return given
        images = getattr(self, f"_{layer.type.lower()}")(layer)
        if isinstance(images, str):
            return f"{images}: give it, as in --shape {layer.top[0]}=64,3,56,56"
        shapes = [images, *([(images[0],)] * (len(layer.top) - 1))]
        return [self.inputs.get(top, shape) for top, shape in zip(layer.top, shapes)]

    def _data(self, layer, param=None):
        param = param or layer.data_param
        return self._crop(layer, param.batch_size, self._stored(param.source))

    def _cropdata(self, layer):
        return self._data(layer, layer.crop_data_param)

    def _imagedata(self, layer):
        param = layer.image_data_param
        size = (param.new_height, param.new_width) if param.new_height and param.new_width else None
        stored = (3 if param.is_color else 1, *size) if size else None
        return self._crop(layer, param.batch_size, stored, 3 if param.is_color else 1)

    def _windowdata(self, layer):
        param = layer.window_data_param
        crop = param.crop_size or layer.transform_param.crop_size
        return (param.batch_size, 3, crop, crop) if crop else "its size is not told"

    def _memorydata(self, layer):
        param = layer.memory_data_param
        return (param.batch_size, param.channels, param.height, param.width)

    def _hdf5data(self, layer):
        return f"the shape of its data is in its files ({layer.hdf5_data_param.source})"

    def _python(self, layer):
        return f"what it does is in Python ({layer.python_param.module}.{layer.python_param.layer})"

    def _crop(self, layer, batch, stored, channels=None):
        crop = layer.transform_param.crop_size
        if not crop and not stored:
            return "its size is that of its images, which are not here"
        if channels is None:
            channels = stored[0] if stored else 1 if layer.transform_param.force_gray else 3
        return (batch, channels, crop or stored[1], crop or stored[2])

    def _stored(self, source):
        """The shape of the first record of an LMDB, where there is one."""
        import lmdb

        path = Path(source)
        if not source or not (path / "data.mdb").is_file():
            return None
        try:
            with lmdb.open(str(path), readonly=True, lock=False) as db, db.begin() as records:
                first = next(iter(records.cursor().iternext(keys=False)))
            datum = caffe_pb2.Datum.FromString(first)
        except (lmdb.Error, StopIteration, message.DecodeError):
            return None
        return None if datum.encoded else (datum.channels, datum.height, datum.width)


def stand_in(layer, made, unknown, sources):
    """What is built in place of a layer; where nothing can be, the reason ("": a layer before it)."""
    if layer.type not in caffe.layer_type_list():
        return f"there is no layer type {layer.type!r}{_close(layer.type)}"
    for bottom in layer.bottom:
        if bottom not in made:
            return f"there is no blob {bottom!r} before it{_close(bottom, made)}"
    for top in layer.top:
        if top in made and top not in layer.bottom:
            return f"another layer makes a blob {top!r} already"
    if len(set(layer.top)) < len(layer.top):
        return "two of its tops have one name"
    if layer.type in DATA_TYPES or (layer.type == "Python" and all(top in sources.inputs for top in layer.top)):
        shapes = sources.shapes(layer)
        if isinstance(shapes, str):
            return shapes
        bad = next((s for s in shapes if min(s, default=1) < 0 or math.prod(s) > 2**31 - 1), None)
        if bad:
            return f"its shape would be {bad}"
        return _input(layer, shapes)
    if layer.type == "Python":
        return f"{sources._python(layer)}: give its tops' shapes, as in --shape {''.join(layer.top[:1])}=64,10"
    if any(bottom in unknown for bottom in layer.bottom):
        return ""
    if layer.type == "Input" and any(top in sources.inputs for top in layer.top):
        dims = [tuple(shape.dim) for shape in layer.input_param.shape]
        dims = dims * len(layer.top) if len(dims) == 1 else dims
        return _input(layer, [sources.inputs.get(top, d) for top, d in zip(layer.top, dims)])
    stand_in = caffe_pb2.LayerParameter()
    stand_in.CopyFrom(layer)
    del stand_in.blobs[:]
    if layer.type in FILE_TYPES:
        stand_in.type = "Silence"
    if layer.type == "InfogainLoss":
        stand_in.infogain_loss_param.ClearField("source")
        if len(layer.bottom) == 2:
            stand_in.type = "SoftmaxWithLoss"
    return stand_in


def _input(layer, shapes):
    stand_in = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
    for shape in shapes:
        stand_in.input_param.shape.add(dim=shape)
    return stand_in


def _close(word, words=None):
    close = difflib.get_close_matches(word, caffe.layer_type_list() if words is None else words, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
