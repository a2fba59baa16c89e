"""The result of layer_shares as tables: text, or Markdown to paste into a document."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.wide_page import page

Rows = list[list[str]]  # the first are the titles


def show(result: dict[str, Any]) -> None:
    """Print a result of layer_shares.layers; plain text where stdout is no terminal."""
    console, border = page()
    console.print(_heading(result))
    if result["settings"]["void"]:
        console.print("--quick: too small for these figures to mean anything")
    for rows in (_layers(result), _kinds(result)):
        table = Table(box=border, pad_edge=False)
        for column, title in enumerate(rows[0]):
            table.add_column(title, justify="right" if column else "left", no_wrap=True)
        for row in rows[1:]:
            table.add_row(*row)
        console.print()
        console.print(table)
    console.print("\n" + _legend())
    for program, why in result["not_measured"].items():
        console.print(f"{program} was not measured: {why}")


def markdown(result: dict[str, Any]) -> str:
    """The same as Markdown."""
    parts = [_heading(result)]
    for rows in (_layers(result), _kinds(result)):
        rule = ["---", *["---:"] * (len(rows[0]) - 1)]
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])))
    return "\n\n".join([*parts, _legend()]) + "\n"


def _heading(result: dict[str, Any]) -> str:
    limits, settings = result["limits"], result["settings"]
    processor = result["machine"]["processor"]
    return (
        f"{result['model']}, batch {result['batch']}, on {processor}, {settings['threads']} threads; "
        f"best of {settings['rounds']} rounds. Limits: sgemm {limits['sgemm'] / 1e9:.0f} GFLOP/s, "
        f"copy {limits['copy'] / 1e9:.1f} GB/s."
    )


def _legend() -> str:
    return (
        "ours, stock, forward, backward: milliseconds; ours over stock: how many times as fast. GFLOP, MB: what the "
        "layer's definition needs, forward and backward together; MB of float32, each array once. % sgemm, % copy: of "
        "the machine's limits; above 100 where fewer products do or arrays stay in the cache."
    )


def _layers(result: dict[str, Any]) -> Rows:
    programs = list(result["iteration"])
    titles = ["layer", "output", "GFLOP", "MB"]
    for program in programs:
        titles += [f"{program} forward", "backward", "% sgemm", "% copy"]
    rows = [titles + _versus_title(programs)]
    for layer in result["layers"]:
        cells = [layer["name"], "x".join(map(str, layer["shape"][1:])) or "1"]
        cells += _needs(sum(layer["flop"].values()), sum(layer["bytes"].values()))
        sums = {}
        for program in programs:
            found = layer["measured"][program]
            best = [found["ms"][direction]["best"] for direction in ("forward", "backward")]
            sums[program] = sum(best)
            cells += [f"{best[0]:.2f}", f"{best[1]:.2f}", *_percents(layer["flop"]["forward"], found)]
        rows.append(cells + _versus(sums))
    return rows


def _kinds(result: dict[str, Any]) -> Rows:
    programs = list(result["iteration"])
    titles = ["type", "GFLOP", "MB"]
    for program in programs:
        titles += [program, "% of all", "% sgemm", "% copy"]
    rows = [titles + _versus_title(programs)]
    whole = {program: values["best"] for program, values in result["iteration"].items()}
    sums = dict.fromkeys(programs, 0.0)
    for kind in result["kinds"]:
        cells = [kind["type"], *_needs(kind["flop"], kind["bytes"])]
        for program in programs:
            found = kind["measured"][program]
            sums[program] += found["ms"]
            cells += [*_part(found["ms"], whole[program]), *_percents(kind["flop"], found)]
        rows.append(cells + _versus({program: kind["measured"][program]["ms"] for program in programs}))
    left = {program: max(whole[program] - sums[program], 0) for program in programs}
    for name, values in (("update and the rest", left), ("iteration of training", whole)):
        cells = [name, "", ""]
        for program in programs:
            cells += [*_part(values[program], whole[program]), "", ""]
        rows.append(cells + _versus(values))
    return rows


def _needs(flop: int, moved: int) -> list[str]:
    return [f"{flop / 1e9:.2f}" if flop else "", f"{moved / 1e6:.1f}"]


def _percents(flop: int, found: dict[str, Any]) -> list[str]:
    return [f"{100 * found['sgemm']:.0f}" if flop else "", f"{100 * found['copy']:.0f}"]


def _part(ms: float, whole: float) -> list[str]:
    return [f"{ms:.1f}", f"{100 * ms / whole:.0f}"]


def _versus_title(programs: list[str]) -> list[str]:
    return ["ours over stock"] if "stock" in programs else []


def _versus(ms: dict[str, float]) -> list[str]:
    return [f"{ms['stock'] / max(ms['ours'], 1e-3):.2f}"] if "stock" in ms else []
