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

_Numbered = list[tuple[int, caffe_pb2.LayerParameter]]


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
    problems: dict[int, Problem] = {}
    unknown: set[str] = set()
    made: set[str] = set()
    kept: _Numbered = []
    for i, layer in enumerate(resolved.layer):
        other = shape_stubs.stub(layer, made, unknown, inputs or {})
        if isinstance(other, Problem):
            problems[i] = other
            unknown.update(layer.top)
        else:
            kept.append((i, other))
            unknown.difference_update(layer.top)
        made.update(layer.top)
    built = _build(resolved, kept, problems)
    return Outline(resolved.name, phase, tuple(_layers(resolved, kept, problems, built)), resolved)


def _build(resolved: caffe_pb2.NetParameter, kept: _Numbered, problems: dict[int, Problem]) -> caffe.Net | None:
    """Build the kept layers. Those that Caffe rejects move to `problems`, with the layers that depend on them."""
    while kept:
        try:
            return _net(resolved, kept)
        except caffe.CaffeError as error:
            number, problem = _rejected(error, resolved, kept)
            place, layer = kept[number]
            problems[place] = problem
            lost = set(layer.top)
            later = kept[number + 1 :]
            del kept[number:]
            for i, after in later:
                if lost & set(after.bottom):
                    lost.update(after.top)
                    problems.setdefault(i, Problem(""))
                else:
                    kept.append((i, after))
    return None


def _net(resolved: caffe_pb2.NetParameter, kept: _Numbered) -> caffe.Net:
    net = caffe_pb2.NetParameter(name=resolved.name, state=resolved.state, force_backward=resolved.force_backward)
    net.layer.extend(layer for _, layer in kept)
    return _caffe._inspect.outline(net)


def _rejected(error: caffe.CaffeError, resolved: caffe_pb2.NetParameter, kept: _Numbered) -> tuple[int, Problem]:
    """The number among the kept layers of the one that Caffe rejects, and why.

    Raises:
        NetError: the error is not in a layer.
    """
    for number, (_, layer) in enumerate(kept):
        if str(error).startswith(f"layer {layer.name} ({layer.type}): "):
            earlier = _net(resolved, kept[:number]).blobs if number else {}
            bottoms = [tuple(earlier[bottom].shape) for bottom in layer.bottom]
            return number, shape_errors.explain(layer, bottoms, str(error))
    raise NetError(from_caffe(str(error)))


def _layers(
    resolved: caffe_pb2.NetParameter, kept: _Numbered, problems: Mapping[int, Problem], built: caffe.Net | None
) -> Iterator[Layer]:
    shaped = {i for i, _ in kept}
    blobs = built.blobs if built else {}
    made = _in_order(kept, built) if built else {}
    owners: dict[str, str] = {}
    for i, layer in enumerate(resolved.layer):
        names = {"bottoms": tuple(layer.bottom), "tops": tuple(layer.top)}
        if i not in shaped:
            problem = problems.get(i, Problem(""))
            reason = {"problem": problem.text, "problem_field": problem.field, "certain": problem.certain}
            yield Layer(layer.name, layer.type, **names, **reason)
            continue
        shapes = tuple(tuple(blobs[top].shape) for top in layer.top)
        parameters = tuple(tuple(blob.shape) for blob in made[i].blobs)
        given = [spec.name for spec in layer.param][: len(parameters)]
        owned = [bool(name) and owners.setdefault(name, layer.name) != layer.name for name in given]
        yield Layer(
            layer.name,
            layer.type,
            **names,
            shapes=shapes,
            parameters=parameters,
            shared=(*owned, *[False] * (len(parameters) - len(owned))),
            in_place=bool(layer.top) and set(layer.top) <= set(layer.bottom),
            multiply_adds=costs.multiply_adds(layer, blobs, shapes, parameters),
            working_bytes=costs.working_bytes(layer, blobs, shapes, parameters),
        )


def _in_order(kept: _Numbered, built: caffe.Net) -> dict[int, caffe.Layer]:
    """The built layers by number, without the Split layers that Caffe inserts."""
    found, wanted = {}, iter(kept)
    number, layer = next(wanted)
    for name, built_layer in zip(built._layer_names, built.layers):
        if name == layer.name:
            found[number] = built_layer
            number, layer = next(wanted, (None, layer))
            if number is None:
                break
    return found
