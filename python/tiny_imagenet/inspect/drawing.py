"""A net as a picture: a box for each layer, what works in place on its blob written into the same box."""

from __future__ import annotations

import html
import shutil
import subprocess
from pathlib import Path

from tiny_imagenet import files
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import describe
from tiny_imagenet.inspect.outline import Outline
from tiny_imagenet.inspect.stand_in import SOURCE_TYPES

FORMATS = (".svg", ".png", ".pdf")
_TIMES = "\N{MULTIPLICATION SIGN}"
_INK, _EDGE, _PAPER = "#24292f", "#57606a", "#ffffff"
# fill and frame of each kind of layer
_COLORS = {
    "data": ("#eef1f4", "#8c959f"),
    "convolution": ("#dbeafe", "#3b82f6"),
    "pooling": ("#fef3c7", "#d97706"),
    "inner product": ("#dcfce7", "#16a34a"),
    "loss": ("#fee2e2", "#dc2626"),
    "other": ("#f5f3ff", "#8b5cf6"),
}


def kind(layer_type: str) -> str:
    """Which color a type of layer has."""
    if layer_type in SOURCE_TYPES or layer_type in ("Input", "DummyData"):
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
    """Write the picture; the name's ending says which format (svg, png, pdf).

    Raises:
        NetError: another ending, no graphviz, or the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise NetError(f"cannot draw {path.name!r}: the name must end in {', '.join(FORMATS)}")
    if shutil.which("dot") is None:
        raise NetError("drawing needs graphviz's program dot, which is not installed: apt-get install graphviz")
    kind = path.suffix[1:].lower()
    # Of an SVG, which has no dots, some versions of graphviz scale the drawing and not its frame.
    command = ["dot", f"-T{kind}", *(["-Gdpi=110"] if kind == "png" else [])]
    done = subprocess.run(command, input=graph(net).to_string().encode(), capture_output=True)
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split()) or f"exit status {done.returncode}"
        raise NetError(f"cannot draw {path}: graphviz's program dot failed: {said[:300]}")
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(done.stdout)


def graph(net: Outline):
    """The pydot graph of a net."""
    import pydot

    dot = pydot.Dot(
        "net", graph_type="digraph", rankdir="TB", bgcolor=_PAPER, pad="0.2", nodesep="0.35", ranksep="0.32"
    )
    dot.set_graph_defaults(fontname="Helvetica", fontsize="15", fontcolor=_INK, labelloc="t")
    title = f"{net.name or 'net'} ({net.phase.lower()})"
    if net.whole:
        title += f"\n{net.parameter_count:,} parameters, {net.multiply_adds / 1e6:,.1f} M multiply-adds an image"
    dot.set_label(_quoted(title))
    dot.set_node_defaults(shape="plain", fontname="Helvetica", fontsize="12", fontcolor=_INK)
    dot.set_edge_defaults(color=_EDGE, arrowsize="0.7", fontname="Helvetica", fontsize="10", fontcolor=_EDGE)
    boxes: list[list[int]] = []
    made_by: dict[str, int] = {}  # blob -> number of the box that holds its newest value
    edges = []
    for i, layer in enumerate(net.layers):
        if layer.in_place and len(layer.bottoms) == 1 and layer.bottoms[0] in made_by:
            boxes[made_by[layer.bottoms[0]]].append(i)
            continue
        boxes.append([i])
        edges += [(made_by[bottom], len(boxes) - 1, bottom) for bottom in layer.bottoms if bottom in made_by]
        made_by.update(dict.fromkeys(layer.tops, len(boxes) - 1))
    for number, members in enumerate(boxes):
        dot.add_node(pydot.Node(f"n{number}", label=_box(net, members)))
    for source, target, blob in edges:
        several = len(net.layers[boxes[source][0]].tops) > 1
        dot.add_edge(pydot.Edge(f"n{source}", f"n{target}", **({"label": _quoted(f" {blob}")} if several else {})))
    return dot


def _box(net: Outline, members: list[int]) -> str:
    first = net.layers[members[0]]
    fill, frame = _COLORS[kind(first.type)]
    rows = [f"<b>{_text(first.name)}</b>", _text(_type(net, members[0]))]
    rows += [f'<font color="{_EDGE}">{_text(_type(net, i))}</font>' for i in members[1:]]
    if first.problem:
        rows.append(f'<font color="#dc2626">{_text(first.problem.split(":")[0])}</font>')
    elif first.shapes:
        shapes = ", ".join(_shape(shape) for shape in first.shapes)
        count = f", {first.parameter_count:,} parameters" if first.parameter_count else ""
        rows.append(f'<font point-size="10" color="{_EDGE}">{shapes}{count}</font>')
    body = "<br/>".join(rows)
    return (
        f'<<table border="1" color="{frame}" bgcolor="{fill}" style="rounded" cellborder="0" cellpadding="5">'
        f'<tr><td width="150">{body}</td></tr></table>>'
    )


def _type(net: Outline, i: int) -> str:
    setting = describe.setting(net.net.layer[i])
    return f"{net.layers[i].type} {setting.replace('x', _TIMES)}".strip()


def _shape(shape: tuple[int, ...]) -> str:
    return f" {_TIMES} ".join(map(str, shape)) or "one value"


def _text(text: str) -> str:
    return html.escape(_printable(text), quote=False)


def _quoted(text: str) -> str:
    lines = [_printable(line).replace("\\", r"\\").replace('"', r"\"") for line in text.split("\n")]
    return '"' + r"\n".join(lines) + '"'


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
