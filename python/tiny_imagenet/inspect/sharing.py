"""Parameters that layers share (`param { name }`): what Caffe has against it, said of the layer that shares."""

from __future__ import annotations

import re
from collections.abc import Sequence

from caffe.proto import caffe_pb2

from tiny_imagenet.inspect.stand_in import Problem

_SHAPES = re.compile(
    r"Cannot share param '(?P<name>.*)' owned by layer '(?P<owner>.*)' with layer '(?P<layer>.*)'; (?:shape|count) "
    r"mismatch\.\s+Owner layer param shape is (?P<owned>[\d ]*)\(\d+\); sharing layer (?:expects )?shape (?:is )?"
    r"(?P<shape>[\d ]*)\("
)
_RATES = re.compile(r"Shared param '(?P<name>.*)' has mismatched (?P<field>lr_mult|decay_mult)\.")


def problem(text: str, layers: Sequence[caffe_pb2.LayerParameter]) -> tuple[int, Problem] | None:
    """The number of the layer that cannot share a parameter, and why; None where `text` is of something else.

    Args:
        text: what Caffe said of a net.
        layers: the net's.
    """
    shapes, rates = _SHAPES.search(text), _RATES.search(text)
    if shapes:
        number = next(i for i, layer in enumerate(layers) if layer.name == shapes["layer"])
        sizes = ["x".join(shapes[which].split()) or "1" for which in ("shape", "owned")]
        what = f"its parameter {shapes['name']!r} has the shape {sizes[0]}, in layer {shapes['owner']} {sizes[1]}"
        return number, Problem(
            f"{what}: give both one shape, or one of them another name", _place(layers[number], shapes)
        )
    if rates:
        field = rates["field"]
        given = [
            (i, param)
            for i, layer in enumerate(layers)
            for param in layer.param
            if param.name == rates["name"] and param.HasField(field)
        ]
        value = getattr(given[0][1], field)
        number, other = next((i, param) for i, param in given if getattr(param, field) != value)
        first, own = layers[given[0][0]].name, getattr(other, field)
        what = f"the {field} of its parameter {rates['name']!r} is {own:g}, in layer {first} {value:g}"
        return number, Problem(f"{what}: write it once, or alike", f"{_place(layers[number], rates)}.{field}")
    return None


def _place(layer: caffe_pb2.LayerParameter, found: re.Match[str]) -> str:
    """The field of a layer that names the parameter."""
    return next(f"param[{k}]" for k, param in enumerate(layer.param) if param.name == found["name"])
