"""From a run folder and a data folder to predictions.npz and evaluation.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tiny_imagenet import files, lmdb_reader, metrics, nets, predictions
from tiny_imagenet.errors import NetError, RunError
from tiny_imagenet.predict import Predictor, predict
from tiny_imagenet.predictions import Predictions
from tiny_imagenet.runs import Run


def evaluate(
    data: str | os.PathLike[str],
    deploy: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    mean: str | os.PathLike[str],
    split: str = "val",
    meta: dict[str, Any] | None = None,
) -> Predictions:
    """Predictions of a net for a split of a converted data folder.

    Raises:
        NetError: the net's classes are not the data set's, or a file of it does not fit.
        DatasetError: the data folder cannot be read.
    """
    manifest = lmdb_reader.read_manifest(data)
    classes = nets.outputs(nets.read(deploy))
    if classes != len(manifest["classes"]):
        raise NetError(f"{deploy} tells {classes} classes apart, {data} has {len(manifest['classes'])}")
    about = {
        "split": split,
        "net": os.fspath(deploy),
        "weights": os.fspath(weights),
        "class_names": [entry["words"] or entry["wnid"] for entry in manifest["classes"]],
        **(meta or {}),
    }
    return predict(Predictor(deploy, mean, weights), Path(data) / f"{split}.lmdb", about)


def evaluate_run(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    checkpoint: str = "best",
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; write the predictions and, for the validation split, evaluation.json.

    Args:
        run: the run folder.
        data: a converted data folder of the same classes; None is the one the run was trained on.
        split: train, train_screened, val or test.
        checkpoint: best, last or an iteration.
        out: where the predictions go; None is predictions.npz of the run folder (predictions_<split>.npz but for val).
            evaluation.json is only written without it.

    Returns:
        `metrics.summary` with split, checkpoint, data, net and predictions (where they are, relative to the run
        folder). The test split has no labels: its top1 is None.

    Raises:
        RunError: the run has no such checkpoint, or was trained on other classes.
    """
    info = run.info
    data = data or info.get("data")
    if not isinstance(data, (str, os.PathLike)):
        raise RunError(f"{run.path}/run.json does not say which data it was trained on: name it with --data")
    wnids = [entry["wnid"] for entry in lmdb_reader.read_manifest(data)["classes"]]
    if info.get("wnids", wnids) != wnids:
        raise RunError(f"{data} has other classes, or in another order, than {run.path} was trained on")
    weights = run.weights(checkpoint)
    meta = {"model": info.get("model"), "run": os.fspath(run.path), "checkpoint": checkpoint}
    given = evaluate(data, run.deploy, weights, run.mean, split, meta)
    default = run.predictions if split == "val" else run.predictions.with_name(f"predictions_{split}.npz")
    target = Path(out) if out else default
    result = {
        **_save(given, target),
        "split": split,
        "checkpoint": int(weights.parent.name),
        "data": os.fspath(data),
        "net": run.deploy.name,
        "predictions": os.path.relpath(target, run.path),
    }
    if split == "val" and not out:
        files.write_json(run.evaluation, result)
    return result


def evaluate_files(
    data: str | os.PathLike[str],
    deploy: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    split: str = "val",
    out: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluate any deploy net and caffemodel; the data folder's mean is subtracted.

    Returns:
        As `evaluate_run`; predictions are written where `out` says, if it does.
    """
    mean = Path(data) / lmdb_reader.read_manifest(data)["mean"]
    given = evaluate(data, deploy, weights, mean, split)
    return {**_save(given, out), "split": split, "net": os.fspath(deploy), "predictions": out and os.fspath(out)}


def _save(given: Predictions, target: str | os.PathLike[str] | None) -> dict[str, Any]:
    if target:
        predictions.save(target, given)
    if (given.labels >= 0).any():
        return metrics.summary(given)
    return {"count": len(given.keys), "top1": None}
