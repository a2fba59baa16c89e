"""The validation split, shared out among the ranks: each predicts some batches of it, and rank 0 has them all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError
from tiny_imagenet.evaluation.ahead import ahead
from tiny_imagenet.evaluation.predict import Predictor, predict
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.training.ranks import Ranks


class StoppedEarly(Exception):  # noqa: N818 (nothing is wrong)
    """Rank 0 wanted no more of it."""


def validate(
    ranks: Ranks, predictor: Predictor, lmdb: str | os.PathLike[str], stop: Callable[[], bool] = lambda: False
) -> Predictions | None:
    """Probabilities of every record of an LMDB, in its order, in rank 0; None in the others. All ranks call it.

    The batches are those of one process, so that it makes no difference how many ranks there are.

    Args:
        ranks: those that share it out.
        predictor: of each; the same net with the same weights.
        lmdb: the LMDB's folder on this machine.
        stop: rank 0 asks it after each batch.

    Raises:
        StoppedEarly: in all ranks, where `stop` said so.
        DatasetError: it cannot be read.
        RankLostError: another rank has gone.
    """
    if ranks.count == 1:
        return predict(predictor, lmdb, between=lambda: _raise_if(stop()))
    records = lmdb_reader.Records(lmdb)
    if not len(records):
        raise DatasetError(f"{lmdb} has no records")
    count = -(-len(records) // predictor.batch)
    mine = range(count * ranks.rank // ranks.count, count * (ranks.rank + 1) // ranks.count)
    keys, labels, parts = [], [], []
    with contextlib.closing(ahead(_inputs(predictor, records, mine))) as ready:
        for _ in range(-(-count // ranks.count)):
            _raise_if(ranks.broadcast(stop()))
            batch = next(ready, None)
            if batch:
                keys += batch[0]
                labels += batch[1]
                parts.append(predictor.forward(batch[2]))
    shares = ranks.gather((keys, labels, parts))
    if not shares:
        return None
    keys, labels, parts = ([item for share in shares for item in share[part]] for part in range(3))
    return Predictions(np.array(keys), np.array(labels, np.int64), np.concatenate(parts), {})


def _inputs(predictor: Predictor, records: lmdb_reader.Records, batches: range) -> Iterator[Any]:
    for number in batches:
        keys, labels, images = map(list, zip(*records[number * predictor.batch : (number + 1) * predictor.batch]))
        yield keys, labels, predictor.prepare(np.stack(images))


def _raise_if(stopped: bool) -> None:
    if stopped:
        raise StoppedEarly


def statistics(net: Any) -> dict[str, list[np.ndarray]]:
    """What a net's BatchNorm layers have seen: those of a rank have seen its own share; rank 0's are the run's."""
    layers = {name: blobs for name, blobs in net.params.items() if net.layer_dict[name].type == "BatchNorm"}
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in layers.items()}


def set_statistics(net: Any, given: dict[str, list[np.ndarray]]) -> None:
    """Let a net's BatchNorm layers have seen what another's have: `statistics` of that."""
    for name, values in given.items():
        for blob, value in zip(net.params[name], values):
            blob.data[...] = value
