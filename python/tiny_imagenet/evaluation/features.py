"""Activations of a layer for some images of a split."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import caffe
import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation.predict import Predictor

MOST_VALUES = 2**28  # of all images: 1 GiB


class Images(NamedTuple):
    """Images (n, 3, height, width), uint8 BGR, their labels (n,) and LMDB keys, in the order of the keys."""

    images: np.ndarray
    labels: np.ndarray
    keys: list[str]


def select(lmdb: str | os.PathLike[str], known: int, classes: int, images: int, seed: int) -> Images:
    """Draw `classes` of the `known` classes and at most `images` of their images, about as many of each class.

    Raises:
        DatasetError: the LMDB cannot be read, or has no labelled image of the classes.
    """
    generator = np.random.default_rng(seed)
    wanted = np.sort(generator.choice(known, min(classes, known), replace=False))
    try:
        records = caffe.LmdbRecords(lmdb)
        labels = np.array([records.label(number) for number in range(len(records))])
        places = []  # (turn, class, record): one of each class, then a second of each, and so on
        for label in wanted.tolist():
            own = generator.permutation(np.flatnonzero(labels == label))
            places += [(turn, label, number) for turn, number in enumerate(own.tolist())]
        numbers = sorted(number for _, _, number in sorted(places)[:images])
        if not numbers:
            raise DatasetError(f"{lmdb} has no labelled image of the {len(wanted)} chosen classes: use --split val")
        stacked = np.stack([records.image(number) for number in numbers])
    except (caffe.CaffeError, ValueError) as error:  # ValueError: images of several sizes
        raise DatasetError(f"{lmdb}: {error}") from error
    return Images(stacked, labels[numbers], [records.key(number) for number in numbers])


def hidden(predictor: Predictor, layer: str | None = None) -> str:
    """The blob that `layer` of the net writes; for None the input of the last InnerProduct or Convolution layer.

    In-place layers on the blob, such as rectifiers, have been applied to it.

    Raises:
        NetError: the net has no such layer.
    """
    net = predictor.net
    if layer is None:
        weighted = [name for name in net.params if net.layer_dict[name].type in ("InnerProduct", "Convolution")]
        return net.bottom_names[weighted[-1]][0]
    if not net.top_names.get(layer):
        known = list(net.layer_dict)
        raise NetError(f"the net has no layer {layer!r}: it has {', '.join(known)}.{cli.did_you_mean(layer, known)}")
    return net.top_names[layer][0]


def compute(predictor: Predictor, images: np.ndarray, blob: str) -> np.ndarray:
    """Activations of images (n, 3, height, width), uint8 BGR, in `blob`: (n, values per image), float32.

    Raises:
        DatasetError: the images and the mean image have different sizes.
        NetError: there are more than 2**28 values, or one is not finite.
    """
    size = math.prod(predictor.net.blobs[blob].shape[1:])
    if size * len(images) > MOST_VALUES:
        raise NetError(
            f"blob {blob} has {size:,} values per image, {size * len(images):,} in total: expected at most "
            f"{MOST_VALUES:,}; use at most {MOST_VALUES // size} --images, or a later --layer"
        )
    parts = []
    starts = range(0, len(images), predictor.batch)
    for start in cli.track(starts, len(starts), f"compute {blob}"):
        batch = images[start : start + predictor.batch]
        predictor.forward(batch)
        parts.append(predictor.net.blobs[blob].data.reshape(len(batch), -1).copy())
    values = np.concatenate(parts)
    if not np.isfinite(values).all():
        raise NetError(f"blob {blob} has values that are not finite: training diverged; try a lower --base-lr")
    return values
