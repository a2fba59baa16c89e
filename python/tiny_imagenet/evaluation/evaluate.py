"""From a run folder and a data folder to predictions.npz and evaluation.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tiny_imagenet import destination, files
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, PredictionsError, RunError
from tiny_imagenet.evaluation import data_source, metrics, predictions
from tiny_imagenet.evaluation.predict import CROPS, Predictor, predict
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.models import nets
from tiny_imagenet.runs import Run


def evaluate(
    data: str | os.PathLike[str],
    deploy: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    mean: str | os.PathLike[str],
    split: str = "val",
    meta: dict[str, Any] | None = None,
    ten_crop: bool = False,
    gpu: int | None = None,
) -> Predictions:
    """Predictions of a net for a split of a converted data folder; every record is seen once; `gpu` as of `Predictor`.

    Raises:
        GpuError: there is no such GPU, or it cannot be used.
        NetError: the net's classes are not the data set's, or a file of it does not fit.
        DatasetError: the data folder cannot be read, or the split's records are not those that its manifest says.
        PredictionsError: what the net puts out is not finite or not probabilities.
    """
    manifest = lmdb_reader.read_manifest(data)
    classes = nets.outputs(nets.read(deploy))
    if classes != len(manifest["classes"]):
        raise NetError(f"{deploy} tells {classes} classes apart, {data} has {len(manifest['classes'])}")
    lmdb = Path(data) / f"{split}.lmdb"
    about = {
        "split": split,
        "crops": CROPS[ten_crop],
        "net": os.fspath(deploy),
        "weights": os.fspath(weights),
        "class_names": [entry["words"] or entry["wnid"] for entry in manifest["classes"]],
        "wnids": [entry["wnid"] for entry in manifest["classes"]],
        **(meta or {}),
    }
    given = predict(Predictor(deploy, mean, weights, ten_crop=ten_crop, gpu=gpu), lmdb, about)
    _seen_once(given, manifest["lmdbs"].get(split), lmdb)
    try:
        predictions.check(given, f"{deploy} with {weights}")
    except PredictionsError as error:
        raise PredictionsError(
            f"{error}: the net must end in a Softmax layer, and its training not have diverged"
        ) from None
    return given


def data_of(run: Run, data: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """The data folder to use with a run: `data`, or for None the one it was trained on.

    Raises:
        RunError: run.json does not say which that is, it is gone, or it has other classes than the run was trained on.
        DatasetError: it is no converted data set.
    """
    data = data or data_source.trained_on(run)
    wnids = [entry["wnid"] for entry in lmdb_reader.read_manifest(data)["classes"]]
    if run.info.get("wnids", wnids) != wnids:
        raise RunError(f"{data} has other classes, or in another order, than {run.path} was trained on")
    return data


def predict_run(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    checkpoint: str = "best",
    ten_crop: bool = False,
    name: str | None = None,
    gpu: int | None = None,
) -> Predictions:
    """Predictions of a checkpoint (best, last or an iteration) of a run for a split; `name` is for tables.

    Raises:
        RunError: the run has no such checkpoint, or was trained on other classes.
        GpuError, NetError, DatasetError, PredictionsError: as `evaluate`.
    """
    data = data_of(run, data)
    weights = run.weights(checkpoint)
    meta = {
        "model": run.info.get("model"),
        "run": os.fspath(run.path),
        "checkpoint": checkpoint,
        "iteration": int(weights.parent.name),
        **({"name": name} if name else {}),
    }
    return evaluate(data, run.deploy, weights, run.mean, split, meta, ten_crop, gpu)


def predictions_file(run: Run, split: str = "val", ten_crop: bool = False, checkpoint: str = "best") -> Path:
    """Where a run's predictions are: predictions[_SPLIT][_tencrop][_CHECKPOINT].npz, without _SPLIT for val and without
    _CHECKPOINT for best: what another checkpoint gives does not take the place of the run's result.
    """
    return run.predictions.with_name(f"predictions{_ending(split, ten_crop, checkpoint)}.npz")


def evaluate_run(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    split: str = "val",
    checkpoint: str = "best",
    out: str | os.PathLike[str] | None = None,
    ten_crop: bool = False,
    confusion: str | os.PathLike[str] | None = None,
    gpu: int | None = None,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; write the predictions and, for the validation split, evaluation.json.

    Args:
        run: the run folder.
        data: a converted data folder of the same classes; None is the one the run was trained on.
        split: train, train_screened, val or test.
        checkpoint: best, last or an iteration.
        out: where the predictions go; None is `predictions_file`. evaluation.json (evaluation_tencrop.json,
            evaluation_CHECKPOINT.json) is only written without it.
        ten_crop: average the four corners, the centre and their mirrors.
        confusion: where the confusion matrix goes as CSV, if anywhere.
        gpu: the number of the GPU that computes; None as of `Predictor`.

    Returns:
        `metrics.summary` with split, crops, checkpoint, data, net, predictions (where they are, relative to the run
        folder), per_class (`metrics.class_scores` with index, wnid and words) and confused (`metrics.confused`). The
        test split has no labels: its top1 is None, and the last two are missing.

    Raises:
        RunError, GpuError, NetError, DatasetError, PredictionsError: as `predict_run`.
        PredictionsError: there cannot be a confusion matrix of the split.
        TinyImageNetError: `out`, `confusion` or the run folder cannot be written; nothing is predicted then.
    """
    target = Path(out) if out else predictions_file(run, split, ten_crop, checkpoint)
    data = data_of(run, data)
    _check_targets(split, target, confusion)
    given = predict_run(run, data, split, checkpoint, ten_crop, gpu=gpu)
    about = {
        "split": split,
        "crops": given.meta["crops"],
        "checkpoint": given.meta["iteration"],
        "data": os.fspath(data),
        "net": run.deploy.name,
        "predictions": os.path.relpath(target, run.path),
    }
    result = _save(given, target, about, confusion)
    if split == "val" and not out:
        files.write_json(run.evaluation.with_name(f"evaluation{_ending(split, ten_crop, checkpoint)}.json"), result)
    return result


def evaluate_files(
    data: str | os.PathLike[str],
    deploy: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    split: str = "val",
    out: str | os.PathLike[str] | None = None,
    mean: str | os.PathLike[str] | None = None,
    ten_crop: bool = False,
    confusion: str | os.PathLike[str] | None = None,
    gpu: int | None = None,
) -> dict[str, Any]:
    """Evaluate any deploy net and caffemodel; `mean` is subtracted, without it the data folder's.

    Returns:
        As `evaluate_run`, without checkpoint; predictions are written where `out` says, if it does.

    Raises:
        GpuError, NetError, DatasetError, PredictionsError, TinyImageNetError: as `evaluate_run`.
    """
    _check_targets(split, out, confusion)
    mean = mean or Path(data) / lmdb_reader.read_manifest(data)["mean"]
    given = evaluate(data, deploy, weights, mean, split, ten_crop=ten_crop, gpu=gpu)
    about = {
        "split": split,
        "crops": given.meta["crops"],
        "data": os.fspath(data),
        "net": os.fspath(deploy),
        "predictions": out and os.fspath(out),
    }
    return _save(given, out, about, confusion)


def _ending(split: str, ten_crop: bool, checkpoint: str) -> str:
    parts = (split if split != "val" else "", "tencrop" if ten_crop else "", checkpoint if checkpoint != "best" else "")
    return "".join(f"_{part}" for part in parts if part)


def _check_targets(split: str, target: str | os.PathLike[str] | None, confusion: str | os.PathLike[str] | None) -> None:
    if target:
        destination.check(target, ".npz")
    if confusion:
        destination.check(confusion, ".csv")
        if split == "test":
            raise PredictionsError(
                "the test split has no labels: a confusion matrix needs train, train_screened or val"
            )


def _seen_once(given: Predictions, entry: Any, lmdb: Path) -> None:
    """Raise DatasetError unless these are the records that the manifest's `entry` counts and has the sha256 of."""
    if len(set(given.keys.tolist())) != len(given.keys):
        raise DatasetError(f"{lmdb} gave a record twice: convert the data set again")
    if not isinstance(entry, dict):  # another program's data folder; the LMDB itself was read whole
        return
    if entry.get("count") != len(given.keys):
        raise DatasetError(
            f"{lmdb} has {len(given.keys)} records, the manifest says {entry.get('count')}: convert the data set again"
        )
    if "sha256" in entry and given.records != entry["sha256"]:
        raise DatasetError(
            f"{lmdb}: the keys or labels are not those of the manifest (another sha256): convert the data set again"
        )


def _save(
    given: Predictions,
    target: str | os.PathLike[str] | None,
    about: dict[str, Any],
    confusion: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    if target:
        predictions.save(target, given)
    if confusion:
        _write_confusion(confusion, given)
    if not (given.labels >= 0).any():
        return {"count": len(given.keys), "top1": None, **about}
    names = zip(given.meta["wnids"], given.meta["class_names"], metrics.class_scores(given))
    rows = [{"index": index, "wnid": wnid, "words": words, **row} for index, (wnid, words, row) in enumerate(names)]
    return {**metrics.summary(given), **about, "per_class": rows, "confused": metrics.confused(given)}


def _write_confusion(path: str | os.PathLike[str], given: Predictions) -> None:
    """CSV: a row a true class, a column a predicted one, under their wnids."""
    lines = [["true", *given.meta["wnids"]]]
    lines += [[wnid, *map(str, row)] for wnid, row in zip(given.meta["wnids"], metrics.confusion(given).tolist())]
    files.write_text(path, "".join(",".join(line) + "\n" for line in lines))
