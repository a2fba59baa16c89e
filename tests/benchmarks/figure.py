"""A result of nets as bars: how many times as fast as PyTorch or stock Caffe each net is."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from tiny_imagenet.report import figures

COLOURS = {"ours": figures.PALETTE[2], "torch": figures.PALETTE[4], "stock": figures.PALETTE[0]}


def draw(result: dict[str, Any]) -> Figure:
    """Draw a panel per task (rows) and batch (columns), with a group of bars per net.

    A bar is our images per second over theirs in the best rounds, or without others our images per second.
    """
    tasks = result["settings"]["tasks"]
    batches = list(dict.fromkeys(row["batch"] for row in result["nets"]))
    measured = list(result["nets"][0]["measured"])
    others = [way for way in measured if not way.startswith("ours")]
    ways = others or measured
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(6 * len(batches), 2.6 * len(tasks)), layout="constrained")
        grid = figure.subplots(len(tasks), len(batches), squeeze=False, sharey="row")
        for task, line in zip(tasks, grid):
            line[0].set_ylabel("Times as fast" if others else "Images per second")
            for batch, axes in zip(batches, line):
                rows = [row for row in result["nets"] if (row["task"], row["batch"]) == (task, batch)]
                axes.set_title(f"{task.capitalize()}, batch {batch}", loc="left")
                axes.set_xticks(range(len(rows)), [row["model"] for row in rows])
                bars = [
                    _bars(axes, rows, way, (index + 0.5) / len(ways), 0.8 / len(ways)) for index, way in enumerate(ways)
                ]
        figures.legend_below(figure, bars)
    return figure


def _bars(axes: Any, rows: list[dict[str, Any]], way: str, place: float, width: float) -> Any:
    found = [row["measured"][way] for row in rows]
    values = [one.get("ours_over_this", one["images_per_second"])["best"] for one in found]
    places = [index + 0.8 * (place - 0.5) for index in range(len(rows))]
    hatch = "////" if way.endswith("TF32") else None
    bars = axes.bar(places, values, width, label=way, color=COLOURS[way.split()[0]], hatch=hatch, edgecolor="white")
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=1.5, fontsize=7)
    return bars
