"""The page's confusion matrix, worst classes and misclassified images."""

from __future__ import annotations

import base64
import os
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from tiny_imagenet.errors import DatasetError
from tiny_imagenet.evaluation import data_source, metrics
from tiny_imagenet.report import confusion_figure, errors_figure, figures, folders
from tiny_imagenet.report.errors_figure import Mistake
from tiny_imagenet.report.folders import Folder
from tiny_imagenet.report.results import Row

PAIRS = 8  # most confused pairs of classes
WORST = 12  # classes with the lowest accuracy
MOST = 60  # images of a run, if that is enough for each class
MOST_IN_ALL = 480  # of all runs, if that leaves FEWEST to each
FEWEST = 12
QUALITY = 85  # of JPEG pictures

Classes = dict[tuple[int, str], dict[str, Any]]  # scores by a class's number and name


def confusion(folder: Folder) -> dict[str, Any]:
    """The confusion matrix of a run, its most confused pairs of classes, and all class names if known."""
    names = folders.class_names(folder.given)
    label = f"Confusion matrix of {folder.name}, true classes down, predicted classes across"
    pairs = [(pair["true"], pair["predicted"], pair) for pair in metrics.confused(folder.given, PAIRS)]
    numbers = (("No.", True), ("Images", True), ("Of", True))
    return {
        "name": folder.name,
        "figure": figures.inline(figures.svg(confusion_figure.draw(folder.given, title="")), "confusion", label),
        "columns": [("True class", False), numbers[0], ("Predicted class", False), *numbers],
        "pairs": [[names[true], true, names[other], other, pair["count"], pair["of"]] for true, other, pair in pairs],
        "names": data_source.class_names(folder.given) or [],
    }


def worst_classes(columns: Sequence[tuple[Row, Sequence[Folder]]]) -> dict[str, Any] | None:
    """The classes with the lowest top-1 of the first column, and the top-1 of all columns with the same images.

    Args:
        columns: runs, or the runs of a mean over seeds; the best first.
    """
    found: list[tuple[Row, Classes]] = []
    for row, several in columns:
        scores = [folder.classes for folder in several if folder.classes]
        if scores and (not found or row.images == found[0][0].images):
            found.append((row, mean_scores(scores)))
    if not found:
        return None
    rows = []
    for (number, name), row in sorted(found[0][1].items(), key=lambda item: item[1]["top1"])[:WORST]:
        scores = [metrics.TOP1.text(classes.get((number, name), {}), 1) for _, classes in found]
        rows.append([name, number, f"{row['count']:,}", f"{row['predicted']:,.0f}", *scores])
    titles = ["No.", "Images", "Predicted", *(row.name for row, _ in found)]
    columns = [("Class", False), *((title, True) for title in titles)]
    return {"name": found[0][0].name, "columns": columns, "rows": rows}


def mean_scores(runs: Sequence[Classes]) -> Classes:
    """`count`, and the means of `top1` and `predicted`, of the classes that all runs have."""
    found = {}
    for key, row in runs[0].items():
        if all(key in run for run in runs):
            means = {name: statistics.fmean(run[key][name] for run in runs) for name in ("top1", "predicted")}
            found[key] = {"count": row["count"], **means}
    return found


# --- images ---


Pictures = dict[tuple[Path, str], dict[str, Any]]  # by LMDB and key: number, width, height, address (a data URL)


def gallery(several: Sequence[Folder], data: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The misclassified images of runs: `runs`, `pictures`, and the classes of tiles as `labels` and `predicted`."""
    pictures: Pictures = {}
    most = min(MOST, max(FEWEST, MOST_IN_ALL // max(len(several), 1)))
    runs = [errors(folder, folder.data(data), pictures, most) for folder in several]
    tiles = [tile for run in runs for tile in run["tiles"]]
    counts = {
        which: sorted(Counter(tile[which] for tile in tiles).items(), key=lambda item: (item[0][1], item[0][0]))
        for which in ("label", "predicted")
    }
    return {
        "runs": runs,
        "pictures": list(pictures.values()),
        "labels": counts["label"],
        "predicted": counts["predicted"],
    }


def errors(folder: Folder, data: str | None, pictures: Pictures, most: int = MOST) -> dict[str, Any]:
    """The misclassified images of a run.

    Args:
        folder: with predictions.
        data: the converted data folder that was predicted; None if unknown.
        pictures: of the page, to which new ones are added; images that it contains are preferred.
        most: number of images, if that is enough for each class.

    Returns:
        `name`, `tiles`, `errors` and `images` (their numbers), and `problem`, why there are no tiles. A tile has
        `label` and `predicted` (number and name of the true and the predicted class), `probability`, `image` and
        `picture` (position in the pictures).
    """
    every, images = errors_figure.mistakes(folder.given)
    found: dict[str, Any] = {"name": folder.name, "tiles": [], "errors": len(every), "images": images, "problem": ""}
    if not every:
        return found
    if data is None or not Path(data).is_dir():
        return {**found, "problem": f"the data {data or ''} is missing: pass --data DIR".replace("  ", " ")}
    lmdb = Path(data) / f"{data_source.split(folder.given)}.lmdb"
    chosen = choose(every, most, {key for own, key in pictures if own == lmdb})
    new = [mistake for mistake in chosen if (lmdb, mistake.key) not in pictures]
    try:
        for mistake, picture in zip(new, errors_figure.read(lmdb, new)):
            size = {"width": picture.shape[1], "height": picture.shape[0]}
            pictures[lmdb, mistake.key] = {"number": len(pictures), "address": address(picture), **size}
    except DatasetError as error:
        return {**found, "problem": str(error)}
    names = folders.class_names(folder.given)
    found["tiles"] = [
        {
            "label": (mistake.label, names[mistake.label]),
            "predicted": (mistake.predicted, names[mistake.predicted]),
            "probability": figures.percent(mistake.probability),
            "image": mistake.key.partition("_")[2],
            "picture": pictures[lmdb, mistake.key]["number"],
        }
        for mistake in chosen
    ]
    return found


def choose(every: Sequence[Mistake], most: int, known: Collection[str] = ()) -> list[Mistake]:
    """At most `most` mistakes, most confident first; more if a true or predicted class would be missing.

    Each true class contributes one mistake before any contributes two, first those whose keys are `known`, then the
    most confident.
    """
    ordered = sorted(errors_figure.select(every, len(every)), key=lambda mistake: mistake.key not in known)
    turns: Counter[int] = Counter()
    ranked = []
    for place, mistake in enumerate(ordered):
        ranked.append((turns[mistake.label], place, mistake))
        turns[mistake.label] += 1
    kept = [mistake for *_, mistake in sorted(ranked)[: max(most, len(turns))]]
    predicted = {mistake.predicted for mistake in kept}
    for mistake in ordered:
        if mistake.predicted not in predicted:
            predicted.add(mistake.predicted)
            kept.append(mistake)
    return errors_figure.select(kept, len(kept))


def address(picture: np.ndarray) -> Markup:
    """A picture (height, width, 3), RGB, as a data URL: a PNG, or a JPEG if that is smaller."""
    files = {
        "png": cv2.imencode(".png", picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes(),
        "jpeg": cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes(),
    }
    kind = min(files, key=lambda name: len(files[name]))
    return Markup("data:image/{};base64,{}").format(kind, base64.b64encode(files[kind]).decode())
