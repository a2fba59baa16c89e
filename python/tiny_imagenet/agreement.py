"""Whether two nets compute the same with the same weights: train_val and deploy, or the two phases of one file."""

from __future__ import annotations

import re
from collections.abc import Iterator

from caffe.proto import caffe_pb2
from google.protobuf.message import Message

from tiny_imagenet import canonical, net_diff
from tiny_imagenet.findings import Finding, NetFile
from tiny_imagenet.outline import Layer, Outline

_PASS_ON = ("Dropout", "Split")  # what they give when testing is what they got
_NOT_COMPUTED_WITH = (
    *("include", "exclude", "param", "bottom", "top", "phase", "loss_weight", "loss_param", "propagate_down"),
    "blobs",
)
_WHILE_TRAINING = {"batch_norm_param": ("use_global_stats", "moving_average_fraction")}
_Source = tuple[int, int]  # number of a layer and of its top


def phases(outlines: list[Outline], file: NetFile) -> list[Finding]:
    """Layers whose weights have one shape in the first phase and another in a later one."""
    first = {layer.name: layer for layer in outlines[0].layers if layer.parameters}
    found = []
    for made in outlines[1:]:
        for i, layer in enumerate(made.layers):
            other = first.get(layer.name)
            if other and layer.parameters and layer.parameters != other.parameters:
                text = (
                    f"layer {layer.name} has weights of {_shapes(layer)} in phase {made.phase}, of {_shapes(other)} in "
                    f"{outlines[0].phase}"
                )
                found.append(file.finding(made, i, text))
    return found


def deployed(train: Outline, deploy: Outline, file: NetFile) -> list[Finding]:
    """Where a caffemodel of train_val.prototxt means something else in deploy.prototxt, which is `file`.

    Layers with weights are found by their names, as Caffe does. What lies between them is compared by what it computes:
    names, and what matters while training alone, may differ.
    """
    return list(dict.fromkeys(_Comparison(train, deploy, file).findings()))


class _Comparison:
    def __init__(self, train: Outline, deploy: Outline, file: NetFile):
        self.train, self.deploy, self.file = _Graph(train), _Graph(deploy), file

    def findings(self) -> Iterator[Finding]:
        learned = {layer.name: i for i, layer in enumerate(self.train.made.layers) if self.train.has_weights(i)}
        for i, layer in enumerate(self.deploy.made.layers):
            if not self.deploy.has_weights(i):
                continue
            if layer.name not in learned:
                yield self._at(i, f"layer {layer.name} has weights, and train_val.prototxt has no layer of that name")
                continue
            j = learned[layer.name]
            other = self.train.made.layers[j]
            if layer.parameters != other.parameters:
                text = f"layer {layer.name} has weights of {_shapes(layer)}, in train_val.prototxt {_shapes(other)}"
                yield self._at(i, text)
            else:
                yield from self._settings(i, j)
            yield from self._inputs(i, j)
        ends = self.deploy.of_type("Softmax"), self.train.of_type("Softmax", "SoftmaxWithLoss")
        if len(ends[0]) == len(ends[1]) == 1:
            yield from self._inputs(ends[0][0], ends[1][0], 1)

    def _at(self, i: int, text: str, field: str = "") -> Finding:
        return self.file.finding(self.deploy.made, i, text, field)

    def _settings(self, i: int, j: int) -> Iterator[Finding]:
        changes = net_diff.layers(_computed(self.train.params[j]), _computed(self.deploy.params[i]))
        if changes:
            match = re.match(r"(\S+) (.*) -> (.*)", changes[0])
            text = f"{match[1]} is {match[3]}, and {match[2]}" if match else changes[0]
            field = match[1] if match else ""
            yield self._at(i, f"layer {self.deploy.params[i].name}: {text} in train_val.prototxt", field)

    def _inputs(self, i: int, j: int, most: int | None = None) -> Iterator[Finding]:
        """Compare what layer i of deploy gets with what layer j of train_val gets, back to layers with weights."""
        pairs = list(zip(self.deploy.sources[i][:most], self.train.sources[j][:most]))
        while pairs:
            ours, theirs = pairs.pop()
            if ours is None or theirs is None:
                continue  # a blob that nobody makes: found elsewhere
            if not self._alike(ours, theirs):
                yield self._at(i, self._said(i, j, most), "bottom[0]")
                return
            if not self.deploy.is_end(ours[0]):
                yield from self._settings(ours[0], theirs[0])
                pairs += zip(self.deploy.sources[ours[0]], self.train.sources[theirs[0]])

    def _alike(self, ours: _Source, theirs: _Source) -> bool:
        (i, top), (j, other_top) = ours, theirs
        if top != other_top or self.deploy.is_end(i) != self.train.is_end(j):
            return False
        if self.deploy.has_weights(i) or self.train.has_weights(j):
            return self.deploy.params[i].name == self.train.params[j].name
        if self.deploy.is_end(i):
            return True  # data
        same = _computed(self.deploy.params[i]).type == _computed(self.train.params[j]).type
        return same and len(self.deploy.sources[i]) == len(self.train.sources[j])

    def _said(self, i: int, j: int, most: int | None) -> str:
        """The difference between two inputs in words: what one of them lacks, else both as a whole."""
        name = self.deploy.params[i].name
        ours, theirs = self.deploy.way(i, most), self.train.way(j, most)
        for long, short, where, other in (
            (theirs, ours, "train_val.prototxt has", "deploy.prototxt has not"),
            (ours, theirs, "there is", "train_val.prototxt has none"),
        ):
            extra = _beyond(long, short)
            if extra:
                layers = ", ".join(f"{layer.name} ({layer.type})" for layer in extra)
                return f"{where} the layer {layers} before {name}, and {other}"
        return f"layer {name} gets {_written(ours)}, and in train_val.prototxt {_written(theirs)}"


class _Graph:
    """A net's layers with where their inputs come from, past what only passes them on."""

    def __init__(self, made: Outline):
        self.made = made
        self.params = made.net.layer
        self.sources: list[list[_Source | None]] = []
        current: dict[str, _Source | None] = {}
        for i, layer in enumerate(self.params):
            sources = [current.get(bottom) for bottom in layer.bottom]
            self.sources.append(sources)
            for t, top in enumerate(layer.top):
                current[top] = sources[0] if layer.type in _PASS_ON and sources else (i, t)

    def has_weights(self, i: int) -> bool:
        return bool(self.made.layers[i].parameters)

    def is_end(self, i: int) -> bool:
        """Whether a layer's output is taken as it is: data, or what has weights."""
        return self.has_weights(i) or not self.sources[i]

    def of_type(self, *types: str) -> list[int]:
        return [i for i, layer in enumerate(self.params) if layer.type in types]

    def way(self, i: int, most: int | None) -> list[Layer]:
        """The layers that lead to layer i, along first inputs back to one with weights or to data; that one first."""
        way = []
        source = next(iter(self.sources[i][:most]), None)
        while source is not None:
            way.append(self.made.layers[source[0]])
            source = None if self.is_end(source[0]) else next(iter(self.sources[source[0]]), None)
        return way[::-1]


def _computed(layer: caffe_pb2.LayerParameter) -> caffe_pb2.LayerParameter:
    """What a layer computes with when testing, given its weights."""
    same = canonical.layer(layer)
    if same.type == "LReLU":
        same.type = "ReLU"
    for field in (*_NOT_COMPUTED_WITH, *canonical.idle(same)):
        same.ClearField(field)
    for param, fields in _WHILE_TRAINING.items():
        if same.HasField(param):
            for field in fields:
                getattr(same, param).ClearField(field)
    for field, value in same.ListFields():
        if isinstance(value, Message):
            for inner in field.message_type.fields:
                filler = inner.message_type is not None and inner.message_type.name == "FillerParameter"
                if filler or inner.name == "engine":
                    value.ClearField(inner.name)
    return same


def _beyond(long: list[Layer], short: list[Layer]) -> list[Layer]:
    """What a way has more than another that is otherwise the same; nothing where it is not."""
    rest, extra = [_key(layer) for layer in short], []
    for layer in long:
        if rest and rest[0] == _key(layer):
            del rest[0]
        else:
            extra.append(layer)
    return [] if rest else extra


def _key(layer: Layer) -> str:
    if layer.parameters:
        return f"weights {layer.name}"
    if not layer.bottoms:
        return "data"
    return "ReLU" if layer.type == "LReLU" else layer.type


def _written(way: list[Layer]) -> str:
    return " > ".join(f"{layer.name} ({layer.type})" for layer in way) or "nothing"


def _shapes(layer: Layer) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in layer.parameters)
