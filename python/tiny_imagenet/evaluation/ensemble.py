"""Averaging several nets' predictions (the paper's section 4.3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tiny_imagenet.errors import PredictionsError
from tiny_imagenet.evaluation import metrics, pedigree
from tiny_imagenet.evaluation.predictions import Predictions, check

OPTIMISTIC = "the members were chosen on the images they are scored on, so this score is optimistic"
HELD_OUT = "each image was scored with weights that were chosen without it"


@dataclass(frozen=True)
class Search:
    """What a greedy search chose.

    Attributes:
        weights: one a member, summing to 1; 0 for a member that was not chosen.
        order: indexes of the members in the order they were taken, with repeats.
        top1: the top-1 accuracy of the chosen average on the images it was chosen on.
        note: the reason not to take `top1` for what new images would give.
    """

    weights: tuple[float, ...]
    order: tuple[int, ...]
    top1: float
    note: str = OPTIMISTIC


@dataclass(frozen=True)
class Fold:
    """A fold of `hold_out`: the weights chosen on the others, its images, their top-1 accuracy, that on the others."""

    weights: tuple[float, ...]
    count: int
    top1: float
    chosen_on: float


@dataclass(frozen=True)
class HeldOut:
    """What a greedy search scores on images that it did not choose on.

    Attributes:
        folds: one a fold.
        seed: of the dealing out.
        top1: the share of all labelled images that are right where they were held out.
        top1_interval: its 95 % Wilson interval; the folds' common training images are not accounted for.
        chosen_on: the mean top-1 accuracy on the images chosen on: what it is above `top1` was optimism.
    """

    folds: tuple[Fold, ...]
    seed: int
    top1: float
    top1_interval: tuple[float, float]
    chosen_on: float
    note: str = HELD_OUT


def average(members: Sequence[Predictions], weights: Sequence[float] | None = None) -> Predictions:
    """Return the weighted mean of the members' softmax outputs, in the first member's order of images.

    Images are matched by key. Weights are scaled to sum to 1; without them all members count the same.

    Raises:
        PredictionsError: there is no member, a member is not valid, two differ in their classes, keys or labels,
            or the weights are not one finite number of at least 0 a member with a sum above 0.
    """
    aligned = _align(members)
    shares = _shares(weights, len(members))
    total = np.zeros(aligned[0].shape, np.float64)
    for share, probabilities in zip(shares, aligned):
        total += share * probabilities
    meta = {
        "name": "ensemble",
        "members": [
            {"name": member.name, "path": member.path, "weight": share, "meta": member.meta}
            for member, share in zip(members, shares)
        ],
    }
    for key in ("wnids", "class_names"):  # what all that say it say alike
        said = [member.meta[key] for member in members if key in member.meta]
        if said and all(value == said[0] for value in said):
            meta[key] = said[0]
    meta |= {key: value for key, value in shared(members).items() if value is not None}
    return Predictions(members[0].keys, members[0].labels, total.astype(np.float32), meta)


def shared(members: Sequence[Predictions]) -> dict[str, str | None]:
    """The `split` and `crops` that the members are of: None where one does not say, `pedigree.MIXED` where two differ.

    Members that fit together have the same images, so that one that says the split says it for all.
    """
    several = [pedigree.of(member) for member in members]
    return {
        "split": pedigree.common(one.split for one in several if one.split),
        "crops": pedigree.common(one.crops for one in several),
    }


def search(members: Sequence[Predictions], rounds: int | None = None) -> Search:
    """Choose weights by greedy selection with replacement.

    In each of `rounds` rounds (at least 20 by default) the member that gives the running average the highest top-1
    accuracy joins it, the lower loss deciding between equals; the shortest prefix with the highest accuracy is kept.

    Raises:
        PredictionsError: as `average`, or no label is known.
    """
    labels, candidates = _labelled(members)
    order, hits = _greedy(candidates, labels, rounds or max(20, 2 * len(members)))
    return Search(_counted(order, len(members)), tuple(order), hits / len(labels))


def hold_out(members: Sequence[Predictions], folds: int, seed: int = 0, rounds: int | None = None) -> HeldOut:
    """Score what `search` does on images that it did not choose on.

    The labelled images are dealt out to `folds` folds of the same size, give or take one: `seed` and their keys alone
    say how. For each fold the weights are chosen on the others and scored on it.

    Raises:
        PredictionsError: as `search`, or `folds` is not from 2 to the number of labelled images.
    """
    labels, candidates = _labelled(members)
    count = len(labels)
    if not 2 <= folds <= count:
        raise PredictionsError(f"{folds} folds of {count} labelled images: 2 to {count} are allowed")
    by_key = np.argsort(members[0].keys[members[0].labels >= 0])
    fold = np.empty(count, np.int64)
    fold[by_key[np.random.default_rng(seed).permutation(count)]] = np.arange(count) % folds
    rows, total, chosen_on = [], 0, 0.0
    for number in range(folds):
        own = fold == number
        order, hits = _greedy([one[~own] for one in candidates], labels[~own], rounds or max(20, 2 * len(members)))
        weights = _counted(order, len(members))
        mean = sum(weight * one[own] for weight, one in zip(weights, candidates) if weight)
        right = int((mean.argmax(axis=1) == labels[own]).sum())
        rows.append(Fold(weights, int(own.sum()), right / int(own.sum()), hits / int((~own).sum())))
        total += right
        chosen_on += hits / int((~own).sum()) / folds
    return HeldOut(tuple(rows), seed, total / count, metrics.wilson(total, count), chosen_on)


def _labelled(members: Sequence[Predictions]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The known labels (m,) and each member's probabilities (m, classes), float64, of these images."""
    aligned = _align(members)
    metrics.labelled(members[0])
    known = members[0].labels >= 0
    return members[0].labels[known], [probabilities[known].astype(np.float64) for probabilities in aligned]


def _greedy(candidates: list[np.ndarray], labels: np.ndarray, rounds: int) -> tuple[list[int], int]:
    """The members in the order they are taken, up to the best average, and how many images that has right."""
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


def describe(
    members: Sequence[Predictions], combined: Predictions, weights: Sequence[float] | None = None
) -> dict[str, Any]:
    """Return scores of the members and of their average `combined`, and what they are of, as JSON can hold it.

    It is {"split", "crops" (see `shared`), "records" (`pedigree.records`), "members": [{"path", "name", "model", "run",
    "checkpoint", "iteration", "split", "crops", scores ...}], "ensemble": {scores ...}, "weights": [...]}, scores being
    those of `metrics.summary`, each None and `count` 0 where no label is known, and what nobody knows None.
    `pedigree.labels` tells members of one name apart.
    """
    return {
        **shared(members),
        "records": pedigree.records(combined),
        "members": [{**asdict(pedigree.of(member)), **_scores(member)} for member in members],
        "ensemble": _scores(combined),
        "weights": _shares(weights, len(members)),
    }


def _scores(predictions: Predictions) -> dict[str, Any]:
    if (predictions.labels >= 0).any():
        return metrics.summary(predictions)
    counts = {"count": 0, "unlabelled": len(predictions.labels), "classes": predictions.classes}
    return {**counts, **dict.fromkeys(metrics.SCORES)}


def _shares(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1 / count] * count
    if len(weights) != count:
        raise PredictionsError(f"{len(weights)} weights for {count} members: give one weight a member")
    values = np.asarray(weights, np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and (values > 0).any()):
        shown = ", ".join(f"{value:g}" for value in values)
        raise PredictionsError(f"the weights {shown} are not all finite and at least 0 with a sum above 0")
    values = values / values.max()  # so that the sum cannot overflow
    return [float(value) for value in values / values.sum()]


def _align(members: Sequence[Predictions]) -> list[np.ndarray]:
    """Return each member's probabilities in the first one's order of images."""
    if not members:
        raise PredictionsError("an ensemble needs at least one member")
    names = [f"member {number} ({member.path or member.name})" for number, member in enumerate(members, 1)]
    for name, member in zip(names, members):
        check(member, name)
    first = members[0]
    order = np.argsort(first.keys)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    aligned = []
    known, known_name = None, ""
    for name, member in zip(names, members):
        both = f"{names[0]} and {name}"
        if member.classes != first.classes:
            raise PredictionsError(f"{both} differ: {first.classes} classes and {member.classes}: use one data set")
        its = _wnids(member)
        known, known_name = (known, known_name) if known or not its else (its, name)
        if its and its != known:
            at = next(index for index, pair in enumerate(zip(known, its)) if pair[0] != pair[1])
            raise PredictionsError(
                f"{known_name} and {name} differ in their classes: class {at} is {known[at]} in one and {its[at]} in "
                "the other: use one data set"
            )
        own = np.argsort(member.keys)
        if len(own) != len(order) or (member.keys[own] != first.keys[order]).any():
            raise PredictionsError(
                f"{both} differ in their images ({len(order)} and {len(own)}): {_difference(first, member)}: use one "
                "data set and split"
            )
        match = own[place]
        wrong = member.labels[match] != first.labels
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise PredictionsError(
                f"{both} differ in their labels: {str(first.keys[at])!r} is {first.labels[at]} in one and "
                f"{member.labels[match][at]} in the other ({int(wrong.sum())} of {len(wrong)} images differ): use one "
                "data set and split"
            )
        aligned.append(member.probabilities[match])
    return aligned


def _wnids(member: Predictions) -> list[str] | None:
    wnids = member.meta.get("wnids")
    return wnids if isinstance(wnids, list) and len(wnids) == member.classes else None


def _difference(first: Predictions, other: Predictions) -> str:
    missing = np.setdiff1d(first.keys, other.keys)
    foreign = np.setdiff1d(other.keys, first.keys)
    parts = [f"{len(missing)} only in the first (such as {str(missing[0])!r})"] if len(missing) else []
    parts += [f"{len(foreign)} only in the second (such as {str(foreign[0])!r})"] if len(foreign) else []
    return ", ".join(parts)
