"""Table 2 of an experiment, next to the paper's, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tiny_imagenet import files
from tiny_imagenet.errors import RunError
from tiny_imagenet.evaluation import ensemble, metrics, predictions
from tiny_imagenet.models import paper, zoo
from tiny_imagenet.runs import Run


@dataclass
class Row:
    """A model or an ensemble.

    Attributes:
        name: name of the model or the ensemble.
        paper: the paper's validation top-1 in percent; None if it has none, or if the data is not the paper's.
        parameters: number of parameters; None for an ensemble.
        scores: by seed: top1 and top5 in percent (top5 is None with five classes or fewer) and the number of classes;
            of a model also epochs and seconds.
        failed: error messages by seed.
    """

    name: str
    paper: float | None = None
    parameters: int | None = None
    scores: dict[int, dict[str, float | None]] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def values(self, name: str) -> list[float]:
        """One of the scores for each seed."""
        return [scores[name] for scores in self.scores.values() if scores.get(name) is not None]


@dataclass
class Table:
    """The table of an experiment, made from the run folders.

    Attributes:
        out: folder of the experiment.
        models: names of the models that have a row in any case.
        comparable: whether the data has the paper's classes.
        failed: error messages by model and seed.
    """

    out: Path
    models: Sequence[str]
    comparable: bool
    failed: dict[tuple[str, int], str] = field(default_factory=dict)

    def write(self) -> list[Row]:
        """Write table2.md, table2.csv, table2.json and the predictions of new ensembles; return the rows."""
        rows = self._rows()
        files.write_json(self.out / "table2.json", [dataclasses.asdict(row) | _summary(row) for row in rows])
        files.write_text(self.out / "table2.csv", _csv(rows))
        files.write_text(self.out / "table2.md", markdown(rows))
        return rows

    def _rows(self) -> list[Row]:
        rows = {name: self._row(name) for name in [*zoo.MODELS, *zoo.VARIANTS]}
        folders = [path for path in self.out.glob("*/seed*") if path.name[4:].isdigit()]
        for run in map(Run, sorted(folders, key=lambda path: int(path.name[4:]))):
            row, seed = rows.get(run.path.parent.name), int(run.path.name[4:])
            if row and (row.name, seed) not in self.failed and is_evaluated(run):
                row.parameters = run.info["parameters"]
                row.scores[seed] = _percent(run.scores) | {n: run.info["finished"][n] for n in ("epochs", "seconds")}
        for (name, seed), error in self.failed.items():
            rows[name].failed[seed] = error
        made = [row for row in rows.values() if row.scores or row.failed or row.name in self.models]
        for known in paper.ENSEMBLES:
            row = Row(known.name, known.validation_accuracy if self.comparable else None)
            seeds = [set(rows[name].scores) for name in known.members]
            row.scores = {seed: _percent(self._average(known, seed)) for seed in sorted(set.intersection(*seeds))}
            made += [row] if row.scores else []
        return made

    def _row(self, name: str) -> Row:
        known = paper.PAPER.get(zoo.base(name)) if self.comparable else None
        return Row(name, known.validation_accuracy if known else None)

    def _average(self, known: paper.Ensemble, seed: int) -> dict[str, float | None]:
        """Scores of an ensemble; it is averaged unless its file is newer than those of its members."""
        members = [self.out / name / f"seed{seed}" / "predictions.npz" for name in known.members]
        name = "all" if len(members) == len(paper.PAPER) else "-".join(known.members)
        file = self.out / "ensembles" / f"seed{seed}" / f"{name}.npz"
        if file.is_file() and all(file.stat().st_mtime_ns > member.stat().st_mtime_ns for member in members):
            return metrics.summary(predictions.load(file))
        loaded = [predictions.load(member) for member in members]
        combined = ensemble.average(loaded)
        files.write_json(file.with_suffix(".json"), ensemble.describe(loaded, combined))
        predictions.save(file, combined)
        return metrics.summary(combined)


def is_evaluated(run: Run) -> bool:
    """Whether a run has the scores and predictions of its best checkpoint, and is finished."""
    try:
        best = int(run.weights("best").parent.name)
    except RunError:
        return False
    return "finished" in run.info and run.scores.get("checkpoint") == best and run.predictions.is_file()


def _percent(scores: dict[str, float | None]) -> dict[str, float | None]:
    shares = {name: None if scores[name] is None else 100 * scores[name] for name in ("top1", "top5")}
    return shares | {"classes": scores.get("classes")}


def _summary(row: Row) -> dict[str, float | None]:
    """Mean of top-1 over the seeds, and its standard deviation if there are several."""
    top1 = row.values("top1")
    deviation = statistics.stdev(top1) if len(top1) > 1 else None
    return {"mean": statistics.fmean(top1) if top1 else None, "standard_deviation": deviation}


def markdown(rows: list[Row]) -> str:
    """The table as Markdown: validation top-1 in percent, mean and standard deviation over the seeds.

    The paper's figures and the differences have columns only if a row has one.
    """
    compared = any(row.paper is not None for row in rows)
    titles = [
        "model",
        *(["paper, top-1 %"] if compared else []),
        "ours, top-1 %",
        *(["difference"] if compared else []),
    ]
    table = [[*titles, "ours, top-5 %", "parameters", "epochs", "seeds"]]
    for row in rows:
        top1, epochs = row.values("top1"), row.values("epochs")
        known = f"{row.paper:.2f}" if row.paper is not None else ""
        difference = f"{statistics.fmean(top1) - row.paper:+.2f}" if known and top1 else ""
        table.append(
            [
                row.name,
                *([known] if compared else []),
                _mean(top1) or ("failed" if row.failed else ""),
                *([difference] if compared else []),
                _mean(row.values("top5")),
                f"{row.parameters:,}" if row.parameters else "",
                f"{statistics.fmean(epochs):.4g}" if epochs else "",
                ", ".join(map(str, row.scores)),
            ]
        )
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    lines.insert(1, "|---" * len(table[0]) + "|")
    failed = [f"- {row.name}, seed {seed}: {error}" for row in rows for seed, error in row.failed.items()]
    return "\n".join([*lines, *(["", "Failed:", "", *failed] if failed else [])]) + "\n"


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}" if values else ""


def _csv(rows: list[Row]) -> str:
    """One line per model and seed."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["model", "seed", "paper_top1", "top1", "top5", "epochs", "seconds"])
    for row in rows:
        for seed, scores in row.scores.items():
            values = [scores.get(name) for name in ("top1", "top5", "epochs", "seconds")]
            writer.writerow([row.name, seed, row.paper, *("" if v is None else f"{v:.4f}" for v in values)])
    return stream.getvalue()
