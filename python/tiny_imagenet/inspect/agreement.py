"""Whether two nets compute the same with the same weights: those of train_val and deploy, trained and tested ones."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator

from caffe.proto import caffe_pb2
from google.protobuf.message import Message

from tiny_imagenet.inspect import canonical, net_diff
from tiny_imagenet.inspect.findings import Finding, NetFile
from tiny_imagenet.inspect.outline import Layer, Outline

_PASS_ON = ("Dropout", "Split")  # what they give when testing is what they got
_NOT_COMPUTED_WITH = (
    *("include", "exclude", "param", "bottom", "top", "phase", "loss_weight", "loss_param", "propagate_down"),
    "blobs",
)
_Source = tuple[int, int]  # number of a layer and of its top


def tested(train: Outline, test: Outline, file: NetFile) -> list[Finding]:
    """Where a net that is tested, in `file`, does not take the weights of the one that is trained as they are."""
    counts = collections.Counter(layer.name for made in (train, test) for layer in made.layers if layer.parameters)
    first = {layer.name: layer for layer in train.layers if layer.parameters}
    found = []
    for i, layer in enumerate(test.layers):
        if not layer.parameters or counts[layer.name] > 2:  # of layers of one name, none is the other's
            continue
        other = first.get(layer.name)
        if not other:
            text = f"layer {layer.name} has weights in phase {test.phase}, and none learn them in {train.phase}"
            found.append(file.finding(test, i, text, error=False))
        elif layer.parameters != other.parameters:
            text = f"layer {layer.name} has weights of {_shapes(layer)} in phase {test.phase}"
            found.append(file.finding(test, i, f"{text}, of {_shapes(other)} in {train.phase}"))
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
        yield from self._ends()
        yield from self._input_sizes()

    def _ends(self) -> Iterator[Finding]:
        """Compare each softmax of deploy with that of train_val over the same layer with weights."""
        theirs = {}
        for j in self.train.of_type("Softmax", "SoftmaxWithLoss"):
            theirs.setdefault(next((la.name for la in self.train.way(j, 1)), ""), j)
        for i in self.deploy.of_type("Softmax"):
            over = next((la.name for la in self.deploy.way(i, 1)), "")
            j = theirs.get(over, next(iter(theirs.values())) if len(theirs) == 1 else None)
            if j is not None:
                yield from self._inputs(i, j, 1)
                if self.deploy.params[i].softmax_param.axis != self.train.params[j].softmax_param.axis:
                    yield from self._settings(i, j)

    def _input_sizes(self) -> Iterator[Finding]:
        """Images of another size, where the shapes of the weights do not show it."""
        ours, theirs = self.deploy.image(), self.train.image()
        if ours and theirs and ours[1] != theirs[1]:
            sizes = ["x".join(map(str, size)) for size in (ours[1], theirs[1])]
            text = f"deploy.prototxt takes images of {sizes[0]}, train_val.prototxt of {sizes[1]}"
            yield self.file.finding(self.deploy.made, ours[0], text, error=False)

    def _at(self, i: int, text: str, field: str = "") -> Finding:
        return self.file.finding(self.deploy.made, i, text, field)

    def _settings(self, i: int, j: int) -> Iterator[Finding]:
        changes = net_diff.layers(_computed(self.train.params[j]), _computed(self.deploy.params[i]))
        if changes:
            field, _, values = changes[0].partition(" ")
            theirs, arrow, ours = values.partition(" -> ")
            text = f"{field} is {ours}, and {theirs}" if arrow else changes[0]
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
                pairs += self._paired(ours[0], theirs[0])

    def _paired(self, i: int, j: int) -> list[tuple[_Source | None, _Source | None]]:
        """The inputs of two layers of one type, in the order in which they fit where order does not matter."""
        ours, theirs = self.deploy.sources[i], self.train.sources[j]
        param = self.deploy.params[i].eltwise_param
        if self.deploy.params[i].type == "Eltwise" and len(set(param.coeff)) < 2:
            for order in itertools.islice(itertools.permutations(theirs), 720):
                if all(self._same(a, b) for a, b in zip(ours, order)):
                    theirs = order
                    break
        return list(zip(ours, theirs))

    def _same(self, ours: _Source | None, theirs: _Source | None) -> bool:
        """Whether two inputs are computed alike, back to layers with weights."""
        if ours is None or theirs is None:
            return ours is theirs
        if not self._alike(ours, theirs):
            return False
        if self.deploy.is_end(ours[0]):
            return True
        return all(self._same(a, b) for a, b in zip(self.deploy.sources[ours[0]], self.train.sources[theirs[0]]))

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

    def image(self) -> tuple[int, tuple[int, ...]] | None:
        """The first layer that makes images, and their height and width."""
        for i, layer in enumerate(self.made.layers):
            if not layer.bottoms and layer.shapes and len(layer.shapes[0]) == 4:
                return i, layer.shapes[0][2:]
        return None

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
    same.type = {"LReLU": "ReLU", "SoftmaxWithLoss": "Softmax"}.get(same.type, same.type)
    for field in (*_NOT_COMPUTED_WITH, *canonical.idle(same)):
        same.ClearField(field)
    if same.type == "BatchNorm":
        own = same.batch_norm_param
        own.use_global_stats = own.use_global_stats or not own.HasField("use_global_stats")  # so it is when testing
        own.ClearField("moving_average_fraction")
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
