"""Averages of several nets' predictions (section 4.3.1 of the paper): loading members, weights, search and scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, PredictionsError, RunError
from tiny_imagenet.evaluation import metrics, predictions, provenance
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run

OPTIMISTIC = "the weights were chosen on the images they are scored on, so this score is optimistic"
HELD_OUT = "each image was scored with weights chosen without it"
_ADVICE = "use predictions of one data set and split"


@dataclass(frozen=True)
class Search:
    """Result of a greedy search.

    Attributes:
        weights: one per member, summing to 1; 0 for a member that was not chosen.
        order: indices of the members in the order in which they were added, with repeats.
        top1: accuracy of the chosen average on the images it was chosen on.
        note: why `top1` is not an estimate for new images.
    """

    weights: tuple[float, ...]
    order: tuple[int, ...]
    top1: float
    note: str = OPTIMISTIC


@dataclass(frozen=True)
class HeldOut:
    """Scores of a greedy search on images that it did not use.

    Attributes:
        folds: of each fold its `count` of images, the `weights` chosen on the other folds, and the `top1` accuracy on
            it and that on the others (`chosen_on`).
        seed: of the assignment of images to folds.
        top1: fraction of all labelled images that are correct when held out.
        top1_interval: its 95 % Wilson interval, ignoring that the folds share training images.
        chosen_on: mean top-1 on the images used for choosing; the difference from `top1` is the optimism.
    """

    folds: tuple[dict[str, Any], ...]
    seed: int
    top1: float
    top1_interval: tuple[float, float]
    chosen_on: float
    note: str = HELD_OUT


def load(
    sources: Sequence[str | os.PathLike[str]],
    split: str = "val",
    ten_crop: bool = False,
    checkpoints: bool = False,
    data: str | os.PathLike[str] | None = None,
    gpu: int | None = None,
) -> list[Predictions]:
    """Load predictions from .npz files and run folders, in order.

    Args:
        sources: .npz files, and run folders with the predictions of their best checkpoint.
        split: of the predictions in run folders.
        ten_crop: take the predictions with ten crops from run folders.
        checkpoints: use all checkpoints of a run, oldest first, not the best one. Missing predictions are computed
            and stored in the checkpoint's folder.
        data: with `checkpoints`, the converted data folder; None for the one the run was trained on.
        gpu: with `checkpoints`, the GPU that computes; None for Caffe's current mode.

    Raises:
        PredictionsError: a file cannot be read or is not valid.
        RunError: a folder is not a run folder, or has no such predictions or no checkpoint.
        DatasetError: `data` is not a converted data set.
        GpuError: the GPU is missing or cannot be used.
    """
    found: list[Predictions] = []
    for source in sources:
        if not Path(source).is_dir():
            found.append(predictions.load(source))
        elif checkpoints:
            found += _of_checkpoints(Run(source), data, {"split": split, "ten_crop": ten_crop, "gpu": gpu})
        else:
            found.append(_of_run(Run(source), split, ten_crop))
    return found


def _of_run(run: Run, split: str, ten_crop: bool) -> Predictions:
    from tiny_imagenet.evaluation import evaluate  # imports Caffe, which predictions files do not need

    _ = run.info  # RunError unless it is a run folder
    file = evaluate.predictions_file(run, split, ten_crop)
    if not file.is_file():
        flags = ("" if split == "val" else f" --split {split}") + (" --ten-crop" if ten_crop else "")
        raise RunError(f"{run.path} has no {file.name}: make it with tools/evaluate.py {run.path}{flags}")
    return predictions.load(file)


def _of_checkpoints(run: Run, data: str | os.PathLike[str] | None, options: dict[str, Any]) -> list[Predictions]:
    from tiny_imagenet.evaluation import evaluate

    iterations = run.iterations() if run.info else []
    if not iterations:
        raise RunError(f"{run.path} has no checkpoint yet: train it with tools/train.py")
    if data is not None:
        evaluate.data_of(run, data)  # RunError if its classes differ
    folder = Path(data or str(run.info.get("data")))
    found = []
    for iteration in iterations:
        weights = run.weights(str(iteration))
        file = weights.with_name(evaluate.predictions_file(run, options["split"], options["ten_crop"]).name)
        given = _stored(file, weights, folder, options["split"])
        if given is None:
            name = f"{run.info.get('model') or run.path.resolve().name}@{iteration}"
            made = evaluate.predict_run(run, data, name=name, checkpoint=str(iteration), **options)
            predictions.save(file, made)
            given = predictions.load(file)
        found.append(given)
    return found


def _stored(file: Path, weights: Path, data: Path, split: str) -> Predictions | None:
    """Predictions of an earlier call, if they were made from these weights and the current records."""
    sources = [path for path in (weights, data / lmdb_reader.MANIFEST) if path.is_file()]
    if not file.is_file() or any(path.stat().st_mtime_ns > file.stat().st_mtime_ns for path in sources):
        return None
    given = predictions.load(file)
    try:
        entry = lmdb_reader.read_manifest(data)["lmdbs"].get(split) or {}
    except DatasetError:  # the data is missing, the predictions are still good
        return given
    return given if entry.get("sha256") in (None, given.records) else None


def average(members: Sequence[Predictions], weights: Sequence[float] | None = None) -> Predictions:
    """Return the weighted mean of the members' softmax outputs, in the first member's order of images.

    Images are matched by key. Weights are scaled to sum to 1 and are equal by default.

    Raises:
        PredictionsError: there are no members, a member is not valid, two differ in classes, keys or labels, or the
            weights are not one finite, non-negative number per member with a positive sum.
    """
    aligned = _align(members)
    shares = _shares(weights, len(members))
    total = np.zeros(aligned[0].shape, np.float64)
    for share, probabilities in zip(shares, aligned):
        total += share * probabilities
    meta: dict[str, Any] = {
        "name": "ensemble",
        "members": [
            {"name": member.name, "path": member.path, "weight": share, "meta": member.meta}
            for member, share in zip(members, shares)
        ],
    }
    for key in ("wnids", "class_names"):
        known = [member.meta[key] for member in members if key in member.meta]
        if known and all(value == known[0] for value in known):
            meta[key] = known[0]
    meta |= {key: value for key, value in shared(members).items() if value is not None}
    return Predictions(members[0].keys, members[0].labels, total.astype(np.float32), meta)


def shared(members: Sequence[Predictions]) -> dict[str, str | None]:
    """The common `split` and `crops` of members with the same images; `provenance.MIXED` if they differ.

    A member with an unknown split does not matter, one with unknown crops makes the crops None.
    """
    several = [provenance.of(member) for member in members]
    return {
        "split": provenance.common(one.split for one in several if one.split),
        "crops": provenance.common(one.crops for one in several),
    }


def search(members: Sequence[Predictions], rounds: int | None = None) -> Search:
    """Choose weights by greedy selection with replacement.

    Each of `rounds` rounds (by default at least 20) adds the member that gives the running average the highest top-1
    accuracy, and among equals the lowest loss. The shortest prefix with the highest accuracy is kept.

    Raises:
        PredictionsError: as `average`, or no label is known.
    """
    labels, candidates = _labelled(members)
    order, hits = _greedy(candidates, labels, rounds or max(20, 2 * len(members)))
    return Search(_counted(order, len(members)), tuple(order), hits / len(labels))


def hold_out(members: Sequence[Predictions], folds: int, seed: int = 0, rounds: int | None = None) -> HeldOut:
    """Score `search` on images that it did not use.

    The labelled images are assigned to `folds` folds of equal size, plus or minus one, depending on `seed` and the
    keys alone. For each fold the weights are chosen on the other folds and scored on it.

    Raises:
        PredictionsError: as `search`, or `folds` is not from 2 to the number of labelled images.
    """
    labels, candidates = _labelled(members)
    count = len(labels)
    if not 2 <= folds <= count:
        raise PredictionsError(f"expected from 2 to {count} folds for {count} labelled images, got {folds}")
    by_key = np.argsort(members[0].keys[members[0].labels >= 0])
    fold = np.empty(count, np.int64)
    fold[by_key[np.random.default_rng(seed).permutation(count)]] = np.arange(count) % folds
    rows, total = [], 0
    for number in range(folds):
        own = fold == number
        order, hits = _greedy([one[~own] for one in candidates], labels[~own], rounds or max(20, 2 * len(members)))
        weights = _counted(order, len(members))
        mean = sum(weight * one[own] for weight, one in zip(weights, candidates) if weight)
        right, size = int((mean.argmax(axis=1) == labels[own]).sum()), int(own.sum())
        total += right
        rows.append({"count": size, "weights": weights, "top1": right / size, "chosen_on": hits / (count - size)})
    chosen_on = sum(row["chosen_on"] for row in rows) / folds
    return HeldOut(tuple(rows), seed, total / count, metrics.wilson(total, count), chosen_on)


def describe(
    members: Sequence[Predictions], combined: Predictions, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return the scores of the members and of their average `combined`, with their provenance, as JSON can store it.

    It is {"split", "crops" (see `shared`), "records" (`Predictions.records`), "members": [{"path", "name", "model",
    "run", "checkpoint", "iteration", "split", "crops", scores ...}], "ensemble": {scores ...}, "weights": [...]} with
    the scores of `metrics.summary_if_labelled`; unknown values are None.
    """
    return {
        **shared(members),
        "records": combined.records,
        "members": [{**asdict(provenance.of(member)), **metrics.summary_if_labelled(member)} for member in members],
        "ensemble": metrics.summary_if_labelled(combined),
        "weights": _shares(weights, len(members)),
    }


def _labelled(members: Sequence[Predictions]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The known labels (m,) and each member's probabilities of these images, (m, classes) float64."""
    aligned = _align(members)
    metrics.labelled(members[0])
    known = members[0].labels >= 0
    return members[0].labels[known], [probabilities[known].astype(np.float64) for probabilities in aligned]


def _greedy(candidates: list[np.ndarray], labels: np.ndarray, rounds: int) -> tuple[list[int], int]:
    """The members in the order they are added, up to the best average, and its number of correct images."""
    rows = np.arange(len(labels))
    total = np.zeros_like(candidates[0])
    order: list[int] = []
    best_hits, best_length = -1, 0
    for _ in range(rounds):
        scores = []
        for index, candidate in enumerate(candidates):
            mean = (total + candidate) / (len(order) + 1)
            hits = int((mean.argmax(axis=1) == labels).sum())
            likelihood = np.log(np.maximum(mean[rows, labels], np.finfo(np.float32).tiny)).mean()
            scores.append((hits, float(likelihood), -index))
        hits, _likelihood, negative = max(scores)
        order.append(-negative)
        total += candidates[-negative]
        if hits > best_hits:
            best_hits, best_length = hits, len(order)
    return order[:best_length], best_hits


def _counted(order: list[int], members: int) -> tuple[float, ...]:
    return tuple(order.count(index) / len(order) for index in range(members))


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    values = np.asarray(weights, np.float64)
    if len(values) != count or not (np.isfinite(values).all() and (values >= 0).all() and (values > 0).any()):
        shown = ", ".join(f"{value:g}" for value in values)
        raise PredictionsError(f"expected {count} weights of at least 0, one per member and not all 0; got {shown}")
    return [float(value) for value in values / values.sum()]


def _align(members: Sequence[Predictions]) -> list[np.ndarray]:
    """Each member's probabilities in the first one's order of images."""
    if not members:
        raise PredictionsError("an ensemble needs at least one member")
    names = [f"member {number} ({member.path or member.name})" for number, member in enumerate(members, 1)]
    for name, member in zip(names, members):
        predictions.check(member, name)
    first = members[0]
    order = np.argsort(first.keys)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    aligned = []
    wnids, wnids_of = None, ""
    for name, member in zip(names, members):
        both = f"{names[0]} and {name}"
        if member.classes != first.classes:
            raise PredictionsError(f"{both} have {first.classes} and {member.classes} classes: {_ADVICE}")
        own = member.meta.get("wnids")
        if own and wnids and own != wnids:
            raise PredictionsError(f"{wnids_of} and {name} have different classes or orders of classes: {_ADVICE}")
        wnids, wnids_of = (wnids, wnids_of) if wnids else (own, name)
        by_key = np.argsort(member.keys)
        different = np.setxor1d(first.keys, member.keys)
        if len(different):
            counts = f"{len(first.keys)} and {len(member.keys)} images"
            some = f"{len(different)} are in only one of them, such as {str(different[0])!r}"
            raise PredictionsError(f"{both} have {counts}, of which {some}: {_ADVICE}")
        match = by_key[place]
        wrong = member.labels[match] != first.labels
        if wrong.any():
            key = str(first.keys[wrong][0])
            what = f"{int(wrong.sum())} of {len(wrong)} labels differ, such as that of {key!r}"
            raise PredictionsError(f"{both} have different labels ({what}): {_ADVICE}")
        aligned.append(member.probabilities[match])
    return aligned
