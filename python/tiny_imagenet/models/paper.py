"""The paper's Tables 1 and 2 as data: facts about its models, to compare measured results with.

Accuracies are percentages and parameters millions, with the digits that the paper prints. All results are for Tiny
ImageNet with 200 classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CLASSES = 200


@dataclass(frozen=True)
class PaperModel:
    """A column of Table 1 with its result from Table 2.

    Attributes:
        depth: layers with weights.
        nonlinearity: ReLU, PReLU or LReLU.
        screened: whether it was trained without the images in which a crop may miss the object.
        parameters_millions: as printed; for Model 9 this is VGG-16's own count.
        validation_accuracy: top-1 in percent (Table 2).
        open_points: letters of the points that the paper leaves open for this model alone (prototxt/README.md).
    """

    depth: int
    nonlinearity: str
    screened: bool
    parameters_millions: float
    validation_accuracy: float
    open_points: str = "e"


@dataclass(frozen=True)
class Ensemble:
    """An average of the softmax outputs of several models (last row of Table 2, section 5.3.5)."""

    name: str
    members: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float | None = None


PAPER = {
    "model1": PaperModel(5, "ReLU", False, 1.97, 37.27),
    "model2": PaperModel(7, "ReLU", False, 13.74, 28.20),
    "model3": PaperModel(8, "ReLU", False, 14.33, 38.29),
    "model4": PaperModel(8, "ReLU", False, 14.33, 39.55, "a e"),
    "model5": PaperModel(8, "PReLU", True, 14.20, 29.00, "b d2 e"),
    "model6": PaperModel(8, "LReLU", True, 14.20, 40.19, "d e"),
    "model7": PaperModel(9, "LReLU", True, 60.56, 42.07, "d e"),
    "model8": PaperModel(9, "LReLU", True, 60.56, 46.45, "d k"),
    "model9": PaperModel(16, "ReLU", True, 138.0, 59.50, "c j k"),
}

ENSEMBLES = (
    Ensemble("model8 + model9", ("model8", "model9"), 61.23, 55.6),
    Ensemble("all nine", tuple(PAPER), 54.0),
)


def ensemble(members: Iterable[str]) -> Ensemble | None:
    """Return the paper's ensemble of exactly these models in any order, or None."""
    wanted = sorted(members)
    return next((known for known in ENSEMBLES if sorted(known.members) == wanted), None)


def open_points(name: str) -> tuple[str, ...]:
    """Letters of the open points that affect one of the paper's models, in the order of prototxt/README.md."""
    if name not in PAPER:
        return ()
    model = PAPER[name]
    return tuple(sorted([*model.open_points.split(), *"fghl", *(["i", "i2"] if model.screened else [])]))
