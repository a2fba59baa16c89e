"""Predictions and scores of a run, or of a net and its weights, on a converted data folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2

from tiny_imagenet import cli, destination, files
from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, PredictionsError, RunError
from tiny_imagenet.evaluation import data_source, metrics, predictions, provenance
from tiny_imagenet.evaluation.evaluator import Evaluator
from tiny_imagenet.evaluation.predictions import Predictions
from tiny_imagenet.models import nets
from tiny_imagenet.runs import Run

CROPS = {False: provenance.CENTRE, True: "ten: four corners, centre, and their mirrors"}  # in the meta of predictions


@dataclass(frozen=True)
class Options:
    """Split, checkpoint, crops and device of a prediction.

    Attributes:
        split: train, train_screened, val or test.
        checkpoint: of a run: best, last or an iteration.
        ten_crop: average the four corners, the centre and their mirrors.
        gpu: number of the GPU to use, see `Evaluator`.
    """

    split: str = "val"
    checkpoint: str = "best"
    ten_crop: bool = False
    gpu: int | None = None

    @property
    def suffix(self) -> str:
        """[_SPLIT][_tencrop][_CHECKPOINT], without those of the default options."""
        split = "" if self.split == "val" else f"_{self.split}"
        checkpoint = "" if self.checkpoint == "best" else f"_{self.checkpoint}"
        return split + ("_tencrop" if self.ten_crop else "") + checkpoint


def data_of(run: Run, data: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """The data folder to use with a run: `data`, or the one it was trained on if that is None.

    Raises:
        RunError: the run's data folder is unknown or missing, or has other classes than the run.
        DatasetError: it is not a converted data set.
    """
    data = data or data_source.trained_on(run)
    wnids = [entry["wnid"] for entry in lmdb_reader.read_manifest(data)["classes"]]
    if run.info.get("wnids", wnids) != wnids:
        raise RunError(f"{data} has other classes, or another order of them, than the data of {run.path}")
    return data


def predict_run(
    run: Run, data: str | os.PathLike[str] | None = None, *, name: str | None = None, **options: Any
) -> Predictions:
    """Predict a split with a checkpoint of a run: its train_val.prototxt, mean image and weights.

    Args:
        run: the run folder.
        data: a converted data folder with the same classes; None is the one the run was trained on.
        name: for tables.
        options: fields of `Options`.

    Raises:
        RunError: the run has no such checkpoint, or was trained on other classes.
        GpuError: the GPU is missing or cannot be used.
        NetError: the net and the weights do not fit each other or the data.
        DatasetError: the data cannot be read, or is different from its manifest.
        PredictionsError: the outputs are not finite.
    """
    chosen, data = Options(**options), data_of(run, data)
    weights = run.weights(chosen.checkpoint)
    meta = {
        "model": run.info.get("model"),
        "run": os.fspath(run.path),
        "checkpoint": chosen.checkpoint,
        "iteration": int(weights.parent.name),
        "net": os.fspath(run.train_val),
        **({"name": name} if name else {}),
    }
    return _predict(nets.read(run.train_val), data, run.mean, weights, chosen, meta)


def evaluate_run(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    confusion: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a checkpoint of a run; write its predictions and, for the validation split, evaluation.json.

    Args:
        run: the run folder.
        data: a converted data folder with the same classes; None is the one the run was trained on.
        out: the predictions file; None is `predictions_file`. Only without it, evaluation[_tencrop][_CHECKPOINT].json
            is written too.
        confusion: a CSV file for the confusion matrix.
        options: fields of `Options`.

    Returns:
        `metrics.summary` with split, crops, checkpoint, data, net, predictions (path relative to the run folder),
        per_class (`metrics.class_scores` with index, wnid and words) and confused (`metrics.confused`). The test split
        has no labels: its top1 is None, and the last two are missing.

    Raises:
        RunError, GpuError, NetError, DatasetError, PredictionsError: as `predict_run`.
        TinyImageNetError: a file cannot be written; nothing is predicted then.
    """
    chosen, data = Options(**options), data_of(run, data)
    target = Path(out) if out else run.predictions.with_name(f"predictions{chosen.suffix}.npz")
    _check_targets(chosen.split, target, confusion)
    given = predict_run(run, data, **options)
    about = {
        "checkpoint": given.meta["iteration"],
        "net": run.train_val.name,
        "predictions": os.path.relpath(target, run.path),
    }
    result = _save(given, target, {"data": os.fspath(data), **about}, confusion)
    if chosen.split == "val" and not out:
        files.write_json(run.evaluation.with_name(f"evaluation{chosen.suffix}.json"), result)
    return result


def predictions_file(run: Run, split: str = "val", ten_crop: bool = False) -> Path:
    """The predictions file of a run's best checkpoint: predictions[_SPLIT][_tencrop].npz, without _SPLIT for val."""
    return run.predictions.with_name(f"predictions{Options(split, ten_crop=ten_crop).suffix}.npz")


def evaluate_files(
    data: str | os.PathLike[str],
    net: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    *,
    mean: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    confusion: str | os.PathLike[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Evaluate a train_val or deploy prototxt with a .caffemodel.

    Args:
        data: a converted data folder.
        net: the prototxt.
        weights: the .caffemodel.
        mean: the mean image; None is that of the data folder.
        out: the predictions file; None writes none.
        confusion: a CSV file for the confusion matrix.
        options: fields of `Options`.

    Returns:
        As `evaluate_run`, without checkpoint.

    Raises:
        GpuError, NetError, DatasetError, PredictionsError, TinyImageNetError: as `evaluate_run`.
    """
    chosen = Options(**options)
    _check_targets(chosen.split, out, confusion)
    mean = mean or Path(data) / lmdb_reader.read_manifest(data)["mean"]
    given = _predict(nets.read(net), data, mean, weights, chosen, {"net": os.fspath(net)})
    about = {"data": os.fspath(data), "net": os.fspath(net), "predictions": out and os.fspath(out)}
    return _save(given, out, about, confusion)


def _predict(
    net: caffe_pb2.NetParameter,
    data: str | os.PathLike[str],
    mean: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    chosen: Options,
    meta: dict[str, Any],
) -> Predictions:
    manifest, lmdb = lmdb_reader.read_manifest(data), Path(data) / f"{chosen.split}.lmdb"
    classes = manifest["classes"]
    evaluator = Evaluator(net, lmdb, mean, weights, ten_crop=chosen.ten_crop, gpu=chosen.gpu)
    if evaluator.classes != len(classes):
        raise NetError(f"{meta['net']} has {evaluator.classes} outputs, but {data} has {len(classes)} classes")
    progress = cli.track(range(evaluator.batches), evaluator.batches, f"predict {lmdb.name}")
    given = evaluator(between=lambda: next(progress, None))
    next(progress, None)  # ends it
    _check_records(given, manifest["lmdbs"].get(chosen.split), lmdb)
    predictions.check(given, f"{meta['net']} with {weights}")
    about = {
        "split": chosen.split,
        "crops": CROPS[chosen.ten_crop],
        "weights": os.fspath(weights),
        "class_names": [entry["words"] or entry["wnid"] for entry in classes],
        "wnids": [entry["wnid"] for entry in classes],
    }
    return Predictions(given.keys, given.labels, given.probabilities, {**about, **meta})


def _check_targets(split: str, target: str | os.PathLike[str] | None, confusion: str | os.PathLike[str] | None) -> None:
    if target:
        destination.check(target, ".npz")
    if confusion:
        destination.check(confusion, ".csv")
        if split == "test":
            raise PredictionsError(
                "the test split has no labels for a confusion matrix: use train, train_screened or val"
            )


def _check_records(given: Predictions, entry: Any, lmdb: Path) -> None:
    """Raise DatasetError if the records are different from those that the manifest's `entry` counts and digests."""
    if not isinstance(entry, dict):  # the data folder of another program
        return
    if entry.get("count") != len(given.keys):
        raise DatasetError(
            f"{lmdb} has {len(given.keys)} records, {entry.get('count')} in the manifest: convert the data set again"
        )
    if entry.get("sha256", "") not in ("", given.records):
        raise DatasetError(f"the keys or labels of {lmdb} are not those of the manifest: convert the data set again")


def _save(
    given: Predictions,
    target: str | os.PathLike[str] | None,
    about: dict[str, Any],
    confusion: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    if target:
        predictions.save(target, given)
    if confusion:
        lines = [["true", *given.meta["wnids"]]]
        lines += [[wnid, *map(str, row)] for wnid, row in zip(given.meta["wnids"], metrics.confusion(given).tolist())]
        files.write_text(confusion, "".join(",".join(line) + "\n" for line in lines))
    about = {"split": given.meta["split"], "crops": given.meta["crops"], **about}
    if not (given.labels >= 0).any():
        return {"count": len(given.keys), "top1": None, **about}
    names = zip(given.meta["wnids"], given.meta["class_names"], metrics.class_scores(given))
    rows = [{"index": index, "wnid": wnid, "words": words, **row} for index, (wnid, words, row) in enumerate(names)]
    return {**metrics.summary(given), **about, "per_class": rows, "confused": metrics.confused(given)}
