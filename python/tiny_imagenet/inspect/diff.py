"""Differences between two nets or two solvers, field by field."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from caffe import _caffe
from caffe.proto import caffe_pb2
from google.protobuf.message import Message

from tiny_imagenet.inspect import normalize

Layer = caffe_pb2.LayerParameter
_Key = tuple[str, str]  # a layer's name, and its phase if the net has several layers of that name


@dataclass(frozen=True)
class Change:
    """A difference.

    Attributes:
        kind: "changed" (a field), "added", "removed" or "renamed" (a layer), "order" (of the layers).
        text: the difference in one line.
        layer: name of the layer, the new one if it was renamed; "" for a field of the net or the solver.
        field: path of the field in its message; "" for a whole layer.
        old, new: values of the field, as in a prototxt.
    """

    kind: str
    text: str
    layer: str = ""
    field: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        return self.text


def nets(
    a: caffe_pb2.NetParameter, b: caffe_pb2.NetParameter, form: Callable[[Layer], Layer] = normalize.layer
) -> list[Change]:
    """Return the differences between two nets of any format; none if Caffe would build the same net.

    Layers are matched by name. An omitted field is equal to one with the default value.

    Args:
        a: the old net.
        b: the new net.
        form: converts each layer before the comparison.
    """
    a, b = _caffe._inspect.upgrade(a), _caffe._inspect.upgrade(b)
    found = [_change(*fields, where="net: ") for fields in _fields(a, b, skip={"layer"})]
    old, new = _by_name(a, b)
    for key in [key for key in new if key not in old]:
        same = (k for k, la in old.items() if k not in new and not _differ(form(la), form(new[key])))
        former = next(same, None)
        if former:
            found.append(Change("renamed", f"layer {_said(former)} ({new[key].type}) renamed {key[0]}", key[0]))
            old = {key if k == former else k: layer for k, layer in old.items()}
    for key, layer in old.items():
        if key not in new:
            found.append(Change("removed", f"layer {_said(key)} ({layer.type}) removed", layer.name))
    before = ""
    for key, layer in new.items():
        if key not in old:
            place = f"after {before}" if before else "at the start"
            found.append(Change("added", f"layer {_said(key)} ({layer.type}) added {place}", layer.name))
        else:
            pairs = _fields(form(old[key]), form(layer), skip={"name"})
            found += [_change(*fields, where=f"layer {_said(key)}: ", layer=layer.name) for fields in pairs]
        before = layer.name
    if [key for key in new if key in old] != [key for key in old if key in new]:
        found.append(Change("order", "the layers are in a different order"))
    return found


def solvers(a: caffe_pb2.SolverParameter, b: caffe_pb2.SolverParameter) -> list[Change]:
    """Return the differences between two solvers; nets written in them are compared as nets."""
    inner = {"net_param", "train_net_param"}
    found = [_change(*fields, where="solver: ") for fields in _fields(a, b, skip=inner)]
    for name in sorted(inner):
        if a.HasField(name) or b.HasField(name):
            found += nets(getattr(a, name), getattr(b, name))
    return found


def _by_name(*nets: caffe_pb2.NetParameter) -> list[dict[_Key, Layer]]:
    """The layers of each net by name and phase: a net may have one layer of a name per phase."""
    found: list[dict[_Key, Layer]] = []
    for net in nets:
        layers: dict[_Key, Layer] = {}
        for layer in net.layer:
            key = (layer.name, "+".join(caffe_pb2.Phase.Name(r.phase) for r in layer.include if r.HasField("phase")))
            while key in layers:
                key = (key[0], key[1] + "'")
            layers[key] = layer
        found.append(layers)
    several = {name for layers in found for name, count in Counter(n for n, _ in layers).items() if count > 1}
    return [{(n, phase if n in several else ""): la for (n, phase), la in layers.items()} for layers in found]


def _differ(a: Layer, b: Layer) -> bool:
    return any(_fields(a, b, skip={"name"}))


def _said(key: _Key) -> str:
    name, phase = key[0], key[1].rstrip("'")
    return f"{name} in {phase}" if phase else name


def _change(field: str, old: str, new: str, where: str, layer: str = "") -> Change:
    what = f"{field} {old} -> {new}" if old and new else f"{field} added: {new}" if new else f"{field} removed: {old}"
    return Change("changed", where + what, layer, field, old, new)


def _fields(a: Message, b: Message, path: str = "", skip: set[str] = frozenset()) -> Iterator[tuple[str, str, str]]:
    """Yield path, old and new value of each field that differs; of an element of a list, one of them may be ""."""
    for field in a.DESCRIPTOR.fields:
        name, old, new = f"{path}{field.name}", getattr(a, field.name), getattr(b, field.name)
        if field.name in skip:
            continue
        if field.message_type is None and field.is_repeated:
            if list(old) != list(new):
                yield name, _values(old, field), _values(new, field)
        elif field.is_repeated:
            for i in range(max(len(old), len(new))):
                if i < min(len(old), len(new)):
                    yield from _fields(old[i], new[i], f"{name}[{i}].")
                else:
                    one, other = ("", new[i]) if i < len(new) else (old[i], "")
                    yield name, " ".join(str(one).split()), " ".join(str(other).split())
        elif field.message_type is not None:
            if a.HasField(field.name) or b.HasField(field.name):
                yield from _fields(old, new, f"{name}.")
        elif old != new and (old == old or new == new):  # a NaN equals another
            close = isinstance(old, float) and f"{old:.7g}" == f"{new:.7g}"
            digits = 9 if close else 7
            yield name, _value(old, field, digits), _value(new, field, digits)


def _values(values: list, field) -> str:
    return ", ".join(_value(value, field) for value in values) or "(none)"


def _value(value: Any, field, digits: int = 7) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
