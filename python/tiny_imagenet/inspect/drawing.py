"""A net as a picture: a box per layer, with the layers that work in place on its blob in the same box."""

from __future__ import annotations

import html
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from tiny_imagenet import files
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import describe, layer_fields
from tiny_imagenet.inspect.outline import Outline

FORMATS = (".svg", ".png", ".pdf")
_TIMES = "\N{MULTIPLICATION SIGN}"
_SVG = "http://www.w3.org/2000/svg"
_INK, _SOFT, _RED = "#24292f", "#57606a", "#dc2626"
_COLORS = {  # of the kinds of layers; boxes are filled with 15 % of it
    "data": "#8c959f",
    "convolution": "#3b82f6",
    "pooling": "#d97706",
    "inner product": "#16a34a",
    "loss": "#dc2626",
    "other": "#8b5cf6",
}
_STYLE = ".net-drawing { color: #24292f } @media (prefers-color-scheme: dark) { .net-drawing { color: #e6edf3 } }"
_BOX_WIDTH, _BOX_HEIGHT = 190, 105  # with the space around it, in points, roughly


@dataclass
class _Box:
    """A box of the picture.

    Attributes:
        layers: numbers of its layers; the first is not in place.
        inputs: box and blob of each input.
        references: blobs of a data layer, such as the labels, that are named at the box instead of connected.
        rank: longest way to the box from the top of its column.
        column: from 0.
    """

    layers: list[int]
    inputs: list[tuple[int, str]] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    rank: int = 0
    column: int = 0


def kind(layer_type: str) -> str:
    """Return the kind of a layer type, which sets its color."""
    if layer_type in (*layer_fields.DATA, "Input", "DummyData"):
        return "data"
    if layer_type in ("Convolution", "Deconvolution", "Im2col"):
        return "convolution"
    if layer_type in ("Pooling", "SPP"):
        return "pooling"
    if layer_type in ("InnerProduct", "Embed", "LSTM", "RNN"):
        return "inner product"
    if "Loss" in layer_type or layer_type in ("Accuracy", "Softmax", "ArgMax"):
        return "loss"
    return "other"


def draw(net: Outline, path: Path) -> None:
    """Write the picture of a net in the format of the file's suffix: svg, png or pdf.

    Long nets continue in further columns, so that the picture is about as wide as high. An SVG adapts to dark mode.

    Raises:
        NetError: the suffix is unsupported, graphviz is missing, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise NetError(f"cannot draw {path.name!r}: unsupported format, expected one of {', '.join(FORMATS)}")
    if shutil.which("dot") is None:
        raise NetError("drawing needs graphviz's program dot: apt-get install graphviz")
    boxes = _boxes(net)
    _arrange(boxes)
    # Some versions of graphviz scale an SVG, but not its frame, if it has a resolution.
    command = ["dot", f"-T{suffix[1:]}", *(["-Gdpi=110"] if suffix == ".png" else [])]
    done = subprocess.run(command, input=_graph(net, boxes, suffix != ".svg").encode(), capture_output=True)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        raise NetError(f"cannot draw {path}: graphviz's program dot failed: {reason[:300]}")
    picture = _finish(done.stdout.decode(), net, boxes).encode() if suffix == ".svg" else done.stdout
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(picture)


def _boxes(net: Outline) -> list[_Box]:
    boxes: list[_Box] = []
    made_by: dict[str, int] = {}  # blob -> box with its newest value
    aside: set[str] = set()
    for i, layer in enumerate(net.layers):
        if layer.in_place and len(layer.bottoms) == 1 and layer.bottoms[0] in made_by:
            boxes[made_by[layer.bottoms[0]]].layers.append(i)
            continue
        box = _Box([i])
        for bottom in dict.fromkeys(layer.bottoms):
            if bottom in aside:
                box.references.append(bottom)
            elif bottom in made_by:
                box.inputs.append((made_by[bottom], bottom))
        if not layer.bottoms and len(layer.tops) > 1 and kind(layer.type) == "data":
            aside.update(layer.tops[1:])
        boxes.append(box)
        made_by.update(dict.fromkeys(layer.tops, len(boxes) - 1))
    return boxes


def _arrange(boxes: list[_Box]) -> None:
    """Set ranks and columns. A column may end before a box to which, and past which, at most two edges lead."""
    edges = [(source, number) for number, box in enumerate(boxes) for source, _ in box.inputs]
    cuts = []
    for k in range(len(boxes) - 1):
        crossing = [source for source, number in edges if source <= k < number]
        if len(crossing) <= 2 and len(set(crossing)) <= 1:
            cuts.append(k + 1)
    _rank(boxes)
    height, width = _size(boxes)
    columns = max(1, round(math.sqrt(height * _BOX_HEIGHT / (width * _BOX_WIDTH))))
    column, most = 0, math.ceil(height / columns)
    for start, end in zip([0, *cuts], [*cuts, len(boxes)]):
        if start and max(box.rank for box in boxes[:end] if box.column == column) >= most:
            column += 1
            _move(boxes[start:], column)
        _rank(boxes)


def _move(boxes: list[_Box], column: int) -> None:
    for box in boxes:
        box.column = column


def _rank(boxes: list[_Box]) -> None:
    for box in boxes:
        inputs = [boxes[source] for source, _ in box.inputs]
        box.rank = max((other.rank + 1 for other in inputs if other.column == box.column), default=0)


def _size(boxes: list[_Box]) -> tuple[int, int]:
    """Height and width in boxes."""
    ranks = [box.rank for box in boxes]
    return max(ranks, default=0) + 1, max(map(ranks.count, ranks), default=1)


def _graph(net: Outline, boxes: list[_Box], background: bool) -> str:
    """The picture in graphviz's language."""
    title = [f"{net.name or 'net'}, phase {net.phase}"]
    if net.whole:
        title.append(f"{net.parameter_count:,} parameters, {net.multiply_adds / 1e6:,.1f} M multiply-adds per image")
    lines = [
        'digraph net { rankdir=TB pad=0.2 nodesep=0.3 ranksep=0.3 fontname="Helvetica" fontsize=15 labelloc=t',
        f'fontcolor="{_INK}" bgcolor="{"#ffffff" if background else "transparent"}" label={_quoted(title)}',
        f'node [shape=plain fontname="Helvetica" fontsize=12 fontcolor="{_INK}"]',
        f'edge [color="{_SOFT}" arrowsize=0.7 fontname="Helvetica" fontsize=10 fontcolor="{_SOFT}"]',
    ]
    for number, box in enumerate(boxes):
        lines.append(f"n{number} [label={_label(net, box)}]")
        for source, blob in box.inputs:
            several = len({blob for other in boxes for at, blob in other.inputs if at == source}) > 1
            label = f"label={_quoted([f' {blob}'])} " if several else ""
            wrapped = "" if boxes[source].column == box.column else "constraint=false tailport=e headport=w"
            lines.append(f"n{source} -> n{number} [{label}{wrapped}]")
    tops = [next(n for n, box in enumerate(boxes) if box.column == c) for c in sorted({box.column for box in boxes})]
    if len(tops) > 1:
        lines.append(f"{{ rank=same {' -> '.join(f'n{top}' for top in tops)} [style=invis weight=0] }}")
    return "\n".join([*lines, "}"])


def _label(net: Outline, box: _Box) -> str:
    first = net.layers[box.layers[0]]
    color = _COLORS[kind(first.type)]
    rows = [f"<b>{_text(first.name)}</b>", _text(_type(net, box.layers[0]))]
    rows += [f'<font color="{_SOFT}">{_text(_type(net, i))}</font>' for i in box.layers[1:]]
    if first.problem:
        rows.append(f'<font color="{_RED}">{_text(first.problem.split(":")[0][:60])}</font>')
    elif first.shapes:
        shapes = ", ".join(_shape(shape) for shape in first.shapes)
        rows.append(f'<font point-size="10" color="{_SOFT}">{shapes}</font>')
    if first.parameter_count:
        rows.append(f'<font point-size="10" color="{_SOFT}">{first.parameter_count:,} parameters</font>')
    if box.references:
        rows.append(f'<font point-size="10" color="{_SOFT}">with {_text(", ".join(box.references))}</font>')
    return (
        f'<<table border="1" color="{color}" bgcolor="{color}26" style="rounded" cellborder="0" cellpadding="5">'
        f'<tr><td width="130">{"<br/>".join(rows)}</td></tr></table>>'
    )


def _type(net: Outline, i: int) -> str:
    return f"{net.layers[i].type} {describe.setting(net.net.layer[i]).replace('x', _TIMES)}".strip()


def _shape(shape: tuple[int, ...]) -> str:
    return f" {_TIMES} ".join(map(str, shape)) or "one value"


def _finish(svg: str, net: Outline, boxes: list[_Box]) -> str:
    """Center the texts in their boxes for any font, name tooltips by layers, and use the page's text color."""
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg.encode())
    root.set("class", "net-drawing")
    style = ElementTree.Element(f"{{{_SVG}}}style")
    style.text = _STYLE
    root.insert(0, style)
    for group in root.iter(f"{{{_SVG}}}g"):
        title = group.find(f"{{{_SVG}}}title")
        numbers = [int(number) for number in re.findall(r"n(\d+)", title.text or "")] if title is not None else []
        if group.get("class") == "node":
            title.text = ", ".join(net.layers[i].name for i in boxes[numbers[0]].layers)
            outline = next(part for part in group.iter() if part.get("points") or part.get("d"))
            across = [float(x) for x in re.findall(r"(-?[\d.]+),", outline.get("points") or outline.get("d"))]
            for text in group.iter(f"{{{_SVG}}}text"):
                text.set("x", f"{(min(across) + max(across)) / 2:g}")
                text.set("text-anchor", "middle")
        elif group.get("class") == "edge":
            title.text = " to ".join(net.layers[boxes[number].layers[0]].name for number in numbers)
        elif title is not None:
            title.text = net.name or "net"
    for part in root.iter():
        for name in ("fill", "stroke"):
            if part.get(name) in (_INK, _SOFT):
                part.set(f"{name}-opacity", "1" if part.get(name) == _INK else "0.75")
                part.set(name, "currentColor")
        if part.tag == f"{{{_SVG}}}text" and not part.get("fill"):
            part.set("fill", "currentColor")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _quoted(lines: list[str]) -> str:
    return '"' + r"\n".join(line.replace("\\", r"\\").replace('"', r"\"") for line in lines) + '"'
