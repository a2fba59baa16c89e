"""The result of net_benchmark as a figure: how many times as fast as the others ours is, net by net."""

from __future__ import annotations

from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from tiny_imagenet.report import figures

COLOURS = {"ours": figures.PALETTE[2], "torch": figures.PALETTE[4], "stock": figures.PALETTE[0]}
NAMES = {"ours": "ours", "torch": "PyTorch", "stock": "stock Caffe"}


def draw(result: dict[str, Any]) -> Figure:
    """Draw a result of net_benchmark.nets: a panel for each task (row) and batch (column), a group of bars a net.

    A bar is our images a second as a multiple of PyTorch's or stock Caffe's, of the best rounds; where ours alone was
    measured, it is the images a second. Under each net stand ours.
    """
    rows = result["nets"]
    tasks = list(result["settings"]["tasks"])
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    panels = {
        (task, batch): [row for row in rows if (row["task"], row["batch"]) == (task, batch)]
        for task in tasks
        for batch in batches
    }
    measured = list(rows[0]["measured"])
    others = [way for way in measured if not way.startswith("ours")]
    groups = max(map(len, panels.values()))
    with rc_context(figures.STYLE):
        size = max(3.6, 0.7 + groups * (0.25 + 0.17 * len(others or measured))) * len(batches), 2.6 * len(tasks)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(tasks), len(batches), squeeze=False, sharey="row")
        for (task, batch), axes in zip(panels, grid.flat):
            bars = _panel(axes, panels[task, batch], others or measured)
            axes.set_title(f"{task.capitalize()}, batch {batch}", loc="left")
        for line in grid:
            line[0].set_ylabel("Ours: times as fast as" if others else "Images a second")
        figures.legend_below(figure, bars)
    return figure


def _panel(axes: Any, rows: list[dict[str, Any]], ways: list[str]) -> list[Any]:
    """The bars of the nets, and of each way what stands for it in a legend."""
    bars = []
    size = 0.8 / len(ways)
    for index, way in enumerate(ways):
        program, _, rounding = way.partition(" ")
        places = [group + (index - (len(ways) - 1) / 2) * size for group in range(len(rows))]
        found = [row["measured"][way] for row in rows]
        values = [one.get("ours_over_this", one["images_per_second"])["best"] for one in found]
        look = {
            "color": COLOURS[program],
            "edgecolor": "white",
            "linewidth": 0.4,
            "hatch": "////" if rounding else None,
        }
        bars.append(axes.bar(places, values, size, label=f"{NAMES[program]} {rounding}".strip(), **look))
        texts = [f"{value:.1f}" if value < 100 else f"{value:.0f}" for value in values]
        axes.bar_label(bars[-1], texts, padding=1.5, fontsize=7)
    if any(not way.startswith("ours") for way in ways):
        axes.axhline(1, color=figures.INK, linewidth=0.8, linestyle=figures.DASHES[1])  # as fast as the other
    rates = [row["measured"]["ours" if "ours" in row["measured"] else "ours TF32"]["images_per_second"] for row in rows]
    names = [f"{row['model'].removeprefix('model')}\n{rate['best']:.0f}/s" for row, rate in zip(rows, rates)]
    axes.set_xticks(range(len(rows)), names)
    axes.set_xlabel("Model, and our images a second")
    axes.grid(axis="y", color=figures.INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)  # room for the numbers
    axes.tick_params(axis="x", length=0)
    return bars
