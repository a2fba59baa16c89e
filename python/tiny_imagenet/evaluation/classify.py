"""Image files to their most probable classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tiny_imagenet import cli
from tiny_imagenet.data import dataset, images, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError, RunError
from tiny_imagenet.evaluation import origin
from tiny_imagenet.evaluation.ahead import ahead
from tiny_imagenet.evaluation.predict import Predictor, batches
from tiny_imagenet.runs import Run


class Guess(NamedTuple):
    """A class of an image: index, wnid, words ("" where they are not known) and probability."""

    index: int
    wnid: str
    words: str
    probability: float


class Outcome(NamedTuple):
    """An image file and its most probable classes, the first first; or none of them and why it cannot be read."""

    path: str
    guesses: list[Guess]
    error: str = ""


def class_names(run: Run, data: str | os.PathLike[str] | None = None) -> list[tuple[str, str]]:
    """The wnid and words of each class of a run, from `data` or the data it was trained on.

    Where the latter is gone, the wnids are those of run.json and the words "", which a note says.

    Raises:
        DatasetError: `data` is no converted data set, or has other classes than the run.
        RunError: nothing is known about the classes.
    """
    wnids = run.info.get("wnids")
    try:
        manifest = lmdb_reader.read_manifest(data or origin.trained_on(run))
    except (RunError, DatasetError) as error:
        if data or not wnids:
            raise
        cli.note(f"note: the words of the classes are not known: {error}")
        return [(wnid, "") for wnid in wnids]
    found = [(entry["wnid"], entry["words"]) for entry in manifest["classes"]]
    if wnids and [wnid for wnid, _ in found] != wnids:
        if data:
            raise DatasetError(f"{data} has other classes, or in another order, than {run.path} was trained on")
        return [(wnid, dict(found).get(wnid, "")) for wnid in wnids]
    return found


def image_files(sources: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, str]]:
    """Yield path and "" for each file that is named, and for the images in each folder, in order of their paths.

    A folder is gone through with all below it, but for what is hidden. One without images, or that cannot be listed,
    gives its own path and what is wrong.
    """
    for source in map(os.fspath, sources):
        if not os.path.isdir(source):
            yield source, ""
            continue
        problems: list[OSError] = []
        found = []
        for folder, below, names in os.walk(source, onerror=problems.append):
            below[:] = sorted(name for name in below if not name.startswith("."))
            found += [
                os.path.join(folder, name)
                for name in names
                if name.lower().endswith(dataset.SUFFIXES) and not name.startswith(".")
            ]
        for problem in problems:
            yield str(problem.filename), f"cannot list {problem.filename}: {problem.strerror}"
        if not found and not problems:
            kinds = ", ".join(dataset.SUFFIXES)
            yield source, f"the folder {source} has no image: its name must end in one of {kinds}"
        for path in sorted(found):
            yield path, ""


def classify(
    predictor: Predictor, sources: Iterable[str | os.PathLike[str]], names: Sequence[tuple[str, str]], top: int = 5
) -> Iterator[Outcome]:
    """Yield the outcome of each image that `sources` name (`image_files`), in order.

    Images of another size are resized to 64x64 as by tools/convert.py --resize. Images are read while the net computes.

    Args:
        predictor: the net.
        sources: image files and folders.
        names: wnid and words of each class.
        top: how many classes of each image; all where there are fewer.

    Raises:
        NetError: the net has another number of classes than `names`, or does not give finite probabilities.
    """
    ready = ahead(batches(_read(sources), predictor.batch))
    try:
        for batch in ready:
            images = [image for _, image in batch if not isinstance(image, str)]
            rows = iter(predictor(np.stack(images)) if images else [])
            for path, image in batch:
                if isinstance(image, str):
                    yield Outcome(path, [], image)
                else:
                    yield Outcome(path, _guesses(next(rows), names, top))
    finally:
        ready.close()


def _read(sources: Iterable[str | os.PathLike[str]]) -> Iterator[tuple[str, np.ndarray | str]]:
    """Path and image (3, 64, 64), or what is wrong with it."""
    for path, problem in image_files(sources):
        if problem:
            yield path, problem
            continue
        try:
            yield path, images.read_image(path, resize=True).transpose(2, 0, 1)
        except DatasetError as error:
            yield path, str(error)


def _guesses(row: np.ndarray, names: Sequence[tuple[str, str]], top: int) -> list[Guess]:
    if len(row) != len(names):
        raise NetError(f"the net tells {len(row)} classes apart, the data set has {len(names)}")
    if not np.isfinite(row).all():
        raise NetError("the net's probabilities are not finite: it has diverged; train it again with a lower --base-lr")
    order = np.argsort(-row, kind="stable")[:top]
    return [Guess(int(index), *names[index], float(row[index])) for index in order]


def open_run(run: Run, checkpoint: str = "best", ten_crop: bool = False, gpu: int | None = None) -> Predictor:
    """The net of a run's checkpoint (best, last or an iteration); `gpu` as of `Predictor`.

    Raises:
        RunError: it is no run folder, or has no such checkpoint.
        NetError: a file of it does not fit.
        GpuError: there is no such GPU, or it cannot be used.
    """
    _ = run.info
    return Predictor(run.deploy, run.mean, run.weights(checkpoint), ten_crop=ten_crop, gpu=gpu)
