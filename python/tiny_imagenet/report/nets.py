"""What a page shows of the nets that runs have trained: their layers, and a picture where graphviz is there."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.inspect import describe, drawing, outline
from tiny_imagenet.report import values

_TIMES = " \N{MULTIPLICATION SIGN} "


def of(runs: Iterable[tuple[str, Path]]) -> list[dict[str, Any]]:
    """The nets of runs (name, deploy.prototxt), each once: seeds of a model share theirs. Missing files are left out.

    Returns:
        Of each net `runs` (their names), `name`, `rows`, `totals`, `drawing` (None without graphviz) and `problem`,
        why there are no rows, or "". A row has the texts `layer`, `type`, `output`, `parameters` and `multiply_adds`.
    """
    nets: dict[bytes, dict[str, Any]] = {}
    for name, path in runs:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if content not in nets:
            nets[content] = {"runs": [], **_net(path, f"net-{len(nets) + 1}")}
        nets[content]["runs"].append(name)
    return list(nets.values())


def _net(path: Path, prefix: str) -> dict[str, Any]:
    try:
        source = describe.load(str(path), path.parent)
        net = outline.outline(source.net, "TEST")
    except TinyImageNetError as error:
        return {"name": "", "rows": [], "totals": None, "drawing": None, "problem": str(error)}
    rows = [_row(net, number) for number in range(len(net.layers))]
    totals = (f"{net.parameter_count:,}", f"{net.multiply_adds:,}") if net.whole else None
    return {"name": net.name, "rows": rows, "totals": totals, "drawing": _drawing(net, prefix), "problem": ""}


def _row(net: outline.Outline, number: int) -> dict[str, str]:
    layer = net.layers[number]
    shapes = None if layer.shapes is None else ", ".join(_TIMES.join(map(str, s)) or "1" for s in layer.shapes)
    return {
        "layer": layer.name,
        "type": f"{layer.type} {describe.setting(net.net.layer[number])}".strip(),
        "output": "?" if shapes is None else f"{shapes} in place" if layer.in_place else shapes,
        "parameters": f"{layer.parameter_count:,}" if layer.parameter_count else "",
        "multiply_adds": f"{layer.multiply_adds // net.batch:,}" if layer.multiply_adds else "",
    }


def _drawing(net: outline.Outline, prefix: str) -> Markup | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.svg"
        try:
            drawing.draw(net, file)
        except TinyImageNetError:  # no graphviz, or one that cannot: the table says the same
            return None
        text = file.read_text(encoding="utf-8")
    # the comments have graphviz's version, the titles only what the nodes are called
    text = re.sub(r"<!--.*?-->|<title>.*?</title>\n?", "", text[text.index("<svg") :], flags=re.DOTALL)
    return values.inline(text, prefix, f"{net.name or 'the net'}: its layers from top to bottom")
