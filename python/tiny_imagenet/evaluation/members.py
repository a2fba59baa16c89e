"""The members of an ensemble: files of predictions, or run folders with theirs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, RunError
from tiny_imagenet.evaluation import evaluate, pedigree, predictions
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.runs import Run


def load(
    sources: Sequence[str | os.PathLike[str]],
    split: str = "val",
    ten_crop: bool = False,
    checkpoints: bool = False,
    gpu: int | None = None,
    data: str | os.PathLike[str] | None = None,
) -> list[Predictions]:
    """The predictions that `sources` name, in their order.

    Args:
        sources: .npz files, which are taken as they are, and run folders.
        split: of a run folder's predictions.
        ten_crop: of a run folder's predictions: whether those by ten crops are meant.
        checkpoints: a run folder stands for each of its checkpoints, oldest first. What has no predictions yet is
            predicted and kept beside the checkpoint's weights. Otherwise it stands for the predictions that
            tools/evaluate.py left in it.
        gpu: the number of the GPU that predicts; None as of `predict.Predictor`.
        data: the converted data folder to predict; None is the one the run was trained on.

    Raises:
        PredictionsError: a file cannot be read or is not valid.
        RunError: a folder is no run folder, or has no such predictions or no checkpoint.
        DatasetError: `data` is no converted data set.
        GpuError: there is no such GPU, or it cannot be used.
    """
    found: list[Predictions] = []
    for source in sources:
        if not Path(source).is_dir():
            found.append(predictions.load(source))
        elif checkpoints:
            found += _of_checkpoints(Run(source), split, ten_crop, gpu, data)
        else:
            found.append(_of_run(Run(source), split, ten_crop))
    return found


def _of_run(run: Run, split: str, ten_crop: bool) -> Predictions:
    _ = run.info  # or it is no run folder
    file = evaluate.predictions_file(run, split, ten_crop)
    if not file.is_file():
        flags = ("" if split == "val" else f" --split {split}") + (" --ten-crop" if ten_crop else "")
        raise RunError(f"{run.path} has no {file.name}: make it with tools/evaluate.py {run.path}{flags}")
    return predictions.load(file)


def _of_checkpoints(
    run: Run, split: str, ten_crop: bool, gpu: int | None, data: str | os.PathLike[str] | None
) -> list[Predictions]:
    iterations = run.iterations() if run.info else []
    if not iterations:
        raise RunError(f"{run.path} has no checkpoint yet: train it with tools/train.py")
    if data is not None:
        evaluate.data_of(run, data)  # or it is refused
    folder = Path(data or str(run.info.get("data")))
    found = []
    for iteration in iterations:
        weights = run.weights(str(iteration))
        file = weights.with_name(evaluate.predictions_file(run, split, ten_crop).name)
        given = _kept(file, weights, folder, split)
        if given is None:
            name = f"{run.info.get('model') or run.path.resolve().name}@{iteration}"
            predictions.save(
                file,
                evaluate.predict_run(
                    run, data, name=name, split=split, checkpoint=str(iteration), ten_crop=ten_crop, gpu=gpu
                ),
            )
            given = predictions.load(file)
        found.append(given)
    return found


def _kept(file: Path, weights: Path, data: Path, split: str) -> Predictions | None:
    """The predictions of an earlier call, where they are of these weights and of the data's records."""
    if not file.is_file() or any(_is_newer(path, file) for path in (weights, data / lmdb_reader.MANIFEST)):
        return None
    given = predictions.load(file)
    try:
        entry = lmdb_reader.read_manifest(data)["lmdbs"].get(split)
    except DatasetError:  # the data is gone, the predictions are not
        return given
    records = entry.get("sha256") if isinstance(entry, dict) else None
    return given if records in (None, pedigree.records(given)) else None


def _is_newer(path: Path, other: Path) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > other.stat().st_mtime_ns
