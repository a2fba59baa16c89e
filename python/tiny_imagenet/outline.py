"""A net layer by layer as Caffe shapes it, without its weights, its data or its files.

Works on any Caffe prototxt, old formats included. Where a layer cannot be shaped (its data set is not there, it is
written in Python, or it is wrong), it and what follows from it have no shapes, and `problem` says why; the rest has.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2
from google.protobuf import message

from tiny_imagenet.errors import NetError

FLOAT = 4  # bytes
RECURRENT = ("LSTM", "RNN")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a net.

    Attributes:
        name, type: as in the prototxt.
        bottoms, tops: names of its blobs.
        shapes: of its tops; None where they are not known.
        parameters: shapes of its weights, biases and the like.
        shared: of each parameter, whether it is another layer's (`param { name }`).
        in_place: whether its tops are its bottoms.
        multiply_adds: of its weights, for the whole batch; None where shapes are not known.
        problem: why it has no shapes; "" where it has, or where a layer before it is the reason.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...] | None = None
    parameters: tuple[Shape, ...] = ()
    shared: tuple[bool, ...] = ()
    in_place: bool = False
    multiply_adds: int | None = None
    problem: str = ""

    @property
    def parameter_count(self) -> int:
        """Values in its own parameters."""
        return sum(math.prod(s) for s, shared in zip(self.parameters, self.shared) if not shared)

    @property
    def activation_bytes(self) -> int:
        """Bytes of its tops in float32, 0 for those that it shares with its bottoms."""
        return 0 if self.in_place or not self.shapes else FLOAT * sum(map(math.prod, self.shapes))


@dataclass(frozen=True)
class Outline:
    """A net in one phase.

    Attributes:
        name: the net's.
        phase: "TRAIN" or "TEST".
        layers: in order.
        net: what they were shaped from: upgraded to today's format, the layers of this phase alone.
    """

    name: str
    phase: str
    layers: tuple[Layer, ...]
    net: caffe_pb2.NetParameter = field(repr=False, compare=False)

    @property
    def whole(self) -> bool:
        """Whether every layer has its shapes."""
        return all(layer.shapes is not None for layer in self.layers)

    @property
    def batch(self) -> int:
        """Images that go through the net at once: the first axis of its first blob; 1 where that is not known."""
        first = next((layer for layer in self.layers if layer.shapes and layer.shapes[0]), None)
        return max(first.shapes[0][0], 1) if first else 1

    @property
    def parameter_count(self) -> int:
        return sum(layer.parameter_count for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Of one image."""
        return sum(layer.multiply_adds or 0 for layer in self.layers) // self.batch

    @property
    def activation_bytes(self) -> int:
        """Of one image."""
        return sum(layer.activation_bytes for layer in self.layers) // self.batch

    def training_bytes(self, history: int = 1) -> int:
        """What training takes at the least: all blobs and all parameters with their gradients, and the solver's memory.

        Args:
            history: blobs that the solver keeps for each parameter.
        """
        blobs = 2 * sum(layer.activation_bytes for layer in self.layers)
        return blobs + (2 + history) * FLOAT * self.parameter_count


def default_phase(net: caffe_pb2.NetParameter) -> str:
    """TRAIN for a net that has layers for training alone or a loss, else TEST."""
    layers = [*net.layer, *net.layers]
    rules = any(rule.phase == caffe_pb2.TRAIN and rule.HasField("phase") for la in layers for rule in la.include)
    return "TRAIN" if rules or any("LOSS" in type_name(layer).upper() for layer in layers) else "TEST"


def type_name(layer) -> str:
    """The type of a layer of either format, as a prototxt writes it."""
    if isinstance(layer, caffe_pb2.V1LayerParameter):
        return (
            caffe_pb2.V1LayerParameter.LayerType.Name(layer.type) if not layer.HasField("layer") else layer.layer.type
        )
    return layer.type


def outline(
    net: caffe_pb2.NetParameter,
    phase: str | None = None,
    stages: Iterable[str] = (),
    inputs: Mapping[str, Shape] | None = None,
) -> Outline:
    """The layers of a net with their shapes. Relative paths in it start at the working folder, as Caffe's do.

    Args:
        net: of any format.
        phase: "TRAIN" or "TEST" (default: what `default_phase` says).
        stages: what include and exclude rules ask for.
        inputs: shapes of blobs that data layers make, by blob, in place of those that can be told.

    Raises:
        NetError: the net as a whole cannot be read by Caffe.
    """
    phase = phase or default_phase(net)
    try:
        resolved = _caffe._inspect.resolve(net, getattr(caffe, phase), 0, list(stages))
    except caffe.CaffeError as error:
        raise NetError(str(error)) from error
    sources = _Sources(dict(inputs or {}))
    problems: dict[int, str] = {}
    unknown: set[str] = set()
    made: set[str] = set()
    kept: list[tuple[int, caffe_pb2.LayerParameter]] = []
    for i, layer in enumerate(resolved.layer):
        stand_in = _stand_in(layer, made, unknown, sources)
        if isinstance(stand_in, str):
            problems[i] = stand_in
            unknown.update(layer.top)
        else:
            kept.append((i, stand_in))
            unknown.difference_update(layer.top)
        made.update(layer.top)
    built = _build(resolved, kept, problems)
    return Outline(resolved.name, phase, tuple(_rows(resolved, kept, problems, built)), resolved)


class _Sources:
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


DATA_TYPES = ("Data", "CropData", "ImageData", "WindowData", "MemoryData", "HDF5Data")
FILE_TYPES = ("HDF5Output",)  # would open their files


def _stand_in(layer, made, unknown, sources):
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


def _build(resolved, kept, problems):
    """The net of the kept layers; those that Caffe refuses move to `problems`, and what follows from them goes too."""
    while kept:
        net = caffe_pb2.NetParameter(name=resolved.name, state=resolved.state, force_backward=resolved.force_backward)
        net.layer.extend(layer for _, layer in kept)
        try:
            return _caffe._inspect.outline(net)
        except caffe.CaffeError as error:
            text = str(error)
            named = [k for k, (_, layer) in enumerate(kept) if text.startswith(f"layer {layer.name} ({layer.type}): ")]
            if not named:
                raise NetError(text) from error
            number, layer = kept[named[0]]
            problems[number] = re.sub(r"^layer .*? \(\w*\): (Check failed: )?", "", text)
            lost = set(layer.top)
            del kept[named[0]]
            for k, (later, after) in list(enumerate(kept)):
                if later > number and lost & set(after.bottom):
                    lost.update(after.top)
                    kept[k] = None
                    problems.setdefault(later, "")
            kept[:] = [item for item in kept if item is not None]
    return None


def _rows(resolved, kept, problems, built):
    index = dict(kept)
    blobs = built.blobs if built else {}
    layers = _in_order(kept, built) if built else {}
    owners: dict[str, str] = {}
    for i, layer in enumerate(resolved.layer):
        names = {"bottoms": tuple(layer.bottom), "tops": tuple(layer.top)}
        if i not in index:
            yield Layer(layer.name, layer.type, **names, problem=problems.get(i, ""))
            continue
        shapes = tuple(tuple(blobs[top].shape) for top in layer.top)
        parameters = tuple(tuple(blob.shape) for blob in layers[i].blobs)
        shared = []
        for k in range(len(parameters)):
            name = layer.param[k].name if k < len(layer.param) else ""
            shared.append(bool(name) and owners.setdefault(name, layer.name) != layer.name)
        yield Layer(
            layer.name,
            layer.type,
            **names,
            shapes=shapes,
            parameters=parameters,
            shared=tuple(shared),
            in_place=bool(layer.top) and set(layer.top) <= set(layer.bottom),
            multiply_adds=_multiply_adds(layer, blobs, shapes, parameters),
        )


def _in_order(kept, built):
    """The built layers by number; between them are those that Caffe adds where a blob is read twice."""
    found, wanted = {}, iter(kept)
    number, layer = next(wanted)
    for name, built_layer in zip(built._layer_names, built.layers):
        if name == layer.name:
            found[number] = built_layer
            number, layer = next(wanted, (None, layer))
            if number is None:
                break
    return found


def _multiply_adds(layer, blobs, shapes, parameters) -> int:
    """Of convolutions, inner products and recurrent layers; what others do is small beside them and counts as 0."""
    if not parameters:
        return 0
    weights = math.prod(parameters[0])
    if layer.type == "Convolution":
        axis = layer.convolution_param.axis % max(len(shapes[0]), 1)
        places = sum(math.prod(s[:axis]) * math.prod(s[axis + 1 :]) for s in shapes)
        return places * weights
    if layer.type == "Deconvolution":
        bottom = tuple(blobs[layer.bottom[0]].shape)
        axis = layer.convolution_param.axis % max(len(bottom), 1)
        return len(shapes) * math.prod(bottom[:axis]) * math.prod(bottom[axis + 1 :]) * weights
    if layer.type == "InnerProduct":
        return math.prod(shapes[0]) // layer.inner_product_param.num_output * weights
    if layer.type in RECURRENT:
        return math.prod(shapes[0][:2]) * sum(math.prod(s) for s in parameters if len(s) > 1)
    return 0
