"""A net layer by layer as Caffe shapes it, without its weights, its data or its files.

Works on any Caffe prototxt, old formats included. Where a layer cannot be shaped (its data set is not there, it is
written in Python, or it is wrong), it and what follows from it have no shapes, and `problem` says why; the rest has.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import caffe
from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError, from_caffe
from tiny_imagenet.inspect import costs, sharing, stand_in
from tiny_imagenet.inspect.costs import FLOAT
from tiny_imagenet.inspect.stand_in import Problem, Shape


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
        working_bytes: what it keeps for itself while training, for the whole batch.
        problem: why it has no shapes; "" where it has, or where a layer before it is the reason.
        problem_field: of its message, where the problem is one field's.
        certain: whether the problem is that it is wrong, and not only that its data is not here.
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
        """What training takes: blobs and parameters with their gradients, the solver's and the layers' own memory.

        Args:
            history: values that the solver keeps for each parameter.
        """
        blobs = sum(
            layer.activation_bytes * (2 if layer.bottoms else 1) for layer in self.layers
        )  # data has no gradient
        working = sum(layer.working_bytes for layer in self.layers)
        return blobs + working + self._splits() + (2 + history) * FLOAT * self.parameter_count

    def _splits(self) -> int:
        """Of the gradients that Caffe keeps for each reader of a blob with several."""
        readers: collections.Counter[tuple[int, str]] = collections.Counter()
        sizes, newest = {}, {}
        for i, layer in enumerate(self.layers):
            for bottom in layer.bottoms:
                readers[newest.get(bottom, (-1, bottom))] += 1
            for top, shape in zip(layer.tops, layer.shapes or ()):
                newest[top] = (i, top)
                sizes[i, top] = FLOAT * math.prod(shape) if any(b for b in layer.bottoms) else 0
        return sum(count * sizes.get(blob, 0) for blob, count in readers.items() if count > 1)


def default_phase(net: caffe_pb2.NetParameter) -> str:
    """TRAIN for a net that has layers for training alone or a loss, else TEST."""
    layers = [*net.layer, *net.layers]
    rules = any(rule.phase == caffe_pb2.TRAIN and rule.HasField("phase") for la in layers for rule in la.include)
    return "TRAIN" if rules or any("LOSS" in type_name(layer).upper() for layer in layers) else "TEST"


def stages(net: caffe_pb2.NetParameter) -> list[str]:
    """The stages that include and exclude rules of a net name."""
    rules = [rule for layer in (*net.layer, *net.layers) for rule in (*layer.include, *layer.exclude)]
    return sorted({stage for rule in rules for stage in (*rule.stage, *rule.not_stage)})


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
    level: int = 0,
) -> Outline:
    """The layers of a net with their shapes. Relative paths in it start at the working folder, as Caffe's do.

    Args:
        net: of any format.
        phase: "TRAIN" or "TEST" (default: what `default_phase` says).
        stages: what include and exclude rules ask for.
        inputs: shapes of blobs that data layers make, by blob, in place of those that can be told.
        level: what min_level and max_level of rules ask for.

    Raises:
        NetError: the net as a whole cannot be read by Caffe, or `inputs` names a blob that no data layer makes.
    """
    phase = phase or default_phase(net)
    try:
        resolved = _caffe._inspect.resolve(net, getattr(caffe, phase), level, list(stages))
    except caffe.CaffeError as error:
        raise NetError(from_caffe(str(error))) from error
    sources = stand_in.Sources(dict(inputs or {}))
    problems: dict[int, Problem] = {}
    unknown: set[str] = set()
    made: set[str] = set()
    kept: list[tuple[int, caffe_pb2.LayerParameter]] = []
    for i, layer in enumerate(resolved.layer):
        other = stand_in.stand_in(layer, made, unknown, sources)
        if isinstance(other, Problem):
            problems[i] = other
            unknown.update(layer.top)
        else:
            kept.append((i, other))
            unknown.difference_update(layer.top)
        made.update(layer.top)
    built = _build(resolved, kept, problems)
    return Outline(resolved.name, phase, tuple(_rows(resolved, kept, problems, built)), resolved)


def _build(resolved, kept, problems):
    """The net of the kept layers; those that Caffe refuses move to `problems`, and what follows from them goes too."""
    while kept:
        net = caffe_pb2.NetParameter(name=resolved.name, state=resolved.state, force_backward=resolved.force_backward)
        net.layer.extend(layer for _, layer in kept)
        try:
            return _caffe._inspect.outline(net)
        except caffe.CaffeError as error:
            number, problem = _refused(str(error), kept)
            layer = kept[number][1]
            problems[kept[number][0]] = problem
            lost = set(layer.top)
            place, _ = kept.pop(number)
            for k, (later, after) in list(enumerate(kept)):
                if later > place and lost & set(after.bottom):
                    lost.update(after.top)
                    kept[k] = None
                    problems.setdefault(later, Problem(""))
            kept[:] = [item for item in kept if item is not None]
    return None


def _refused(text: str, kept) -> tuple[int, Problem]:
    """Which of the kept layers Caffe refuses with `text`, and why; a NetError where it is none of them."""
    layers = [layer for _, layer in kept]
    shared = sharing.problem(text, layers)
    if shared:
        return shared
    for number, layer in enumerate(layers):
        before = f"layer {layer.name} ({layer.type}): "
        if text.startswith(before):
            said = from_caffe(text.removeprefix(before))
            return number, Problem(said, said.split(" is ")[0].split(": ")[0] if " is " in said else "")
    raise NetError(from_caffe(text))


def _rows(resolved, kept, problems, built):
    index = dict(kept)
    blobs = built.blobs if built else {}
    layers = _in_order(kept, built) if built else {}
    owners: dict[str, str] = {}
    for i, layer in enumerate(resolved.layer):
        names = {"bottoms": tuple(layer.bottom), "tops": tuple(layer.top)}
        if i not in index:
            problem = problems.get(i, Problem(""))
            reason = {"problem": problem.text, "problem_field": problem.field, "certain": problem.certain}
            yield Layer(layer.name, layer.type, **names, **reason)
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
            multiply_adds=costs.multiply_adds(layer, blobs, shapes, parameters),
            working_bytes=costs.working_bytes(layer, blobs, shapes, parameters),
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
