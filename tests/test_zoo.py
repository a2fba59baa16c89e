import math

import pytest

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import paper, zoo

# Weights, biases and PReLU slopes, as counted by hand from Table 1.
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


def test_the_nine_models_are_there():
    assert list(zoo.MODELS) == list(PARAMETERS) == list(paper.MODELS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_row_agrees_with_the_paper(name):
    model, column = zoo.MODELS[name], paper.MODELS[name]
    assert model.parameters == PARAMETERS[name]
    assert model.depth == column.depth
    assert model.activation == column.nonlinearity
    assert model.screened == column.screened
    if name != "model9":  # the paper prints VGG-16's own count there
        assert round(model.parameters / 1e6, 2) == column.parameters_millions


def test_the_solver_values_given_in_the_paper():
    assert (zoo.MODELS["model8"].base_lr, zoo.MODELS["model8"].weight_decay) == (0.02, 1e-4)
    assert (zoo.MODELS["model9"].base_lr, zoo.MODELS["model9"].weight_decay) == (0.01, 5e-4)
    for model in zoo.MODELS.values():
        assert (model.batch, model.momentum, model.dropout) == (200, 0.9, 0.5)


def test_a_variant_is_checked_and_derived_anew():
    variant = zoo.MODELS["model4"].replace(convs="5-64 5-64 | 5-128 3-128 | 3-256 3-256 |")
    assert variant.parameters == 14_396_168
    assert zoo.MODELS["model1"].replace(classes=10).parameters == 1_969_544 - 190 * 257


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"convs": "4-64 |"}, "'4-64'"),
        ({"convs": "3-64 | |"}, "stage 2"),
        ({"activation": "Swish"}, "'Swish'"),
        ({"classes": 1}, "classes is 1, it must be at least 2"),
        ({"hidden": ()}, "hidden"),
        ({"crop": 7}, "crop of 7"),
        ({"drop_after_stage": 4}, "drop_after_stage 4"),
        ({"depth": 3}, "'depth'"),
        ({"convs": "3-\u00b2"}, "no convolution"),
        ({"convs": "3-99999999999"}, "no convolution"),
        ({"convs": "999-99999 3-999999 |"}, "more than 2147483647 weights"),
        ({"hidden": (0,)}, "hidden"),
        ({"hidden": (2**31,)}, "hidden"),
        ({"crop": 65}, "crop is 65, it must be at least 1 and at most 64"),
        ({"batch": 0}, "batch is 0"),
        ({"batch": 200_000}, "batch is 200000, it must be at least 1 and at most 100000"),
        ({"dropout": 1}, "dropout is 1, it must be at least 0 and below 1"),
        ({"momentum": 1}, "momentum is 1"),
        ({"base_lr": 0}, "base_lr is 0, it must be above 0"),
        ({"base_lr": 1e-50}, "base_lr is 1e-50, it must be above 0"),  # which Caffe's float32 makes 0
        ({"momentum": 1 - 1e-12}, "momentum is 0.999999999999, it must be at least 0 and below 1"),
        ({"batch": 20_000}, "at batch 20000 a blob would have more than 2147483647 values"),
        ({"base_lr": math.nan}, "base_lr is nan"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
        ({"input_scale": 0}, "input_scale is 0"),
        ({"negative_slope": -0.1}, "negative_slope"),
        ({"lr_factor": 1}, "lr_factor is 1, it must be above 0 and below 1"),
        ({"patience": 0}, "patience is 0"),
        ({"max_epochs": 10**6}, "max_epochs is 1000000"),
        ({"draw": "CENTRE"}, "draw 'CENTRE' is none of UNIFORM, TEN_CROP"),
        ({"name": "../model1"}, "no name of a model"),
    ],
)
def test_a_variant_that_makes_no_net_is_refused(changes, says):
    with pytest.raises(NetError, match=says):
        zoo.MODELS["model1"].replace(**changes)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(NetError, match="did you mean model8.*model9"):
        zoo.get("modle8")
