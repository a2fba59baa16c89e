"""A net layer by layer with the shapes that Caffe gives it, without its weights, data or files.

Works for any Caffe prototxt, old formats included. A layer that cannot be shaped (its data is missing, it is written in
Python, or it is invalid) has a `problem`; it and the layers that depend on it have no shapes.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError, from_caffe
from tiny_imagenet.inspect import costs, shape_errors, shape_stubs
from tiny_imagenet.inspect.costs import FLOAT
from tiny_imagenet.inspect.shape_stubs import Problem, Shape

_Stubs = dict[int, caffe_pb2.LayerParameter]  # by the layer's number


@dataclass(frozen=True)
class Layer:
    """A layer of a net.

    Attributes:
        name, type: as in the prototxt.
        bottoms, tops: names of its blobs.
        shapes: of its tops; None if unknown.
        parameters: shapes of its weights, biases and other parameters.
        shared: for each parameter, whether an earlier layer owns it (`param { name }`).
        in_place: whether its tops are its bottoms.
        multiply_adds: with its weights, for the whole batch; None if the shapes are unknown.
        working_bytes: memory that it allocates for itself while training, for the whole batch.
        problem: why it has no shapes; "" if it has, or if an earlier layer is the reason.
        problem_field: path of the field with the problem, if it is in one.
        certain: whether the layer is invalid; otherwise its data or code is missing.
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
    working_bytes: int = 0
    problem: str = ""
    problem_field: str = ""
    certain: bool = True

    @property
    def parameter_count(self) -> int:
        """Number of values in the parameters that it owns."""
        return sum(math.prod(s) for s, shared in zip(self.parameters, self.shared) if not shared)

    @property
    def activation_bytes(self) -> int:
        """Bytes of its tops in float32; 0 if it works in place."""
        return 0 if self.in_place or not self.shapes else FLOAT * sum(map(math.prod, self.shapes))


@dataclass(frozen=True)
class Outline:
    """A net in one phase.

    Attributes:
        name: of the net.
        phase: "TRAIN" or "TEST".
        layers: in order.
        net: the message that was shaped: in today's format, with the layers of this phase only.
    """

    name: str
    phase: str
    layers: tuple[Layer, ...]
    net: caffe_pb2.NetParameter = field(repr=False, compare=False)

    @property
    def whole(self) -> bool:
        """Whether every layer has shapes."""
        return all(layer.shapes is not None for layer in self.layers)

    @property
    def batch(self) -> int:
        """Batch size: the first axis of the first blob; 1 if unknown."""
        first = next((layer for layer in self.layers if layer.shapes and layer.shapes[0]), None)
        return max(first.shapes[0][0], 1) if first else 1

    @property
    def parameter_count(self) -> int:
        """Number of values in the parameters."""
        return sum(layer.parameter_count for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds per image."""
        return sum(layer.multiply_adds or 0 for layer in self.layers) // self.batch

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations per image."""
        return sum(layer.activation_bytes for layer in self.layers) // self.batch

    def training_bytes(self, history: int = 1) -> int:
        """Memory for training: blobs and parameters with their gradients, solver state, the layers' working memory.

        Args:
            history: values that the solver keeps per parameter.
        """
        # Data has no gradient.
        blobs = sum(layer.activation_bytes * (2 if layer.bottoms else 1) for layer in self.layers)
        working = sum(layer.working_bytes for layer in self.layers)
        return blobs + working + self._split_bytes() + (2 + history) * FLOAT * self.parameter_count

    def _split_bytes(self) -> int:
        """Bytes of the extra gradients that Caffe keeps for blobs with several readers."""
        readers: collections.Counter[tuple[int, str]] = collections.Counter()
        sizes, newest = {}, {}
        for i, layer in enumerate(self.layers):
            for bottom in layer.bottoms:
                readers[newest.get(bottom, (-1, bottom))] += 1
            for top, shape in zip(layer.tops, layer.shapes or ()):
                newest[top] = (i, top)
                sizes[i, top] = FLOAT * math.prod(shape) if layer.bottoms else 0
        return sum(count * sizes.get(blob, 0) for blob, count in readers.items() if count > 1)


def default_phase(net: caffe_pb2.NetParameter) -> str:
    """Return TRAIN for a net that has a loss or layers for training only, otherwise TEST."""
    layers = [*net.layer, *net.layers]
    rules = any(rule.phase == caffe_pb2.TRAIN and rule.HasField("phase") for la in layers for rule in la.include)
    return "TRAIN" if rules or any("LOSS" in _type(layer).upper() for layer in layers) else "TEST"


def stages(net: caffe_pb2.NetParameter) -> list[str]:
    """Return the stages that include and exclude rules of a net name."""
    rules = [rule for layer in (*net.layer, *net.layers) for rule in (*layer.include, *layer.exclude)]
    return sorted({stage for rule in rules for stage in (*rule.stage, *rule.not_stage)})


def _type(layer) -> str:
    """The type of a layer of any format, as in a prototxt."""
    if isinstance(layer, caffe_pb2.V1LayerParameter):
        kinds = caffe_pb2.V1LayerParameter.LayerType
        return layer.layer.type if layer.HasField("layer") else kinds.Name(layer.type)
    return layer.type


def outline(
    net: caffe_pb2.NetParameter,
    phase: str | None = None,
    stages: Iterable[str] = (),
    inputs: Mapping[str, Shape] | None = None,
    level: int = 0,
) -> Outline:
    """Return the layers of a net with their shapes. Relative paths in it start at the working folder, as in Caffe.

    Args:
        net: of any format.
        phase: "TRAIN" or "TEST" (default: `default_phase`).
        stages: for include and exclude rules.
        inputs: shapes of blobs of data layers, by name, which override the computed ones.
        level: for the min_level and max_level of rules.

    Raises:
        NetError: Caffe cannot read the net.
    """
    phase = phase or default_phase(net)
    try:
        resolved = _caffe._inspect.resolve(net, getattr(caffe, phase), level, list(stages))
    except caffe.CaffeError as error:
        raise NetError(from_caffe(str(error))) from error
    rejected: dict[int, Problem] = {}
    while True:
        stubs, problems = _stubs(resolved, inputs or {}, rejected)
        try:
            built = _net(resolved, stubs) if stubs else None
            return Outline(resolved.name, phase, tuple(_layers(resolved, problems, built)), resolved)
        except caffe.CaffeError as error:
            number = _rejected_layer(str(error), stubs)
            before = _net(resolved, {i: layer for i, layer in stubs.items() if i < number})
            bottoms = [tuple(before.blobs[bottom].shape) for bottom in stubs[number].bottom]
            rejected[number] = shape_errors.explain(stubs[number], bottoms, str(error))


def _stubs(
    resolved: caffe_pb2.NetParameter, inputs: Mapping[str, Shape], rejected: Mapping[int, Problem]
) -> tuple[_Stubs, dict[int, Problem]]:
    """The layers that Caffe can build, by number, and the problems of the others."""
    stubs: _Stubs = {}
    problems: dict[int, Problem] = {}
    made: set[str] = set()
    unknown: set[str] = set()
    for i, layer in enumerate(resolved.layer):
        stub = rejected.get(i) or shape_stubs.stub(layer, made, unknown, inputs)
        if isinstance(stub, Problem):
            problems[i] = stub
            unknown.update(layer.top)
        else:
            stubs[i] = stub
            unknown.difference_update(layer.top)
        made.update(layer.top)
    return stubs, problems


def _net(resolved: caffe_pb2.NetParameter, stubs: _Stubs) -> caffe.Net:
    net = caffe_pb2.NetParameter(name=resolved.name, state=resolved.state, force_backward=resolved.force_backward)
    net.layer.extend(stubs.values())
    return _caffe._inspect.outline(net)


def _rejected_layer(text: str, stubs: _Stubs) -> int:
    """The number of the layer that Caffe rejects with the error `text`."""
    for number, layer in stubs.items():
        if text.startswith(f"layer {layer.name} ({layer.type}): "):
            return number
    raise NetError(from_caffe(text))


def _layers(
    resolved: caffe_pb2.NetParameter, problems: Mapping[int, Problem], built: caffe.Net | None
) -> Iterator[Layer]:
    made = dict(zip(built._layer_names, built.layers)) if built else {}
    owners: dict[str, str] = {}
    for i, layer in enumerate(resolved.layer):
        names = {"name": layer.name, "type": layer.type, "bottoms": tuple(layer.bottom), "tops": tuple(layer.top)}
        if i in problems:
            problem = problems[i]
            yield Layer(**names, problem=problem.text, problem_field=problem.field, certain=problem.certain)
            continue
        shapes = tuple(tuple(built.blobs[top].shape) for top in layer.top)
        parameters = tuple(tuple(blob.shape) for blob in made[layer.name].blobs)
        given = [spec.name for spec in layer.param][: len(parameters)]
        owned = [bool(name) and owners.setdefault(name, layer.name) != layer.name for name in given]
        yield Layer(
            **names,
            shapes=shapes,
            parameters=parameters,
            shared=(*owned, *[False] * (len(parameters) - len(owned))),
            in_place=bool(layer.top) and set(layer.top) <= set(layer.bottom),
            multiply_adds=costs.multiply_adds(layer, built.blobs, shapes, parameters),
            working_bytes=costs.working_bytes(layer, built.blobs, shapes, parameters),
        )
