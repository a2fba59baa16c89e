"""Reading prototxt: positions of fields, and all syntax errors of a file."""

import pytest
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import prototxt, solvers


def errors(text):
    with pytest.raises(prototxt.PrototxtError) as raised:
        prototxt.parse(caffe_pb2.NetParameter(), text, "net.prototxt")
    assert str(raised.value).startswith("net.prototxt:{}:{}: ".format(*raised.value.errors[0]))
    return raised.value.errors


def test_each_field_has_its_position():
    text = """layer [
 {name: "x" top: ["a","b"]},
 {top: "c" convolution_param < pad: 1, pad: 2; >} ]
name: "a" "b"  # c"""
    assert prototxt.parse(caffe_pb2.NetParameter(), text, "net.prototxt") == {
        "layer[0]": (2, 2),
        "layer[0].name": (2, 3),
        "layer[0].top[0]": (2, 19),
        "layer[0].top[1]": (2, 23),
        "layer[1]": (3, 2),
        "layer[1].top[0]": (3, 3),
        "layer[1].convolution_param": (3, 12),
        "layer[1].convolution_param.pad[0]": (3, 32),
        "layer[1].convolution_param.pad[1]": (3, 40),
        "name": (4, 1),
    }


@pytest.mark.parametrize(
    ("text", "place", "named"),
    [
        ('layer { name: "x"\n  botom: "y" }', (2, 3), "'bottom'"),
        ('layer { name: "x" pooling_param { kernelsize: 2 } }', (1, 35), "'kernel_size'"),
        ("layer { pooling_param { pool: MXA } }", (1, 25), "'MAX'"),
        ("layer { include { phase: 7 } }", (1, 26), "Phase"),
        ("layer { pooling_param { kernel_size: abc } }", (1, 38), "abc"),
        ("layer { name: x }", (1, 15), "'x'"),
        ('layer { name "x" }', (1, 14), '":"'),
        ("layer: 3", (1, 8), '"{"'),
        ('name: "a" name: "b"', (1, 17), "name"),
        ('layer { pooling_param { kernel_size: 2 }\nlayer { name: "y" }', (2, 1), "layer"),
        ('layer { name: "x"', (1, 17), "}"),
        ('layer { name: "x" } }', (1, 21), "}"),
        ('layer { name: "x }\n', (1, 15), "quote"),
        ("layer { name: \u201cx\u201d }", (1, 9), "\u201cx\u201d"),
    ],
)
def test_a_syntax_error_has_its_position(text, place, named):
    (line, column, what), *_ = errors(text)
    assert (line, column) == place
    assert named in what


def test_all_syntax_errors_are_found_at_once():
    text = """layer { naem: "x" }
layer { botom: "x" pooling_param { pool: MXA kernel_size: many } }
layer { name: "y" convolution_param { kernel_size: [3, a] } }
layer { phase: TEST bottom: 3 }"""
    assert [(line, column) for line, column, _ in errors(text)] == [(1, 9), (2, 9), (2, 36), (3, 56), (4, 29)]


@pytest.mark.parametrize(
    ("text", "solver"),
    [
        ('net: "a" base_lr: 1 lr_policy: "fixed"', True),
        ("# layer {\nbase_lr: 1", True),
        ('name: "base_lr: 1"\nlayer { name: "max_iter: 3" }', False),
        ("layer { param { lr_mult: 1 } power_param { power: 2 } }", False),
        ('layers { bottom: "base_lr" } force_backward: true', False),
        ("basse_lr: 1 momentum: 0.9", True),
        ("", False),
    ],
)
def test_solvers_and_nets_are_distinguished_by_their_fields(text, solver):
    assert solvers.is_solver(text) == solver


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_file_is_named(content, tmp_path):
    path = tmp_path / "net.prototxt"
    if content:
        path.write_bytes(content)
    with pytest.raises(NetError, match=r"net\.prototxt"):
        prototxt.read(caffe_pb2.NetParameter(), path)
