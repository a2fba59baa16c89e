"""Images of some classes as a net represents them: values of its last hidden layer, projected by t-SNE."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tiny_imagenet.data import lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation import evaluate, features, provenance
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets
from tiny_imagenet.report import figures
from tiny_imagenet.runs import Run

COMPONENTS = 50  # of the PCA before t-SNE
PERPLEXITY = 30  # or a third of the images, if that is less
LEAST_IMAGES = 5
AT_HOME = 0.5  # a class is named where at least this fraction of a point's neighbours belongs to it

# Seven colours and eight shapes have no common factor: a pair repeats only after 56 classes.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_CLASSES = len(figures.PALETTE) * len(MARKERS)
_SQUARE, _TITLE, _LINE = 6.1, 0.42, 0.145  # inches
_COLUMNS = 5  # of the legend
# Places for a name, nearest first: offsets from the class's home in heights of the name. The home itself stays visible.
_RINGS = np.array(
    [
        (ring * math.cos(math.pi * step / 8), ring * math.sin(math.pi * step / 8))
        for ring in (1, *np.arange(1.5, 20, 0.5))
        for step in (4, 12, 0, 8, 2, 6, 10, 14, 1, 3, 5, 7, 9, 11, 13, 15)
    ]
)


@dataclass(frozen=True)
class Choice:
    """The images to draw, and the layer.

    Attributes:
        classes: how many, at most 56, chosen at random.
        images: how many at most in total, chosen at random, about as many from each class.
        layer: name of a layer; None for the last one before the classifier.
        seed: for choosing and for t-SNE.
        split: train, train_screened or val.
    """

    classes: int = 50
    images: int = 2500
    layer: str | None = None
    seed: int = 0
    split: str = "val"


def draw(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    choice: Choice = Choice(),
    checkpoint: str = "best",
    gpu: int | None = None,
) -> Figure:
    """Draw images where t-SNE places a layer's values for them.

    Each class has its own colour and marker, and a name at its `home` if there is one. The same arguments give the
    same figure on the same machine.

    Args:
        run: the run folder.
        data: a converted data folder with the same classes; None for the one the run was trained on.
        choice: which images, and which layer.
        checkpoint: best, last or an iteration.
        gpu: the GPU that computes the values; None for Caffe's current mode.

    Raises:
        GpuError: the GPU is missing or cannot be used.
        RunError: the run has no such checkpoint, or its data is unknown or has other classes.
        NetError: the net has no such layer, or t-SNE cannot project its values.
        DatasetError: the data cannot be read or has too few labelled images.
    """
    if not 1 <= choice.classes <= MOST_CLASSES:
        raise DatasetError(f"classes: expected from 1 to {MOST_CLASSES}, got {choice.classes}")
    data = evaluate.data_of(run, data)
    entries = lmdb_reader.read_manifest(data)["classes"]
    lmdb = Path(data) / f"{choice.split}.lmdb"
    chosen = features.select(lmdb, len(entries), choice.classes, choice.images, choice.seed)
    if len(chosen.keys) < LEAST_IMAGES:
        needed = f"t-SNE needs at least {LEAST_IMAGES}; increase --images or --classes"
        raise DatasetError(f"only {len(chosen.keys)} {choice.split} images to draw: {needed}")
    predictor = Predictor(nets.read(run.train_val), run.mean, run.weights(checkpoint), gpu=gpu)
    blob = features.hidden(predictor, choice.layer)
    points = embed(features.compute(predictor, chosen.images, blob), choice.seed, f"layer {blob} of {run.train_val}")
    shown = sorted(set(chosen.labels.tolist()))
    names = {label: entries[label]["words"] or entries[label]["wnid"] for label in shown}
    (name,) = provenance.by_name([run.path])
    classes = f"{len(shown)} class{'es' if len(shown) > 1 else ''}"
    title = f"{name}, {blob}: t-SNE of {len(points):,} {choice.split} images of {classes}"
    return plot(points, chosen.labels, names, title)


def embed(values: np.ndarray, seed: int = 0, what: str = "the layer") -> np.ndarray:
    """Project rows of values (n, size), n at least 5, with PCA to at most 50 components and t-SNE: (n, 2) float32.

    It uses one thread: with several, the last bits of sums vary, and t-SNE amplifies the difference.

    Raises:
        NetError: the rows, of the layer called `what`, are all equal or have one value.
    """
    if values.shape[1] < 2 or np.ptp(values, axis=0).max() == 0:
        raise NetError(f"{what} has the same values for all {len(values)} images, or only one: pass another --layer")
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about defaults that a later scikit-learn changes
        fewer = PCA(min(COMPONENTS, *values.shape), random_state=seed).fit_transform(values)
        perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        return tsne.fit_transform(fewer)


def plot(points: np.ndarray, labels: np.ndarray, names: dict[int, str], title: str) -> Figure:
    """Draw points (n, 2) with their labels (n,); `names` maps labels to classes in the order of the legend."""
    lines = math.ceil(len(names) / _COLUMNS)
    height = _TITLE + _SQUARE + lines * _LINE + 0.15
    size = min(36.0, max(7.0, 18000 / len(points)))
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, height))
        figure.text(0, 1 - 0.16 / height, figures.plain(title), fontsize=9)
        note = "A class is named where at least half of the neighbouring points belong to it."
        figure.text(0, 1 - 0.32 / height, note, fontsize=7)
        bottom = lines * _LINE + 0.15
        axes = figure.add_axes((0, bottom / height, 1, _SQUARE / height))
        for index, (label, name) in enumerate(names.items()):
            axes.scatter(
                *points[labels == label].T,
                s=size,
                color=figures.PALETTE[index % len(figures.PALETTE)],
                marker=MARKERS[index % len(MARKERS)],
                linewidths=0,
                alpha=0.75,
                label=figures.plain(figures.short(name)),
            )
        axes.set(xticks=[], yticks=[])
        axes.margins(0.04)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_alpha(0.3)
        _name_clusters(axes, points, labels, names)
        figure.legend(
            loc="upper left",
            bbox_to_anchor=(0, 0, 1, (bottom - 0.06) / height),
            ncol=_COLUMNS,
            fontsize=7,
            borderaxespad=0,
            borderpad=0,
            handletextpad=0.1,
            columnspacing=0.8,
            labelspacing=0.25,
            mode="expand" if lines > 1 else None,
            markerscale=max(1.0, (16 / size) ** 0.5),
        )
    return figure


def home(points: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, float]:
    """The point around which a class is densest, and the fraction of its neighbours that belong to the class.

    Args:
        points: (n, 2), of all classes.
        own: (n,) bool, the points of the class, at least one.

    Returns:
        The class's point (2,) whose neighbours include most of the class (of several the most central one), and the
        fraction. The number of neighbours is half the class's points, at least three.
    """
    nearest = min(max(3, int(own.sum()) // 2), len(points) - 1)
    distances = np.linalg.norm(points[own][:, None] - points[None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, 1 : nearest + 1]  # the first is the point itself
    shares = own[order].mean(axis=1)
    best = np.lexsort((distances[:, own].sum(axis=1), -shares))[0]
    return points[own][best], float(shares[best])


def _name_clusters(axes: Axes, points: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """Write the names of classes at their homes or, to avoid overlaps, nearby with a line to the home."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    frame = axes.get_window_extent(renderer)
    outline = [withStroke(linewidth=1.8, foreground="white")]
    style = {"ha": "center", "va": "center", "fontsize": 7, "path_effects": outline, "zorder": 4}
    taken = np.empty((0, 4))
    for label, name in names.items():
        place, share = home(points, labels == label)
        if share < AT_HOME:
            continue
        text = axes.text(*place, figures.plain(figures.short(name)), **style)
        with figures.quiet_glyphs():
            box = text.get_window_extent(renderer)
        half = np.array([box.width / 2 + 3, box.height / 2 + 2])
        start = axes.transData.transform(place)
        new = next(
            (
                middle
                for middle in np.clip(start + _RINGS * box.height, frame.min + half + 5, frame.max - half - 5)
                if not ((middle - half < taken[:, 2:]) & (taken[:, :2] < middle + half)).all(axis=1).any()
            ),
            start,
        )
        taken = np.vstack([taken, [*(new - half), *(new + half)]])
        text.set_position(axes.transData.inverted().transform(new))
        if np.linalg.norm(new - start) > 3 * box.height:
            near = np.clip(start, new - half, new + half)  # the line ends at the edge of the name
            ends = np.array([place, axes.transData.inverted().transform(near)])
            axes.plot(*ends.T, color=figures.INK, linewidth=0.5, alpha=0.6, zorder=3, scalex=False, scaley=False)
