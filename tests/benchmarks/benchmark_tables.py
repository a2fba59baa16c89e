"""The results of benchmark as tables."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table

from benchmarks.benchmark import PROGRAMS
from benchmarks.timing import STATISTICS
from benchmarks.wide_page import page, pair


def show(result: dict[str, Any]) -> None:
    """Print a result of benchmark.layers as tables; plain text where stdout is no terminal."""
    console, border = page()
    settings, copy, machine = result["settings"], result["copy"], result["machine"]
    best, median = (f"{copy['bandwidth'][name] / 1e9:.1f} GB/s ({copy['best'][name]})" for name in STATISTICS)
    console.print(
        f"{machine['processor']}, {machine['cores']} cores; {settings['threads']} threads, {settings['rounds']} rounds"
    )
    if settings["void"]:
        console.print("--quick: the blobs are too small for these figures to mean anything")
    console.print(f"copy, read and written: {best} in the best round, {median} in the median one\n")
    console.print(_rectifier_table(result["rectifiers"], border))
    console.print("ms: best (median) round; ours/...: of the times of the best rounds")
    console.print("share: bytes over the time of the best round, of the bandwidth of the best copy in the same rounds")
    console.print("above 100 %: the blobs stayed in the cache in part, or other programs slowed the copies")
    for column, why in result["not_measured"].items():
        console.print(f"{column} was not measured: {why}")
    if machine["torch"]:
        console.print(f"PyTorch {machine['torch']}; it has no PReLU in place")
    console.print()
    console.print(_data_table(result["data"], border))
    console.print(
        "best (median) round; images/s/core: in a second of processor time; x Data: that over Data's, best rounds"
    )


def _rectifier_table(rows: list[dict[str, Any]], border: box.Box | None) -> Table:
    table = Table(box=border, pad_edge=False)
    for name in ("layer", "blob", "place", "pass"):
        table.add_column(name, no_wrap=True)
    for name in ("ours ms", "share", "stock ms", "share", "torch ms", "share", "ours/stock", "ours/torch"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        measured = row["measured"]
        cells = [row["layer"], "x".join(map(str, row["shape"])), "in" if row["in_place"] else "out of", row["pass"]]
        for program in PROGRAMS:
            found = measured[program]
            cells += [pair(found["ms"], 2), f"{100 * found['share']['best']:.0f} %"] if found else ["-", "-"]
        for program in PROGRAMS[1:]:
            found = measured[program]
            cells.append(f"{found['ours_over_this']['best']:.2f}" if found else "-")
        table.add_row(*cells)
    return table


def _data_table(rows: list[dict[str, Any]], border: box.Box | None) -> Table:
    table = Table(box=border, pad_edge=False)
    for name in ("layer", "records"):
        table.add_column(name, no_wrap=True)
    for name in ("threads", "ms a batch", "images/s", "images/s/core", "x Data"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["layer"],
            row["records"],
            str(row["threads"] or "default"),
            pair(row["ms"], 1),
            pair(row["images_per_second"], 0),
            pair(row["images_per_core_second"], 0),
            f"{row['times_data']['best']:.2f}",
        )
    return table
