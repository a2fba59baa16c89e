"""The images of some classes as a net sees them: its last hidden layer's values, laid out on a plane by t-SNE."""

from __future__ import annotations

import math
import os
import warnings
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
from tiny_imagenet.evaluation import evaluate, features
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.models import nets
from tiny_imagenet.report import figures
from tiny_imagenet.runs import Run

CLASSES = 50
IMAGES = 2500
COMPONENTS = 50  # what PCA leaves for t-SNE
PERPLEXITY = 30  # or a third of the images, where that is less
LEAST_IMAGES = 5
AT_HOME = 0.5  # the least share of its own class among its neighbours for a place to have the class's name

# Seven colours and eight shapes have no common factor: class n's pair is only met again 56 classes later.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_CLASSES = len(figures.PALETTE) * len(MARKERS)
_WIDTH, _SQUARE, _TITLE, _LINE = 7.0, 6.1, 0.42, 0.145  # inches
_COLUMNS = 5  # of the legend
_COVERED = 4  # pixels: how much further away a name may stand to hide one of 2500 points less


def draw(
    run: Run,
    data: str | os.PathLike[str] | None = None,
    classes: int = CLASSES,
    images: int = IMAGES,
    layer: str | None = None,
    seed: int = 0,
    split: str = "val",
    checkpoint: str = "best",
    gpu: int | None = None,
) -> Figure:
    """Draw the images of some classes of a split where t-SNE puts what a layer of the run's net makes of them.

    Each class has a pair of colour and marker of its own, and its name stands where at least half of an image's
    neighbours are of the class too (`home`), if there is such a place. The same arguments give the same figure on the
    same machine.

    Args:
        run: the run folder.
        data: a converted data folder of the same classes; None is the one the run was trained on.
        classes: how many, at most 56, drawn with the seed; all where the data set has fewer.
        images: how many at most, all classes together; drawn with the seed, from each class about as many.
        layer: a layer of the deploy net; None is the one whose output the classifier takes.
        seed: draws classes and images and starts t-SNE.
        split: train, train_screened or val.
        checkpoint: best, last or an iteration.
        gpu: the number of the GPU that computes the values; None as of `predict.Predictor`.

    Raises:
        GpuError: there is no such GPU, or it cannot be used.
        RunError: the run has no such checkpoint, does not say where its data is, or was trained on other classes.
        NetError: there is no such layer, or its values cannot be laid out.
        DatasetError: the data cannot be read or has too few labelled images.
    """
    if not 1 <= classes <= MOST_CLASSES:
        raise DatasetError(f"classes is {classes}: from 1 to {MOST_CLASSES} are allowed, as many as can be told apart")
    data = evaluate.data_of(run, data)
    entries = lmdb_reader.read_manifest(data)["classes"]
    chosen = features.select(Path(data) / f"{split}.lmdb", len(entries), classes, images, seed)
    if len(chosen.keys) < LEAST_IMAGES:
        raise DatasetError(
            f"there are {len(chosen.keys)} {split} images to draw: t-SNE needs at least {LEAST_IMAGES}; take more "
            "--images or --classes"
        )
    predictor = Predictor(nets.read(run.train_val), run.mean, run.weights(checkpoint), gpu=gpu)
    blob = features.hidden(predictor, layer)
    points = embed(features.compute(predictor, chosen.images, blob), seed, f"layer {blob} of {run.deploy}")
    shown = sorted(set(chosen.labels.tolist()))
    names = {label: entries[label]["words"] or entries[label]["wnid"] for label in shown}
    title = (
        f"{run.info.get('model') or run.path.name}, {blob}: t-SNE of {len(points):,} {split} images of "
        f"{len(shown)} class{'es' if len(shown) > 1 else ''}"
    )
    return plot(points, chosen.labels, names, title)


def embed(values: np.ndarray, seed: int = 0, what: str = "the layer") -> np.ndarray:
    """Where t-SNE puts rows of values (n, size), n at least 5: (n, 2) float32; PCA leaves it at most 50 components.

    One thread computes: with several, sums differ in their last bits from time to time, and t-SNE blows that up.

    Raises:
        NetError: the rows, said to be of `what`, are all the same or of one value.
    """
    if values.shape[1] < 2 or np.ptp(values, axis=0).max() == 0:
        raise NetError(
            f"{what} gives all {len(values)} images the same values, or one value each: name another --layer"
        )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of defaults that a later scikit-learn changes
        fewer = PCA(min(COMPONENTS, *values.shape), random_state=seed).fit_transform(values)
        perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
        return tsne.fit_transform(fewer)


def plot(points: np.ndarray, labels: np.ndarray, names: dict[int, str], title: str) -> Figure:
    """Draw points (n, 2) by their labels (n,); `names` has, by label, the classes in the order of their looks."""
    lines = math.ceil(len(names) / _COLUMNS)
    height = _TITLE + _SQUARE + lines * _LINE + 0.15
    size = min(36.0, max(7.0, 18000 / len(points)))
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        figure.text(0, 1 - 0.16 / height, figures.plain(title), fontsize=9)
        note = "A name stands where at least half of the neighbours are of that class."
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
    """Where among points (n, 2) a class is at home, and the share of that place's neighbours that are its own.

    Args:
        points: of all classes.
        own: (n,) bool, which of them are of the class: at least one.

    Returns:
        The class's point (2,) with most of its own among the nearest, of several the one nearest to its own, and
        the share from 0 to 1. Half as many of the nearest are looked at as the class has points, at least three.
    """
    nearest = min(max(3, int(own.sum()) // 2), len(points) - 1)
    distances = np.linalg.norm(points[own][:, None] - points[None], axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, 1 : nearest + 1]  # the first is the point itself
    shares = own[order].mean(axis=1)
    best = np.lexsort((distances[:, own].sum(axis=1), -shares))[0]
    return points[own][best], float(shares[best])


def _name_clusters(axes: Axes, points: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> None:
    """Write the names of classes that have a home beside it, where they hide few points; a line bridges a distance."""
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    frame = axes.get_window_extent(renderer)
    dots = axes.transData.transform(points)
    taken = np.empty((0, 4))
    for label, name in names.items():
        place, share = home(points, labels == label)
        if share < AT_HOME:
            continue
        text = axes.text(
            *place,
            figures.plain(figures.short(name)),
            ha="center",
            va="center",
            fontsize=7,
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
            zorder=4,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script the font lacks
            box = text.get_window_extent(renderer)
        half = np.array([box.width / 2 + 3, box.height / 2 + 2])
        start = axes.transData.transform(place)
        new = _room(start, half, taken, dots, (frame.min + half + 5, frame.max - half - 5))
        taken = np.vstack([taken, [*(new - half), *(new + half)]])
        text.set_position(axes.transData.inverted().transform(new))
        if np.linalg.norm(new - start) > 3 * box.height:
            near = np.clip(start, new - half, new + half)  # the line ends at the name's edge
            ends = np.array([place, axes.transData.inverted().transform(near)])
            axes.plot(*ends.T, color=figures.INK, linewidth=0.5, alpha=0.6, zorder=3, scalex=False, scaley=False)


def _room(
    start: np.ndarray,
    half: np.ndarray,
    taken: np.ndarray,
    dots: np.ndarray,
    bounds: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """The middle for a name's box, in pixels as all here: of those that meet none of `taken`, the cheapest.

    Candidates are on rings about `start`, kept within `bounds` (lowest and highest x, y); what counts is how far away
    they are and how many `dots` the box covers.
    """
    rings = [(4.0 * ring, math.pi * step / 8) for ring in range(40) for step in range(16 if ring else 1)]
    radius, angle = np.array(rings).T
    middles = start + (radius * np.array([np.cos(angle), np.sin(angle)])).T
    middles = np.clip(middles, *bounds)
    low, high = middles - half, middles + half
    meets = ((low[:, None] < taken[:, 2:]) & (taken[:, :2] < high[:, None])).all(axis=2).any(axis=1)
    covered = ((low[:, None] < dots) & (dots < high[:, None])).all(axis=2).sum(axis=1)
    cost = np.linalg.norm(middles - start, axis=1) + _COVERED * max(1, IMAGES / len(dots)) * covered + 1e6 * meets
    return middles[cost.argmin()]
