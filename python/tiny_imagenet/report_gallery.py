"""What a page shows of the images that runs get wrong: each with its true and its predicted class."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from tiny_imagenet import errors_figure
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.errors_figure import Mistake
from tiny_imagenet.predictions import Predictions

MOST = 60  # images of a run
MOST_IN_ALL = 480  # of all runs, where that leaves FEWEST to each
FEWEST = 12


def share(runs: int) -> int:
    """How many images each of so many runs may show."""
    return min(MOST, max(FEWEST, MOST_IN_ALL // max(runs, 1)))


def of(
    given: Predictions, data: str | os.PathLike[str] | None, names: Sequence[str], most: int = MOST
) -> dict[str, Any]:
    """What there is to show of predictions with labels.

    Args:
        given: the predictions.
        data: the converted data folder that they were made of; None where nobody knows it.
        names: one a class.
        most: how many images.

    Returns:
        `tiles`, `errors` (how many there are in all), `images` (that are labelled) and `problem`, why there are no
        tiles, or "". A tile has `label` (the true class's index), `true` and `predicted` (names), `probability`,
        `image` (its name) and `address` (the picture, a data address).
    """
    every, images = errors_figure.mistakes(given)
    found: dict[str, Any] = {"tiles": [], "errors": len(every), "images": images, "problem": ""}
    chosen = choose(every, most)
    if not chosen:
        return found
    if data is None:
        return {**found, "problem": "nothing says which data the predictions were made of"}
    try:
        pictures = errors_figure.read(Path(data) / f"{errors_figure.split(given)}.lmdb", chosen)
    except DatasetError as error:
        return {**found, "problem": str(error)}
    found["tiles"] = [
        {
            "label": mistake.label,
            "true": names[mistake.label],
            "predicted": names[mistake.predicted],
            "probability": errors_figure.percent(mistake.probability),
            "image": mistake.key.partition("_")[2],
            "address": png(picture),
        }
        for mistake, picture in zip(chosen, pictures)
    ]
    return found


def choose(every: Sequence[Mistake], most: int) -> list[Mistake]:
    """At most `most` mistakes of as many true classes as there are, the most confident of each; most confident first.

    Every class gives one before any gives two.
    """
    turns: Counter[int] = Counter()
    ranked = []
    for mistake in errors_figure.select(every, len(every)):
        ranked.append((turns[mistake.label], mistake))
        turns[mistake.label] += 1
    kept = [mistake for _, mistake in sorted(ranked, key=lambda pair: pair[0])[:most]]
    return errors_figure.select(kept, most)


def classes(sections: Sequence[dict[str, Any]]) -> list[tuple[int, str, int]]:
    """What the page can be filtered by: true class, its name and how many tiles it has, in the order of the names."""
    counts = Counter((tile["label"], tile["true"]) for section in sections for tile in section["tiles"])
    return [(label, name, count) for (label, name), count in sorted(counts.items(), key=lambda c: (c[0][1], c[0][0]))]


def png(picture: np.ndarray) -> Markup:
    """A picture (height, width, 3), RGB, as a data address of a PNG."""
    _, data = cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return Markup("data:image/png;base64,{}").format(base64.b64encode(data.tobytes()).decode())
