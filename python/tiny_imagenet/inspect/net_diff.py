"""What differs between two nets or two solvers, in the words of their fields."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from caffe import _caffe
from caffe.proto import caffe_pb2
from google.protobuf.message import Message

from tiny_imagenet.inspect import canonical

_LAYERS = "layer"


def nets(a: caffe_pb2.NetParameter, b: caffe_pb2.NetParameter) -> list[str]:
    """The differences of two nets of any format, a line each; none where Caffe would build the same.

    Layers are found by name. A field that is left out and one that says the default are the same, and so are the ways
    to write a thing that `canonical.layer` lists.
    """
    a, b = _caffe._inspect.upgrade(a), _caffe._inspect.upgrade(b)
    lines = [f"net: {change}" for change in _changes(a, b, skip={_LAYERS})]
    old, new = _by_name(a, b)
    lines += [f"layer {_said(key)} ({layer.type}) removed" for key, layer in old.items() if key not in new]
    before = ""
    for key, layer in new.items():
        if key not in old:
            place = f" after {before}" if before else " at the beginning"
            lines.append(f"layer {_said(key)} ({layer.type}) added{place}")
        else:
            lines += [f"layer {_said(key)}: {change}" for change in layers(old[key], layer)]
        before = layer.name
    common = [key for key in new if key in old]
    if common != [key for key in old if key in new]:
        lines.append("the layers that both have come in another order")
    return lines


def layers(a: caffe_pb2.LayerParameter, b: caffe_pb2.LayerParameter) -> list[str]:
    """The differences of two layers' fields, their names apart; none where Caffe takes them for the same."""
    return list(_changes(canonical.layer(a), canonical.layer(b), skip={"name"}))


def solvers(a: caffe_pb2.SolverParameter, b: caffe_pb2.SolverParameter) -> list[str]:
    """The differences of two solvers; nets written in them are compared as nets."""
    inner = {"net_param", "train_net_param"}
    lines = [f"solver: {change}" for change in _changes(a, b, skip=inner)]
    for name in sorted(inner):
        if a.HasField(name) or b.HasField(name):
            lines += nets(getattr(a, name), getattr(b, name))
    return lines


def _by_name(*nets: caffe_pb2.NetParameter) -> list[dict[tuple[str, str], caffe_pb2.LayerParameter]]:
    """The layers of each net by name and phase: a net may have one of a name for training and one for testing."""
    found: list[dict[tuple[str, str], caffe_pb2.LayerParameter]] = []
    for net in nets:
        layers: dict[tuple[str, str], caffe_pb2.LayerParameter] = {}
        for layer in net.layer:
            key = (layer.name, "+".join(caffe_pb2.Phase.Name(r.phase) for r in layer.include if r.HasField("phase")))
            while key in layers:
                key = (key[0], key[1] + "'")
            layers[key] = layer
        found.append(layers)
    # The phase tells layers of one name apart, where a net has several; else it is a field as any other.
    several = {name for layers in found for name, count in Counter(n for n, _ in layers).items() if count > 1}
    return [{(n, phase if n in several else ""): la for (n, phase), la in layers.items()} for layers in found]


def _said(key: tuple[str, str]) -> str:
    name, phase = key
    return f"{name} in {phase.rstrip(chr(39))}" if phase.rstrip("'") else name


def _changes(a: Message, b: Message, path: str = "", skip: frozenset[str] | set[str] = frozenset()) -> Iterator[str]:
    for field in a.DESCRIPTOR.fields:
        if field.name in skip:
            continue
        name = f"{path}{field.name}"
        if field.is_repeated:
            yield from _repeated(list(getattr(a, field.name)), list(getattr(b, field.name)), name, field)
        elif field.message_type is not None:
            has = a.HasField(field.name), b.HasField(field.name)
            if any(has):
                yield from _changes(getattr(a, field.name), getattr(b, field.name), f"{name}.")
        else:
            old, new = getattr(a, field.name), getattr(b, field.name)
            if old != new and not (old != old and new != new):  # a NaN is like another
                yield f"{name} {_pair(old, new, field)}"


def _repeated(old: list, new: list, name: str, field) -> Iterator[str]:
    if old == new:
        return
    if field.message_type is None:
        yield f"{name} {_values(old, field)} -> {_values(new, field)}"
        return
    for i, (a, b) in enumerate(zip(old, new)):
        yield from _changes(a, b, f"{name}[{i}].")
    for what, items in (("removed", old[len(new) :]), ("added", new[len(old) :])):
        for item in items:
            yield f"{name} {what}: {' '.join(str(item).split())}"


def _pair(old: Any, new: Any, field) -> str:
    if isinstance(old, float) and f"{old:.7g}" == f"{new:.7g}":
        return f"{old:.9g} -> {new:.9g}"
    return f"{_value(old, field)} -> {_value(new, field)}"


def _values(values: list, field) -> str:
    if not values:
        return "(none)"
    return ", ".join(_value(value, field) for value in values)


def _value(value: Any, field) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    if isinstance(value, float):
        return f"{value:.7g}"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
