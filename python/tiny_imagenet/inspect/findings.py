"""What a check of prototxt files finds, and the lines where it stands."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from caffe import _caffe
from caffe.proto import caffe_pb2

from tiny_imagenet.inspect.outline import Outline


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong (an error) or that is probably not meant (a warning).

    Attributes:
        path: the file.
        line: from 1; 0 where it concerns the file as a whole.
        text: what, and where it helps what to do.
        error: whether training or testing with the file must fail.
    """

    path: str
    line: int
    text: str
    error: bool = True

    @property
    def place(self) -> str:
        """Path and line, where there is one."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        return f"{self.place}: {'error' if self.error else 'warning'}: {self.text}"


class NetFile:
    """A net's prototxt: makes findings at the lines of its layers and of their fields."""

    def __init__(self, path: Path, net: caffe_pb2.NetParameter, lines: dict[str, int], inside: str = ""):
        """`net` is the file's as it stands, upgradable; `lines` are those of its fields (`prototxt.parse`).

        `inside` is the solver's field that the net stands in, where it does.
        """
        self.path = path
        prefix = f"{inside}." if inside else ""
        self._lines = {field[len(prefix) :]: line for field, line in lines.items() if field.startswith(prefix)}
        self._upgraded = list(_caffe._inspect.upgrade(net).layer)
        field = "layer" if net.layer else "layers"
        own = [f"{field}[{i}]" for i in range(len(getattr(net, field)))]
        # Old `input` fields become an Input layer before the others.
        paths = [""] * (len(self._upgraded) - len(own)) + own
        if len(self._upgraded) < len(own):  # the oldest format has layers that only pad
            names = {la.layer.name or la.name: path for path, la in zip(own, net.layers)}
            paths = [names.get(layer.name, "") for layer in self._upgraded]
        self._paths = paths

    def finding(self, made: Outline | None, number: int | None, text: str, field: str = "", error: bool = True):
        """A finding at a field of layer `number` of `made`, at the layer's own line where it has no such field.

        `made` is None for a `number` of the file's own, upgraded layers; without a number it concerns the whole file.
        """
        line = 0
        if number is not None:
            paths = self._paths if made is None else self._paths_in(made)
            line = self._line(paths[number], field)
        return Finding(str(self.path), line, text, error)

    def _line(self, layer: str, field: str) -> int:
        """That of a layer's field, else that of the message around it, in the end the layer."""
        while field:
            for name in (f"{layer}.{field}", f"{layer}.{field}[0]"):
                if name in self._lines:
                    return self._lines[name]
            field = field.rpartition(".")[0]
        # Of a list (layer [ ... ]) the first layer alone has a line of its own.
        inside = (line for name, line in self._lines.items() if name.startswith(f"{layer}."))
        return self._lines.get(layer) or min(inside, default=0)

    def named(self, name: str, text: str) -> Finding:
        """A finding at the first layer of that name."""
        numbers = [i for i, layer in enumerate(self._upgraded) if layer.name == name]
        return self.finding(None, numbers[0] if numbers else None, text)

    @property
    def layers(self) -> list[caffe_pb2.LayerParameter]:
        """The file's layers in today's format."""
        return self._upgraded

    def _paths_in(self, made: Outline) -> list[str]:
        """Of each layer of `made`, which are some of the file's in their order, its place in the file."""
        paths, rest = [], iter(zip(self._upgraded, self._paths))
        for layer in made.net.layer:
            paths.append(next((path for own, path in rest if own == layer), ""))
        return paths
