"""Table 2 beside ours, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tiny_imagenet import files
from tiny_imagenet.models import paper, zoo


@dataclass
class Row:
    """A model's or an ensemble's line of Table 2.

    Attributes:
        name: of the model, or of the members with " + " between them.
        paper: the paper's validation top-1 in percent; None for a model that the paper does not have.
        parameters: of the net; None for an ensemble.
        scores: by seed: top1, top5 (per cent; None with five classes or fewer), classes, and for a model epochs and
            seconds.
        failed: what went wrong, by seed.
    """

    name: str
    paper: float | None
    parameters: int | None = None
    scores: dict[int, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def values(self, name: str) -> list[float]:
        """One of the scores, over the seeds."""
        return [scores[name] for scores in self.scores.values() if scores.get(name) is not None]


class Table:
    """Table 2 in the making.

    Attributes:
        rows: of the models, in their order, and of the ensembles that have scores.
    """

    def __init__(self, out: Path, models: Iterable[str]):
        """`models` are in the order of their rows."""
        self._out = out
        known = {name: paper.PAPER.get(zoo.base(name)) for name in models}
        self._models = [Row(name, model.validation_accuracy if model else None) for name, model in known.items()]
        self._ensembles = [Row(known.name, known.validation_accuracy) for known in paper.ENSEMBLES]

    @property
    def rows(self) -> list[Row]:
        return self._models + [row for row in self._ensembles if row.scores]

    def fail(self, name: str, seed: int, why: str) -> None:
        """Note what went wrong with a seed of the row `name`."""
        self._row(name).failed[seed] = why

    def add(self, name: str, seed: int, parameters: int | None, scores: dict[str, float | None]) -> None:
        """Take in what `Row` has of a seed of the row `name`."""
        row = self._row(name)
        row.parameters = parameters
        row.scores = dict(sorted({**row.scores, seed: scores}.items()))

    def _row(self, name: str) -> Row:
        return next(row for row in self._models + self._ensembles if row.name == name)

    def write(self) -> None:
        """Write table2.md, table2.csv and table2.json."""
        table = [{**dataclasses.asdict(row), **_spread(row.values("top1"))} for row in self.rows]
        files.write_json(self._out / "table2.json", table)
        files.write_text(self._out / "table2.csv", _csv(self.rows))
        files.write_text(self._out / "table2.md", markdown(self.rows))


def _spread(values: list[float]) -> dict[str, float | None]:
    """Mean, and standard deviation where there are several."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values) if values else None, "standard_deviation": deviation}


def markdown(rows: list[Row]) -> str:
    """The table as Markdown: validation top-1 in per cent, ours as mean and standard deviation over the seeds."""
    lines = [
        "| model | paper, top-1 % | ours, top-1 % | difference | ours, top-5 % | parameters | epochs | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        top1, epochs = row.values("top1"), row.values("epochs")
        cells = [
            row.name,
            "" if row.paper is None else f"{row.paper:.2f}",
            _with_spread(top1) or ("failed" if row.failed else ""),
            f"{statistics.fmean(top1) - row.paper:+.2f}" if top1 and row.paper is not None else "",
            _with_spread(row.values("top5")),
            f"{row.parameters:,}" if row.parameters else "",
            f"{statistics.fmean(epochs):.4g}" if epochs else "",
            ", ".join(map(str, row.scores)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    other = sorted({classes for row in rows for classes in row.values("classes")} - {paper.CLASSES})
    if other:
        what = f"{' or '.join(f'{classes:g}' for classes in other)} classes of another data set"
        lines += [
            "",
            f"Not comparable: the paper's figures are of Tiny ImageNet's {paper.CLASSES} classes, ours of {what}.",
        ]
    failed = [f"- {row.name}, seed {seed}: {why}" for row in rows for seed, why in row.failed.items()]
    return "\n".join(lines) + "\n" + ("\nFailed:\n\n" + "\n".join(failed) + "\n" if failed else "")


def _with_spread(values: list[float]) -> str:
    if not values:
        return ""
    spread = _spread(values)
    return f"{spread['mean']:.2f}" + (f" ± {spread['standard_deviation']:.2f}" if len(values) > 1 else "")


def _csv(rows: list[Row]) -> str:
    """One line a model and seed."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "seed", "paper_top1", "top1", "top5", "epochs", "seconds"])
    for row in rows:
        for seed, scores in row.scores.items():
            rest = [scores.get(name) for name in ("top1", "top5", "epochs", "seconds")]
            writer.writerow([row.name, seed, row.paper, *("" if v is None else f"{v:.4f}" for v in rest)])
    return stream.getvalue()
