import math

import pytest

from tiny_imagenet.errors import NetError, UnknownModelError
from tiny_imagenet.models import zoo

MODEL = zoo.MODELS["model1"]


def test_variants_are_checked_and_derived_again():
    assert zoo.get("model4_conv5").parameters == 14_396_168
    assert MODEL.replace(classes=10).parameters == MODEL.parameters - 190 * 257
    assert zoo.get("model5_text").activation == "PReLU" and zoo.get("model5_text").drop_after_stage == 3
    assert zoo.get("model6_text").drop_after_stage == 0
    assert zoo.get("model7_text").parameters == zoo.get("model6").parameters
    assert zoo.base("model7_text") == "model7" and zoo.base("my_net") == "my_net"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("name", "../model1", "'../model1'"),
        ("convs", "4-64 |", "'4-64'"),
        ("convs", "3-64 | |", "stage 2"),
        ("convs", "3-\u00b2", "'3-\u00b2'"),
        ("activation", "Relu", "ReLU, PReLU, LReLU"),
        ("draw", "CENTRE", "TEN_CROP"),
        ("lr_schedule", "cosin", "plateau, cosine"),
        ("classes", 1, "at least 2"),
        ("hidden", (), "hidden"),
        ("hidden", (0,), "hidden"),
        ("crop", 7, "crop"),
        ("crop", 65, "at most 64"),
        ("drop_after_stage", 4, "drop_after_stage"),
        ("batch", 0, "batch"),
        ("dropout", 1, "below 1"),
        ("momentum", 1, "momentum"),
        ("base_lr", 0, "above 0"),
        ("base_lr", math.nan, "base_lr"),
        ("weight_decay", -1e-4, "weight_decay"),
        ("lr_factor", 1, "lr_factor"),
        ("patience", -1, "patience"),
        ("max_epochs", 0, "max_epochs"),
        ("shallow", ("5-64 | 5-64 | 5-64 |",), "fc1"),
        ("shallow", ("4-64 | 5-64 | 5-128 |",), "'4-64'"),
        ("shallow", ("5-64 | 5-64 |",), "fc1"),
        ("depth", 3, "'depth'"),
        ("btach", 3, "Did you mean 'batch'"),
    ],
)
def test_an_invalid_value_is_refused(field, value, named):
    with pytest.raises(NetError) as refused:
        MODEL.replace(**{field: value})
    assert named in str(refused.value)


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(UnknownModelError, match="Did you mean 'model8'"):
        zoo.get("modle8")


def test_fields_are_read_from_text():
    assert zoo.parse_field("hidden", "512,256") == (512, 256)
    assert zoo.parse_field("shallow", "") == ()
    assert zoo.parse_field("batch_norm", "true") is True
    assert zoo.parse_field("base_lr", "2e-2") == 0.02
    for name, text in (("batch", "many"), ("batch_norm", "yes"), ("hidden", "1,a"), ("no_field", "1")):
        with pytest.raises(NetError, match=name):
            zoo.parse_field(name, text)
