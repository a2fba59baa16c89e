"""Table 1 and Table 2 of the paper as data, for comparison with what was measured here.

Accuracies are percentages and parameters millions, to the digits the paper prints.
All are of Tiny ImageNet, 200 classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CLASSES = 200


@dataclass(frozen=True)
class Model:
    """One column of Table 1 and its row of Table 2."""

    name: str
    depth: int
    nonlinearity: str
    screened: bool
    parameters_millions: float
    validation_accuracy: float


@dataclass(frozen=True)
class Ensemble:
    """An average of several models' softmax outputs (Table 2's last row and section 5.3.5)."""

    members: tuple[str, ...]
    validation_accuracy: float
    test_accuracy: float | None = None


MODELS = {
    model.name: model
    for model in (
        Model("model1", 5, "ReLU", False, 1.97, 37.27),
        Model("model2", 7, "ReLU", False, 13.74, 28.20),
        Model("model3", 8, "ReLU", False, 14.33, 38.29),
        Model("model4", 8, "ReLU", False, 14.33, 39.55),
        Model("model5", 8, "PReLU", True, 14.20, 29.00),
        Model("model6", 8, "LReLU", True, 14.20, 40.19),
        Model("model7", 9, "LReLU", True, 60.56, 42.07),
        Model("model8", 9, "LReLU", True, 60.56, 46.45),
        Model("model9", 16, "ReLU", True, 138.0, 59.50),
    )
}

BEST_ENSEMBLE = Ensemble(("model8", "model9"), 61.23, 55.6)
FULL_ENSEMBLE = Ensemble(tuple(MODELS), 54.0)
ENSEMBLES = (BEST_ENSEMBLE, FULL_ENSEMBLE)


def ensemble(members: Iterable[str]) -> Ensemble | None:
    """Return the paper's ensemble of exactly these models, in any order, or None when it reports none."""
    wanted = sorted(members)
    return next((known for known in ENSEMBLES if sorted(known.members) == wanted), None)
