"""The page's nets: tables of layers, and drawings if graphviz is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tiny_imagenet.errors import TinyImageNetError
from tiny_imagenet.inspect import describe, drawing, outline
from tiny_imagenet.report import figures
from tiny_imagenet.report.folders import Folder

COLUMNS = (("Layer", False), ("Type", False), ("Output", False), ("Parameters", True), ("Multiply-adds", True))
_TIMES = " \N{MULTIPLICATION SIGN} "


def of(several: Sequence[Folder]) -> list[dict[str, Any]]:
    """The deploy nets of runs, each once; missing files are left out.

    Returns:
        `runs` (their names), `columns`, `rows`, `totals` (parameters and multiply-adds), `drawing` (None without
        graphviz) and `problem` (why there are no rows) of each net.
    """
    nets: dict[bytes, dict[str, Any]] = {}
    for folder in several:
        path = folder.run.deploy
        if not path.is_file():
            continue
        content = path.read_bytes()
        if content not in nets:
            nets[content] = {"runs": [], **_net(path, f"net-{len(nets) + 1}")}
        nets[content]["runs"].append(folder.name)
    return list(nets.values())


def _net(path: Path, prefix: str) -> dict[str, Any]:
    try:
        net = outline.outline(describe.load(str(path), path.parent).net, "TEST")
    except TinyImageNetError as error:
        return {"columns": COLUMNS, "rows": [], "totals": None, "drawing": None, "problem": str(error)}
    rows = [describe.cells(net, number, _TIMES) for number in range(len(net.layers))]
    totals = (f"{net.parameter_count:,}", f"{net.multiply_adds:,}") if net.whole else None
    return {"columns": COLUMNS, "rows": rows, "totals": totals, "drawing": _drawing(net, prefix), "problem": ""}


def _drawing(net: outline.Outline, prefix: str) -> Markup | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.svg"
        try:
            drawing.draw(net, file)
        except TinyImageNetError:  # graphviz is missing; the table has the same information
            return None
        text = file.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    return figures.inline(text, prefix, f"{net.name or 'the net'}: its layers from top to bottom")
