"""Differences between nets and between solvers."""

import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from conftest import ROOT
from tiny_imagenet.inspect import diff
from tiny_imagenet.models import nets, solvers, zoo

PROTOTXT = ROOT / "prototxt"


def changed(net, edit):
    copy = caffe_pb2.NetParameter()
    copy.CopyFrom(net)
    edit(copy)
    return [(change.kind, change.layer, change.field, change.old, change.new) for change in diff.nets(net, copy)]


def layer(net, name):
    return next(layer for layer in net.layer if layer.name == name)


def test_changed_fields_have_both_values():
    def edit(net):
        layer(net, "conv1_2").convolution_param.kernel_size[0] = 5
        net.layer[0].transform_param.crop_size = 48
        layer(net, "drop_fc1").dropout_param.ClearField("dropout_ratio")  # 0.5, its default
        layer(net, "pool1").pooling_param.pool = caffe_pb2.PoolingParameter.AVE

    assert changed(nets.build(zoo.MODELS["model6"]), edit) == [
        ("changed", "data", "transform_param.crop_size", "56", "48"),
        ("changed", "conv1_2", "convolution_param.kernel_size", "3", "5"),
        ("changed", "pool1", "pooling_param.pool", "MAX", "AVE"),
    ]


def test_layers_are_added_removed_renamed_and_moved():
    net = nets.build(zoo.MODELS["model6"])
    assert changed(net, lambda copy: None) == []
    last = [("removed", "accuracy_top5", "", "", "")]
    assert changed(net, lambda copy: copy.layer.pop()) == last
    renamed = changed(net, lambda copy: setattr(layer(copy, "relu_fc1"), "name", "activation"))
    assert renamed == [("renamed", "activation", "", "", "")]
    moved = changed(net, lambda copy: copy.layer.sort(key=lambda layer: layer.name == "accuracy"))
    assert moved == [("order", "", "", "", "")]
    (added,) = diff.nets(nets.build(zoo.MODELS["model3"]), nets.build(zoo.MODELS["model4"]))[1:]
    assert (added.kind, added.layer) == ("added", "drop_conv3") and "relu3_2" in str(added)


def test_layers_of_one_name_and_two_phases_are_distinguished():
    net = nets.build(zoo.MODELS["model8"])
    assert changed(net, lambda copy: copy.layer.pop(1)) == [("removed", "data", "", "", "")]


EQUAL = [
    ('type: "BatchNorm"', 'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }'),
    ('type: "SoftmaxWithLoss" top: "a" top: "b"', 'type: "SoftmaxWithLoss" top: "a" top: "b" loss_weight: [1, 0]'),
    ('type: "ReLU"', 'type: "ReLU" loss_weight: 0'),
    ('type: "LReLU"', 'type: "LReLU" relu_param { negative_slope: 0.01 }'),
    ('type: "Eltwise"', 'type: "Eltwise" eltwise_param { coeff: 1 coeff: 1 }'),
    (
        'type: "DummyData" dummy_data_param { shape { dim: 1 dim: 2 dim: 3 dim: 4 } }',
        'type: "DummyData" dummy_data_param { num: 1 channels: 2 height: 3 width: 4 }',
    ),
    (
        'type: "Input" top: "a" top: "b" input_param { shape { dim: 1 } }',
        'type: "Input" top: "a" top: "b" input_param { shape { dim: 1 } shape { dim: 1 } }',
    ),
    ('type: "Power" power_param { scale: nan }', 'type: "Power" power_param { scale: nan }'),
    ('type: "Convolution"', 'type: "Convolution" param { lr_mult: 1 } param { lr_mult: 1 decay_mult: 1 }'),
    *(
        ('type: "Convolution" convolution_param { kernel_size: 3 }', f'type: "Convolution" convolution_param {{ {p} }}')
        for p in (
            "kernel_size: 3 kernel_size: 3 stride: 1 pad: 0 dilation: 1",
            "kernel_h: 3 kernel_w: 3 stride_h: 1 stride_w: 1 pad_h: 0 pad_w: 0 group: 1",
        )
    ),
    (
        'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }',
        'type: "Pooling" pooling_param { kernel_h: 2 kernel_w: 2 stride_h: 2 stride_w: 2 pool: MAX }',
    ),
]


def pair(one, other):
    return [text_format.Parse(f'layer {{ name: "x" {text} }}', caffe_pb2.NetParameter()) for text in (one, other)]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_different_forms_of_one_setting_are_equal(one, other):
    assert diff.nets(*pair(one, other)) == []


@pytest.mark.parametrize(
    ("one", "other", "field", "old", "new"),
    [
        ("kernel_size: 3", "kernel_h: 3 kernel_w: 5", "convolution_param.kernel_size", "3", "3, 5"),
        ("kernel_size: 3", "kernel_size: 3 stride: 2", "convolution_param.stride", "1", "2"),
        ("bias_filler { value: 0.01 }", "bias_filler { value: 0.010000001 }", "convolution_param.bias_filler.value",
         "0.00999999978", "0.0100000007"),
    ],
)  # fmt: skip
def test_close_values_are_told_apart(one, other, field, old, new):
    texts = [f'type: "Convolution" convolution_param {{ {text} }}' for text in (one, other)]
    (change,) = diff.nets(*pair(*texts))
    assert (change.field, change.old, change.new) == (field, old, new)


def test_solvers_differ_by_field():
    seven, eight = (solvers.build(zoo.MODELS[name], "prototxt/x") for name in ("model7", "model8"))
    eight.snapshot_prefix = seven.snapshot_prefix
    assert [(change.field, change.old, change.new) for change in diff.solvers(seven, eight)] == [
        ("base_lr", "0.01", "0.02"),
        ("weight_decay", "0.0005", "0.0001"),
    ]


def test_the_script_compares_models_and_files(tool):
    assert "solver: base_lr 0.01 -> 0.02" in tool("describe", "model7", "--diff", "model8").stdout.splitlines()
    assert tool("describe", "model7", "--diff", "model7").stdout == "no difference\n"
    done = tool("describe", "model7", "--diff", PROTOTXT / "model7" / "deploy.prototxt")
    assert "deploy.prototxt" in done.stderr  # a note: the solver is not compared
    assert "layer loss (SoftmaxWithLoss) removed" in done.stdout
    train_vals = [PROTOTXT / name / "train_val.prototxt" for name in ("model7", "model8")]
    assert tool("describe", train_vals[0], "--diff", train_vals[1]).stdout == 'net: name "model7" -> "model8"\n'
