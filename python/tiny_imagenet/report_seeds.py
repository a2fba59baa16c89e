"""Runs that differ in nothing but their seed: which they are, and their mean."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tiny_imagenet.report_values import share

# what run.json says of how a run was trained; the seed, the machine and the time are not among it
SETTINGS = (
    *("source", "stages", "init", "batch", "iter_size", "max_iter", "base_lr", "weight_decay", "lmdbs", "classes"),
    *("train_images", "nonlinearity", "screened", "parameters", "schedule"),
)


def groups(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[int]]:
    """The indexes of runs (model, run.json) by how they were trained, in the order of each group's first run.

    A run whose seed nobody knows, or that another of its group has already, is a group of its own.
    """
    found: dict[tuple[str, str], dict[Any, int]] = {}
    for index, (model, info) in enumerate(runs):
        how = json.dumps([info.get(key) for key in SETTINGS], sort_keys=True)
        seeds = found.setdefault((model, how), {})
        seed = info.get("seed")
        if isinstance(seed, int) and seed not in seeds:
            seeds[seed] = index
        else:
            found[model, f"{how} {index}"] = {seed: index}
    return sorted([*seeds.values()] for seeds in found.values() if seeds)


def mean(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The means of `top1`, `top5` and `error` of runs with top1; `deviation` is the standard deviation of top1."""
    values = {key: [share(summary.get(key)) for summary in summaries] for key in ("top1", "top5", "error")}
    means = {key: None if None in several else statistics.fmean(several) for key, several in values.items()}
    return {**means, "deviation": statistics.stdev(values["top1"])}
