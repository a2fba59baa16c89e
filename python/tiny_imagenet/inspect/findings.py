"""Findings of lint, with their positions in a prototxt."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet.inspect.outline import Outline
from tiny_imagenet.models.prototxt import Position


@dataclasses.dataclass(frozen=True)
class Finding:
    """An error or a likely mistake.

    Attributes:
        file: path of the prototxt.
        line, column: from 1; 0 if the finding concerns the whole file.
        severity: "error" if training or testing with the file fails, otherwise "warning".
        text: the problem and, if it is not obvious, how to solve it.
        layer: name of the layer, or "".
        field: path of the field in the layer or solver, or "".
    """

    file: str
    line: int
    column: int
    severity: str
    text: str
    layer: str = ""
    field: str = ""

    @property
    def is_error(self) -> bool:
        """Whether training or testing with the file fails."""
        return self.severity == "error"

    @property
    def place(self) -> str:
        """file:line:column, or the file if the finding concerns all of it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        return f"{self.place}: {self.severity}: {self.text}"


def at(path: Path, positions: Mapping[str, Position], field: str, text: str, severity: str = "error") -> Finding:
    """Return a finding at a field of a solver's file, or at the message around the field."""
    outer = field
    while outer and outer not in positions and f"{outer}[0]" not in positions:
        outer = outer.rpartition(".")[0]
    line, column = positions.get(outer) or positions.get(f"{outer}[0]") or (0, 0)
    return Finding(str(path), line, column, severity, text, field=field)


class NetFile:
    """A net and the positions of its layers and their fields in a prototxt.

    Args:
        path: the prototxt.
        net: the net as it is in the file, of any format.
        positions: of the file's fields (`prototxt.parse`).
        inside: the solver's field that contains the net, if the file is a solver's.

    Attributes:
        layers: the net's layers in today's format, those of all phases.

    Raises:
        CaffeError: the net cannot be converted to today's format.
    """

    def __init__(self, path: Path, net: caffe_pb2.NetParameter, positions: Mapping[str, Position], inside: str = ""):
        self.path = path
        prefix = f"{inside}." if inside else ""
        self._positions = {name[len(prefix) :]: at for name, at in positions.items() if name.startswith(prefix)}
        self.layers = list(_caffe._inspect.upgrade(net).layer)
        kind = "layer" if net.layer else "layers"
        own = [f"{kind}[{i}]" for i in range(len(getattr(net, kind)))]
        # Old `input` fields become an Input layer before the others; the oldest format has layers that only pad.
        self._paths = [""] * (len(self.layers) - len(own)) + own
        if len(self.layers) < len(own):
            names = {la.layer.name or la.name: path for path, la in zip(own, net.layers)}
            self._paths = [names.get(layer.name, "") for layer in self.layers]

    def finding(self, number: int | None, text: str, field: str = "", severity: str = "error") -> Finding:
        """Return a finding at a field of layer `number`, else at the layer; at the whole file if it is None."""
        if number is None:
            return Finding(str(self.path), 0, 0, severity, text)
        line, column = self._position(self._paths[number], field)
        return Finding(str(self.path), line, column, severity, text, self.layers[number].name, field)

    def _position(self, layer: str, field: str) -> Position:
        while field:
            for name in (f"{layer}.{field}", f"{layer}.{field}[0]"):
                if name in self._positions:
                    return self._positions[name]
            field = field.rpartition(".")[0]
        return self._positions.get(layer, (0, 0))

    def numbers(self, made: Outline) -> list[int | None]:
        """Return the number of each layer of `made`, which has some of this file's layers in their order."""
        found, rest = [], iter(enumerate(self.layers))
        for layer in made.net.layer:
            found.append(next((number for number, own in rest if own == layer), None))
        return found
