"""The result of net_benchmark as tables."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from benchmarks.wide_page import page, pair

TITLES = {"training": "Training: forward, backward and update", "inference": "Inference: forward alone"}


def show(result: dict[str, Any]) -> None:
    """Print a result of net_benchmark.nets; plain text where stdout is no terminal."""
    console, border = page()
    settings, machine, rows = result["settings"], result["machine"], result["nets"]
    if settings["gpu"] is None:
        where = f"{machine['processor']}, {settings['threads']} threads"
    else:
        where = f"GPU {settings['gpu']}" + (f", {machine['gpu']}" if machine["gpu"] else "")
    how = ", the same bits in every run" if settings["deterministic"] else ""
    many = (
        f"{settings['iterations']} iterations" if settings["iterations"] else f"{settings['seconds']:g} seconds or more"
    )
    console.print(f"{where}{how}; {settings['rounds']} rounds of {many}")
    if settings["void"]:
        console.print("--quick: the batches are too small for these figures to mean anything")
    for task in settings["tasks"]:
        console.print(f"\n{TITLES[task]}\n")
        of_task = [row for row in rows if row["task"] == task]
        console.print(_table(of_task, border))
    console.print(
        "\nimages/s: best (median) round; x torch, x stock: our images a second over theirs, of the best rounds"
    )
    console.print("(the median of the rounds' ratios); higher is better")
    if settings["gpu"] is not None:
        console.print("MB: what the GPU's memory grew by at most, CUDA's own included")
    else:
        console.print("MB: the most that was resident of the process (VmHWM), its program and libraries included")
    if machine["torch"]:
        own = f", {machine['torch_memory'] / 1e6:.0f} MB before it has a net; malloc keeps what is freed, for speed"
        own = own if settings["gpu"] is None else ""
        console.print(f"PyTorch {machine['torch']}, channels_last{own}")
    for column, why in result["not_measured"].items():
        console.print(f"{column} was not measured: {why}")


def _table(rows: list[dict[str, Any]], border: box.Box | None) -> Table:
    table = Table(box=border, pad_edge=False)
    table.add_column("net", no_wrap=True)
    ways = list(rows[0]["measured"])
    titles = ["batch", "parameters"]
    for way in ways:
        titles += [f"{way} images/s", "MB"]
        titles += [] if way.startswith("ours") else [f"x {way.split()[0]}"]
    for title in titles:
        table.add_column(title, justify="right")
    for row in rows:
        cells = [row["model"], str(row["batch"]), f"{row['parameters']:,}"]
        for way in ways:
            found = row["measured"][way]
            rate, memory, ratio = found["images_per_second"], found["memory"], found.get("ours_over_this")
            cells += [pair(rate, 0), "-" if memory is None else f"{memory / 1e6:,.0f}"]
            cells += [pair(ratio, 2)] if ratio else []
        table.add_row(*cells)
    return table
