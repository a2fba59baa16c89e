"""What a page shows of the images that runs get wrong: each with its true and its predicted class."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from tiny_imagenet.errors import DatasetError
from tiny_imagenet.evaluation import origin
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.report import errors_figure
from tiny_imagenet.report.errors_figure import Mistake

MOST = 60  # images of a run, where that is enough for every class
MOST_IN_ALL = 480  # of all runs, where that leaves FEWEST to each
FEWEST = 12
QUALITY = 85  # of JPEG pictures: at the size they are shown it takes nothing away that could be seen


class Pictures:
    """The pictures of a page, each once, however many runs show it.

    Attributes:
        shown: of each its `width` and `height` in pixels and its `address`, a data address.
    """

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self._numbers: dict[tuple[Path, str, int], int] = {}

    def has(self, lmdb: Path, mistake: Mistake) -> bool:
        """Whether a mistake's picture is there."""
        return (lmdb, mistake.key, mistake.label) in self._numbers

    def numbers(self, lmdb: Path, chosen: Sequence[Mistake]) -> list[int]:
        """Where in `shown` the mistakes' pictures are; those that are not there yet are read.

        Raises:
            DatasetError: as `errors_figure.read`.
        """
        new = [mistake for mistake in chosen if not self.has(lmdb, mistake)]
        for mistake, picture in zip(new, errors_figure.read(lmdb, new)):
            self._numbers[lmdb, mistake.key, mistake.label] = len(self.shown)
            height, width = picture.shape[:2]
            self.shown.append({"width": width, "height": height, "address": address(picture)})
        return [self._numbers[lmdb, mistake.key, mistake.label] for mistake in chosen]


def share(runs: int) -> int:
    """How many images each of so many runs shows, where no class needs more."""
    return min(MOST, max(FEWEST, MOST_IN_ALL // max(runs, 1)))


def of(
    given: Predictions, data: str | os.PathLike[str] | None, names: Sequence[str], pictures: Pictures, most: int = MOST
) -> dict[str, Any]:
    """What there is to show of predictions with labels.

    Args:
        given: the predictions.
        data: the converted data folder that they were made of; None where nobody knows it.
        names: one a class.
        pictures: of the page; what is added to them, this run shows first.
        most: how many images, where no class needs more.

    Returns:
        `tiles`, `errors` (how many there are in all), `images` (that are labelled) and `problem`, why there are no
        tiles, or "". A tile has `label` and `said` (number and name of the true and the predicted class),
        `probability`, `image` (its name) and `picture` (which of the pictures).
    """
    every, images = errors_figure.mistakes(given)
    found: dict[str, Any] = {"tiles": [], "errors": len(every), "images": images, "problem": ""}
    if not every:
        return found
    if data is None:
        return {**found, "problem": "nothing says which data the predictions were made of: --data DIR does"}
    if not Path(data).is_dir():
        return {**found, "problem": f"{data} is not there any more: --data DIR says where it is"}
    lmdb = Path(data) / f"{origin.split(given)}.lmdb"
    chosen = choose(every, most, lambda mistake: pictures.has(lmdb, mistake))
    try:
        numbers = pictures.numbers(lmdb, chosen)
    except DatasetError as error:
        return {**found, "problem": str(error)}
    found["tiles"] = [
        {
            "label": (mistake.label, names[mistake.label]),
            "said": (mistake.predicted, names[mistake.predicted]),
            "probability": errors_figure.percent(mistake.probability),
            "image": mistake.key.partition("_")[2],
            "picture": number,
        }
        for mistake, number in zip(chosen, numbers)
    ]
    return found


def choose(every: Sequence[Mistake], most: int, has: Callable[[Mistake], bool] = lambda _: False) -> list[Mistake]:
    """At most `most` mistakes, or more where a true or a predicted class has none among them; most confident first.

    Every true class gives one before any gives two: the most confident of those whose picture the page `has`, or
    without one the most confident of all.
    """
    ordered = sorted(errors_figure.select(every, len(every)), key=lambda mistake: not has(mistake))
    turns: Counter[int] = Counter()
    ranked = []
    for place, mistake in enumerate(ordered):
        ranked.append((turns[mistake.label], place, mistake))
        turns[mistake.label] += 1
    kept = [mistake for *_, mistake in sorted(ranked, key=lambda one: one[:2])[: max(most, len(turns))]]
    said = {mistake.predicted for mistake in kept}
    for mistake in ordered:
        if mistake.predicted not in said:
            said.add(mistake.predicted)
            kept.append(mistake)
    return errors_figure.select(kept, len(kept))


def classes(sections: Sequence[dict[str, Any]], which: str) -> list[tuple[tuple[int, str], int]]:
    """The classes that tiles have as `label` or as `said`, and how many have it, in the order of the names."""
    counts = Counter(tile[which] for section in sections for tile in section["tiles"])
    return sorted(counts.items(), key=lambda item: (item[0][1], item[0][0]))


def ids(sections: Sequence[dict[str, Any]]) -> dict[tuple[int, str], str]:
    """What the page's filter calls each class of the tiles: its number, and its name where others have that number."""
    every = {tile[which] for section in sections for tile in section["tiles"] for which in ("label", "said")}
    numbers = Counter(number for number, _ in every)
    return {one: str(one[0]) if numbers[one[0]] == 1 else f"{one[0]} {one[1]}" for one in every}


def address(picture: np.ndarray) -> Markup:
    """A picture (height, width, 3), RGB, as a data address: of a PNG, or of a JPEG where that is smaller."""
    files = {
        "png": cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes(),
        "jpeg": cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(),
    }
    kind = min(files, key=lambda name: len(files[name]))
    return Markup("data:image/{};base64,{}").format(kind, base64.b64encode(files[kind]).decode())
