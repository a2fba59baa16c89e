"""Results as tables, on a terminal, as plain text or as Markdown; and the progress of a measurement."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.programs import PASSES
from tiny_imagenet import cli

T = TypeVar("T")
WIDTH = 150  # columns of the tables
TITLES = {"training": "Training: forward, backward and update", "inference": "Inference: forward"}
Rows = list[list[str]]  # the first row contains the titles


def progress(turns: Sequence[T], name: Callable[[T], str]) -> Iterator[T]:
    """Yield `turns` and show the name of each before it: in a bar on a terminal, as lines elsewhere."""
    if not sys.stderr.isatty():
        for number, turn in enumerate(turns, 1):
            cli.note(f"{number} of {len(turns)}: {name(turn)}")
            yield turn
        return
    with Console(stderr=True).status("") as status:
        for number, turn in enumerate(turns, 1):
            status.update(f"{number} of {len(turns)}: {name(turn)}")
            yield turn


def show(subject: str, result: dict[str, Any], markdown: bool = False) -> None:
    """Print a result of layers, nets or where."""
    parts = {"layers": _layers, "nets": _nets, "where": _where}[subject](result)
    if result["settings"]["void"]:
        parts.append("--quick: too small for these figures to mean anything")
    parts += [f"{column} was not measured: {reason}" for column, reason in result["not_measured"].items()]
    if markdown:
        print("\n\n".join(_markdown(part) if isinstance(part, list) else part for part in parts))
        return
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, WIDTH)
    for part in parts:
        if isinstance(part, str):
            console.print(part)
            continue
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
        for title, cell in zip(part[0], part[1] if len(part) > 1 else part[0]):
            is_number = cell[:1].isdecimal() or cell[:1] in ("", "-")
            table.add_column(title, justify="right" if is_number else "left", no_wrap=True)
        for row in part[1:]:
            table.add_row(*row)
        console.print()
        console.print(table)
        console.print()


def _markdown(rows: Rows) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


def _pair(values: dict[str, float], digits: int = 0) -> str:
    """The best round and, in parentheses, the median."""
    return f"{values['best']:.{digits}f} ({values['median']:.{digits}f})"


def _layers(result: dict[str, Any]) -> list[str | Rows]:
    settings, machine, bandwidth = result["settings"], result["machine"], result["copy"]["bandwidth"]
    head = (
        f"{machine['processor']}, {settings['threads']} threads, {settings['rounds']} rounds; copy, read and written: "
    )
    head += " and ".join(f"{bandwidth[name] / 1e9:.1f} GB/s ({name} round)" for name in ("best", "median"))
    titles = ["layer", "blob", "place", "pass", "ours ms", "share", "stock ms", "share", "torch ms", "share"]
    rows = [[*titles, "ours/stock", "ours/torch"]]
    for row in result["rectifiers"]:
        cells = [row["layer"], "x".join(map(str, row["shape"])), "in" if row["in_place"] else "out of", row["pass"]]
        for found in row["measured"].values():
            cells += [_pair(found["ms"], 2), f"{100 * found['share']['best']:.0f} %"] if found else ["-", "-"]
        others = [row["measured"][name] for name in ("stock", "torch")]
        rows.append(cells + [f"{found['ours_over_this']['best']:.2f}" if found else "-" for found in others])
    data = [["layer", "records", "threads", "ms per batch", "images/s", "images/s/core", "x Data"]]
    for row in result["data"]:
        rates = _pair(row["images_per_second"]), _pair(row["images_per_core_second"])
        threads = str(row["threads"] or "default")
        data.append(
            [row["layer"], row["records"], threads, _pair(row["ms"], 1), *rates, f"{row['times_data']['best']:.2f}"]
        )
    legend = (
        "ms, images/s: best (median) round; share: of the bandwidth of the best copy in the same rounds, above 100 % "
        "if blobs stay in the cache; images/s/core: per second of processor time; ratios: of the best rounds"
    )
    return [head, rows, data, legend]


def _nets(result: dict[str, Any]) -> list[str | Rows]:
    settings, machine = result["settings"], result["machine"]
    place = f"{machine['processor']}, {settings['threads']} threads"
    if settings["gpu"] is not None:
        place = f"GPU {settings['gpu']}, {machine['gpu'] or 'name unknown'}"
    length = f"{settings['iterations']} iterations" if settings["iterations"] else f"{settings['seconds']:g} seconds"
    exact = ", deterministic" if settings["deterministic"] else ""
    parts: list[str | Rows] = [f"{place}{exact}; {settings['rounds']} rounds of {length}"]
    for task in settings["tasks"]:
        of_task = [row for row in result["nets"] if row["task"] == task]
        titles = ["net", "batch", "parameters"]
        for way in of_task[0]["measured"]:
            titles += [f"{way} images/s", "MB", *([] if way.startswith("ours") else [f"x {way.split()[0]}"])]
        rows = [titles]
        for row in of_task:
            cells = [row["model"], str(row["batch"]), f"{row['parameters']:,}"]
            for found in row["measured"].values():
                memory, ratio = found["memory"], found.get("ours_over_this")
                cells += [_pair(found["images_per_second"]), "-" if memory is None else f"{memory / 1e6:,.0f}"]
                cells += [_pair(ratio, 2)] if ratio else []
            rows.append(cells)
        parts += [TITLES[task], rows]
    memory = "peak of the process" if settings["gpu"] is None else "growth of the GPU's memory, CUDA included"
    parts.append(
        "images/s: best (median) round; x torch, x stock: ours over theirs, of the best rounds (median of the "
        f"ratios); MB: {memory}"
    )
    if machine["torch"]:
        own = f", {machine['torch_memory'] / 1e6:.0f} MB without a net" if settings["gpu"] is None else ""
        parts.append(f"PyTorch {machine['torch']}, channels_last{own}")
    return parts


def _where(result: dict[str, Any]) -> list[str | Rows]:
    limits, settings, programs = result["limits"], result["settings"], list(result["iteration"])
    head = (
        f"{result['model']}, batch {result['batch']}, {result['machine']['processor']}, {settings['threads']} threads; "
        f"best of {settings['rounds']} rounds. Limits: sgemm {limits['sgemm'] / 1e9:.0f} GFLOP/s, "
        f"copy {limits['copy'] / 1e9:.1f} GB/s."
    )
    versus = ["ours over stock"] if "stock" in programs else []
    layers = [["layer", "output", "GFLOP", "MB"]]
    kinds = [["type", "GFLOP", "MB"]]
    for program in programs:
        layers[0] += [f"{program} forward", "backward", "% sgemm", "% copy"]
        kinds[0] += [program, "% of all", "% sgemm", "% copy"]
    layers[0] += versus
    kinds[0] += versus
    for layer in result["layers"]:
        cells = [layer["name"], "x".join(map(str, layer["shape"][1:])) or "1", *_needs(layer)]
        sums = {}
        for program, found in layer["measured"].items():
            best = [found["ms"][direction]["best"] for direction in PASSES]
            sums[program] = sum(best)
            cells += [f"{best[0]:.2f}", f"{best[1]:.2f}", *_percents(found)]
        layers.append(cells + _ratio(sums))
    whole = {program: values["best"] for program, values in result["iteration"].items()}
    rest = dict(whole)
    for kind in result["kinds"]:
        cells = [kind["type"], *_needs(kind)]
        for program, found in kind["measured"].items():
            rest[program] = max(rest[program] - found["ms"], 0)
            cells += [f"{found['ms']:.1f}", f"{100 * found['ms'] / whole[program]:.0f}", *_percents(found)]
        kinds.append(cells + _ratio({program: found["ms"] for program, found in kind["measured"].items()}))
    for name, values in (("update and the rest", rest), ("iteration of training", whole)):
        cells = [name, "", ""]
        for program in programs:
            cells += [f"{values[program]:.1f}", f"{100 * values[program] / whole[program]:.0f}", "", ""]
        kinds.append(cells + _ratio(values))
    legend = (
        "ours, stock, forward, backward: milliseconds; ours over stock: how many times as fast. GFLOP, MB: required by "
        "the layer's definition, forward and backward; MB of float32, each array once. % sgemm, % copy: of the "
        "machine's limits; above 100 if an algorithm needs fewer products or arrays stay in the cache."
    )
    return [head, layers, kinds, legend]


def _needs(row: dict[str, Any]) -> list[str]:
    flop, moved = (sum(row[key].values()) if isinstance(row[key], dict) else row[key] for key in ("flop", "bytes"))
    return [f"{flop / 1e9:.2f}" if flop else "", f"{moved / 1e6:.1f}"]


def _percents(found: dict[str, Any]) -> list[str]:
    return [f"{100 * found['sgemm']:.0f}" if found["sgemm"] else "", f"{100 * found['copy']:.0f}"]


def _ratio(ms: dict[str, float]) -> list[str]:
    return [f"{ms['stock'] / max(ms['ours'], 1e-3):.2f}"] if "stock" in ms else []
