import pytest

from tiny_imagenet.models import paper


def test_the_tables_hold_nine_models_in_order():
    assert list(paper.MODELS) == [f"model{number}" for number in range(1, 10)]
    assert all(name == model.name for name, model in paper.MODELS.items())
    assert [model.depth for model in paper.MODELS.values()] == [5, 7, 8, 8, 8, 8, 9, 9, 16]
    assert sum(model.validation_accuracy for model in paper.MODELS.values()) == pytest.approx(360.52)
    assert sum(model.parameters_millions for model in paper.MODELS.values()) == pytest.approx(331.89)


def test_screening_and_nonlinearity_follow_the_text():
    """Models 1-4 see all images, 5-9 the screened ones; PReLU in model 5 alone, LReLU in 6 to 8."""
    assert [name for name, model in paper.MODELS.items() if not model.screened] == [
        "model1",
        "model2",
        "model3",
        "model4",
    ]
    others = {name: model.nonlinearity for name, model in paper.MODELS.items() if model.nonlinearity != "ReLU"}
    assert others == {"model5": "PReLU", "model6": "LReLU", "model7": "LReLU", "model8": "LReLU"}


def test_ensembles_are_found_in_any_order():
    best = paper.ensemble(["model9", "model8"])
    assert (best.validation_accuracy, best.test_accuracy) == (61.23, 55.6)
    assert paper.ensemble(reversed(list(paper.MODELS))).validation_accuracy == 54.0
    assert paper.ensemble(["model8"]) is None
    assert paper.ensemble(["model8", "model9", "model9"]) is None


def test_the_rows_cannot_be_changed():
    with pytest.raises(AttributeError):
        paper.MODELS["model1"].depth = 6
