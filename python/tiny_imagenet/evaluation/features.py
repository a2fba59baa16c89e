"""Some images of a split, and what a layer of a net makes of each."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets

MOST_VALUES = 2**28  # of all images together: 1 GiB


class Images(NamedTuple):
    """Images (n, 3, height, width), uint8 BGR, their labels (n,) and LMDB keys, in the order of the keys."""

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]


def select(lmdb: str | os.PathLike[str], known: int, classes: int, images: int, seed: int) -> Images:
    """Draw `classes` of the `known` classes and at most `images` of their images, from each class about as many.

    Raises:
        DatasetError: the LMDB cannot be read or has no labelled image of the classes.
    """
    generator = np.random.default_rng(seed)
    wanted = np.sort(generator.choice(known, min(classes, known), replace=False))
    labels = np.array([label for _, label, _ in lmdb_reader.records(lmdb)], np.int64)
    places = []  # (turn, class, number): one of each class, then a second of each, and so on
    for label in wanted.tolist():
        own = generator.permutation(np.flatnonzero(labels == label))
        places += [(turn, label, number) for turn, number in enumerate(own.tolist())]
    numbers = sorted(number for _, _, number in sorted(places)[:images])
    if not numbers:
        raise DatasetError(f"{lmdb} has no labelled image of the {len(wanted)} classes drawn: take the split val")
    records = lmdb_reader.Records(lmdb)
    rows = [records[number] for number in numbers]
    try:
        stacked = np.stack([image for _, _, image in rows])
    except ValueError as error:
        raise DatasetError(f"{lmdb} has images of several sizes: convert the data set again") from error
    return Images(stacked, np.array([label for _, label, _ in rows], np.int64), [key for key, _, _ in rows])


def hidden(predictor: Predictor, deploy: str | os.PathLike[str], layer: str | None = None) -> str:
    """The blob that `layer` of the net writes; for None the one the classifier takes.

    A rectifier or dropout that works in place on the blob has worked on it: its values are those after the ReLU.

    Raises:
        NetError: there is no such layer, or no classifier.
    """
    net = nets.read(deploy)
    if layer is None:
        return nets.classifier(net).bottom[0]
    for candidate in net.layer:
        if candidate.name == layer and candidate.top and candidate.top[0] in predictor.net.blobs:
            return candidate.top[0]
    names = ", ".join(candidate.name for candidate in net.layer)
    raise NetError(f"{deploy} has no layer {layer!r}: it has {names}")


def compute(predictor: Predictor, images: np.ndarray, blob: str) -> np.ndarray:
    """What the net makes of images (n, 3, height, width), uint8 BGR, in `blob`: (n, values an image) float32.

    Raises:
        DatasetError: the images are not of the mean's size.
        NetError: there are more than 2**28 values, or one that is not finite.
    """
    size = math.prod(predictor.net.blobs[blob].shape[1:])
    if size * len(images) > MOST_VALUES:
        raise NetError(
            f"blob {blob} has {size:,} values an image, {size * len(images):,} in all: at most {MOST_VALUES:,} are "
            f"held; take at most {MOST_VALUES // size} --images, or a later --layer"
        )
    parts = []
    starts = range(0, len(images), predictor.batch)
    for start in cli.track(starts, len(starts), f"compute {blob}"):
        batch = images[start : start + predictor.batch]
        predictor(batch)
        parts.append(predictor.net.blobs[blob].data.reshape(len(batch), -1).copy())
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise NetError(
            f"blob {blob} has values that are not finite: the net has diverged; train it again with a lower --base-lr"
        )
    return values
