import pytest

from tiny_imagenet.models import paper, zoo
from tiny_imagenet.models.paper import PAPER

# Weights, biases and PReLU slopes, counted by hand from Table 1.
PARAMETERS = {
    "model1": 1_969_544,
    "model2": 13_740_552,
    "model3": 14_330_632,
    "model4": 14_330_632,
    "model5": 14_197_384,
    "model6": 14_196_488,
    "model7": 60_564_808,
    "model8": 60_564_808,
    "model9": 135_079_944,
}


def test_table_1_and_2_are_complete():
    assert list(PAPER) == [f"model{number}" for number in range(1, 10)]
    assert [model.depth for model in PAPER.values()] == [5, 7, 8, 8, 8, 8, 9, 9, 16]
    assert sum(model.validation_accuracy for model in PAPER.values()) == pytest.approx(360.52)
    assert sum(model.parameters_millions for model in PAPER.values()) == pytest.approx(331.89)


@pytest.mark.parametrize("name", PAPER)
def test_a_row_agrees_with_the_paper(name):
    row, published = zoo.MODELS[name], PAPER[name]
    assert row.parameters == PARAMETERS[name]
    assert (row.depth, row.activation, row.screened) == (published.depth, published.nonlinearity, published.screened)
    if name != "model9":  # the paper prints VGG-16's count
        assert round(row.parameters / 1e6, 2) == published.parameters_millions
    assert (row.batch, row.momentum, row.dropout) == (200, 0.9, 0.5)
    assert (row.base_lr, row.weight_decay) == ((0.02, 1e-4) if name == "model8" else (0.01, 5e-4))


def test_ensembles_are_found_in_any_order():
    best = paper.ensemble(["model9", "model8"])
    assert (best.validation_accuracy, best.test_accuracy) == (61.23, 55.6)
    assert paper.ensemble(reversed(list(PAPER))).validation_accuracy == 54.0
    assert paper.ensemble(["model8"]) is None
    assert paper.ensemble(["model8", "model9", "model9"]) is None


def test_open_points_of_a_model():
    assert paper.open_points("model8") == ("d", "f", "g", "h", "i", "i2", "k", "l")
    assert paper.open_points("model1") == ("e", "f", "g", "h", "l")
