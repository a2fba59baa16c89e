"""What stands in for layers whose data or files are not here, so that Caffe can shape what follows them."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from pathlib import Path

import caffe
from caffe.proto import caffe_pb2
from google.protobuf import message

Shape = tuple[int, ...]

SOURCE_TYPES = ("Data", "CropData", "ImageData", "WindowData", "MemoryData", "HDF5Data")
FILE_TYPES = ("HDF5Output",)  # would open their files
LARGEST = 2**31 - 1  # values in a blob
_MOST_TOPS = {"CropData": 3, "Data": 2, "ImageData": 2, "MemoryData": 2, "WindowData": 2}
_PARAMS = {
    "CropData": "crop_data_param",
    "Data": "data_param",
    "ImageData": "image_data_param",
    "MemoryData": "memory_data_param",
    "WindowData": "window_data_param",
}


@dataclass(frozen=True)
class Problem:
    """Why a layer has no shapes.

    Attributes:
        text: what is wrong, or missing; "" where a layer before it is the reason.
        field: of the layer's message, where it is one field's.
        certain: whether the layer is wrong; else only its data, or its code, is not here.
    """

    text: str
    field: str = ""
    certain: bool = True


class Sources:
    """Shapes of what data layers make."""

    def __init__(self, inputs: dict[str, Shape]):
        self.inputs = inputs

    def shapes(self, layer: caffe_pb2.LayerParameter) -> list[Shape] | Problem:
        """Of the tops of a data layer, or why there are none."""
        wrong = self._wrong(layer)
        if wrong:
            return wrong
        given = [self.inputs.get(top) for top in layer.top]
        if given and given[0] and len(given) == 2 and not given[1]:
            given[1] = (given[0][0],)  # a label an image
        if all(given):
            return given
        images = getattr(self, f"_{layer.type.lower()}")(layer)
        if isinstance(images, str):
            return Problem(f"{images}: give it, as in --shape {layer.top[0]}=64,3,56,56", certain=False)
        shapes = [images, *([(images[0],)] * (len(layer.top) - 1))]
        return [self.inputs.get(top, shape) for top, shape in zip(layer.top, shapes)]

    def _wrong(self, layer) -> Problem | None:
        """What Caffe has against a data layer before it looks at its data."""
        param = _PARAMS.get(layer.type, "")
        if layer.bottom:
            return Problem("it has a bottom, and takes none", "bottom[0]")
        if not layer.top:
            return Problem("it has no top")
        if len(layer.top) > _MOST_TOPS.get(layer.type, LARGEST):
            return Problem(f"it has {len(layer.top)} tops, and gives at most {_MOST_TOPS[layer.type]}")
        if param and not getattr(layer, param).batch_size:
            return Problem("it needs a batch_size of at least 1", param)
        if layer.transform_param.mean_file and layer.transform_param.mean_value:
            return Problem("mean_file and mean_value exclude each other", "transform_param")
        return None

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
    """What is built in place of a layer; where nothing can be, the Problem."""
    if layer.type not in caffe.layer_type_list():
        return Problem(f"there is no layer type {layer.type!r}{_close(layer.type)}", "type")
    for i, bottom in enumerate(layer.bottom):
        if bottom not in made:
            return Problem(f"there is no blob {bottom!r} before it{_close(bottom, made)}", f"bottom[{i}]")
    for i, top in enumerate(layer.top):
        if top in made and top not in layer.bottom:
            return Problem(f"another layer makes a blob {top!r} already", f"top[{i}]")
    if len(set(layer.top)) < len(layer.top):
        return Problem("two of its tops have one name", "top[1]")
    if layer.type in SOURCE_TYPES or (layer.type == "Python" and all(top in sources.inputs for top in layer.top)):
        shapes = sources.shapes(layer)
        return shapes if isinstance(shapes, Problem) else _input(layer, shapes)
    if layer.type == "Python":
        what = f"{sources._python(layer)}: give its tops' shapes, as in --shape {''.join(layer.top[:1])}=64,10"
        return Problem(what, certain=False)
    if any(bottom in unknown for bottom in layer.bottom):
        return Problem("")
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
    bad = next((shape for shape in shapes if min(shape, default=1) < 0 or math.prod(shape) > LARGEST), None)
    if bad:
        return Problem(f"its shape would be {bad}: at most {LARGEST} values are in a blob")
    stand_in = caffe_pb2.LayerParameter(name=layer.name, type="Input", top=layer.top)
    for shape in shapes:
        stand_in.input_param.shape.add(dim=shape)
    return stand_in


def _close(word, words=None):
    close = difflib.get_close_matches(word, caffe.layer_type_list() if words is None else words, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
