"""The most probable classes of image files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import dataset, images, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import data_source
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets
from tiny_imagenet.runs import Run


class Guess(NamedTuple):
    """A class of an image: index, wnid, words ("" if unknown) and probability."""

    index: int
    wnid: str
    words: str
    probability: float


class Outcome(NamedTuple):
    """An image file and its most probable classes in descending order; none of them if there is an error."""

    path: str
    guesses: list[Guess]
    error: str = ""


def class_names(run: Run, data: str | os.PathLike[str] | None = None) -> list[tuple[str, str]]:
    """The wnid and words of each class of a run, from `data` or the data it was trained on.

    If the latter is missing, the wnids are those of run.json and the words "", and a note is printed.

    Raises:
        DatasetError: `data` is not a converted data set, or has other classes than the run.
        RunError: the classes are unknown.
    """
    wnids = run.info.get("wnids")
    try:
        manifest = lmdb_reader.read_manifest(data or data_source.trained_on(run))
    except (RunError, DatasetError) as error:
        if data or not wnids:
            raise
        cli.note(f"note: the words of the classes are unknown: {error}")
        return [(wnid, "") for wnid in wnids]
    found = [(entry["wnid"], entry["words"]) for entry in manifest["classes"]]
    if wnids and [wnid for wnid, _ in found] != wnids:
        if data:
            raise DatasetError(f"{data} has other classes, or another order of them, than the data of {run.path}")
        return [(wnid, dict(found).get(wnid, "")) for wnid in wnids]
    return found


def image_files(sources: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
    """Yield (path, "") for each named file and for the images in each named folder, in the order of their paths.

    Hidden files and folders below a folder are skipped. A folder that cannot be listed or has no images yields its own
    path and an error.
    """
    for source in map(os.fspath, sources):
        if not os.path.isdir(source):
            yield source, ""
            continue
        problems: list[OSError] = []
        found = []
        for folder, below, names in os.walk(source, onerror=problems.append):
            below[:] = [name for name in below if not name.startswith(".")]
            images = [name for name in names if name.lower().endswith(dataset.SUFFIXES) and not name.startswith(".")]
            found += [os.path.join(folder, name) for name in images]
        for problem in problems:
            yield str(problem.filename), f"cannot list {problem.filename}: {problem.strerror}"
        if not found and not problems:
            yield source, f"{source} has no images: expected names that end in {', '.join(dataset.SUFFIXES)}"
        yield from ((path, "") for path in sorted(found))


def classify(
    predictor: Predictor, sources: Iterable[str | os.PathLike[str]], names: Sequence[tuple[str, str]], top: int = 5
) -> Iterator[Outcome]:
    """Yield the outcome of each image that `sources` name (`image_files`), in order.

    Images of other sizes are resized to 64x64 as with tools/convert.py --resize.

    Args:
        predictor: the net.
        sources: image files and folders.
        names: wnid and words of each class.
        top: number of classes per image.

    Raises:
        NetError: the net has another number of classes than `names`, or its probabilities are not finite.
    """
    batch: list[tuple[str, np.ndarray | str]] = []
    for item in _read(sources):
        batch.append(item)
        if len(batch) == predictor.batch:
            yield from _outcomes(predictor, batch, names, top)
            batch = []
    yield from _outcomes(predictor, batch, names, top)


def _read(sources: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, np.ndarray | str]]:
    """Yield path and image (3, 64, 64), or the error."""
    for path, problem in image_files(sources):
        if problem:
            yield path, problem
            continue
        try:
            yield path, images.read_image(path, resize=True).transpose(2, 0, 1)
        except DatasetError as error:
            yield path, str(error)


def _outcomes(
    predictor: Predictor, batch: list[tuple[str, np.ndarray | str]], names: Sequence[tuple[str, str]], top: int
) -> Iterator[Outcome]:
    pictures = [image for _, image in batch if not isinstance(image, str)]
    rows = iter(predictor(np.stack(pictures)) if pictures else [])
    for path, image in batch:
        if isinstance(image, str):
            yield Outcome(path, [], image)
        else:
            yield Outcome(path, _guesses(next(rows), names, top))


def _guesses(row: np.ndarray, names: Sequence[tuple[str, str]], top: int) -> list[Guess]:
    if len(row) != len(names):
        raise NetError(f"the net has {len(row)} outputs, but the data has {len(names)} classes")
    if not np.isfinite(row).all():
        raise NetError("the probabilities are not finite: training diverged; try a lower --base-lr")
    order = np.argsort(-row, kind="stable")[:top]
    return [Guess(int(index), *names[index], float(row[index])) for index in order]


def open_run(run: Run, checkpoint: str = "best", ten_crop: bool = False, gpu: int | None = None) -> Predictor:
    """The net of a run's checkpoint (best, last or an iteration); `gpu` as in `Predictor`.

    Raises:
        RunError: it is not a run folder, or has no such checkpoint.
        NetError: the net and the weights do not fit each other.
        GpuError: the GPU is missing or cannot be used.
    """
    _ = run.info
    return Predictor(nets.read(run.train_val), run.mean, run.weights(checkpoint), ten_crop=ten_crop, gpu=gpu)
