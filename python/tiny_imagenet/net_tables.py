"""The result of net_benchmark as a table."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 150  # columns that the table takes


def show(result: dict[str, Any]) -> None:
    """Print a result of net_benchmark.nets; plain text where stdout is no terminal."""
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, WIDTH)
    settings, machine, rows = result["settings"], result["machine"], result["nets"]
    if settings["gpu"] is None:
        where = f"{machine['processor']}, {settings['threads']} threads"
    else:
        where = f"GPU {settings['gpu']}" + (f", {machine['gpu']}" if machine["gpu"] else "")
    how = ", the same bits in every run" if settings["deterministic"] else ""
    console.print(f"{where}{how}; {settings['rounds']} rounds of {settings['iterations']} iterations of training\n")
    if settings["void"]:
        console.print("--quick: the batches are too small for these figures to mean anything")
    console.print(_table(rows, box.SIMPLE_HEAD if console.is_terminal else None))
    console.print("images/s: best (median) round; x torch: ours over PyTorch's, best rounds; higher is better")
    if settings["gpu"] is not None:
        console.print("MB: what the GPU's memory grew by at most, CUDA's own included")
    if machine["torch"]:
        layout = ", channels_last" if settings["gpu"] is not None else ""
        console.print(f"PyTorch {machine['torch']}{layout}")
    for column, why in result["not_measured"].items():
        console.print(f"{column} was not measured: {why}")


def _table(rows: list[dict[str, Any]], border: box.Box | None) -> Table:
    table = Table(box=border, pad_edge=False)
    table.add_column("net", no_wrap=True)
    ways = list(rows[0]["measured"])
    titles = ["batch", "parameters"]
    for way in ways:
        titles += [f"{way} images/s", "MB"] + (["x torch"] if way.startswith("torch") else [])
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        cells = [row["model"], str(row["batch"]), f"{row['parameters']:,}"]
        for way in ways:
            found = row["measured"][way]
            rate, memory, ratio = found["images_per_second"], found["memory"], found.get("ours_over_this")
            cells += [f"{rate['best']:.0f} ({rate['median']:.0f})", "-" if memory is None else f"{memory / 1e6:,.0f}"]
            if way.startswith("torch"):
                cells.append(f"{ratio['best']:.2f}" if ratio else "-")
        table.add_row(*cells)
    return table
