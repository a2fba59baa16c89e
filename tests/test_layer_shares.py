"""tools/benchmark.py where: what a layer cannot do without, by counting; that the figures hang together. No timings."""

import json

import pytest

from benchmarks import layer_shares, layer_tables, layer_work, net_cases, net_programs, timing
from conftest import ROOT

BUILD = ROOT / "build"
needs_caffe = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 5 dim: 3 dim: 8 dim: 8 } } }
layer { name: "label" type: "DummyData" top: "label" dummy_data_param { shape { dim: 5 } } }
layer { name: "scaled" type: "Power" bottom: "data" top: "scaled" power_param { scale: 2 } }
layer { name: "conv1" type: "Convolution" bottom: "scaled" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "prelu1" type: "PReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
  convolution_param { num_output: 6 kernel_size: 3 bias_term: false } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "relu2" }
layer { name: "drop2" type: "Dropout" bottom: "relu2" top: "relu2" }
layer { name: "fc" type: "InnerProduct" bottom: "relu2" top: "fc" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_work_is_counted():
    """Against numbers of values and products written out by hand."""
    data, conv1, pool1, conv2, fc = 5 * 3 * 64, 5 * 4 * 64, 5 * 4 * 16, 5 * 6 * 4, 5 * 7
    weights1, weights2, weights_fc = 4 * 3 * 9 + 4, 6 * 4 * 9, 7 * 24 + 7
    expected = {  # name: flop forward, backward; values forward, backward
        "conv1": (2 * conv1 * 27, 2 * conv1 * 27, data + weights1 + conv1, conv1 + data + weights1),
        "prelu1": (0, 0, 3 * conv1 + 4, 3 * conv1 + 8),  # a copy of x; dy, x, dx, slopes and theirs
        "pool1": (0, 0, conv1 + pool1, pool1 + conv1),
        "conv2": (2 * conv2 * 36, 4 * conv2 * 36, pool1 + weights2 + conv2, conv2 + 2 * pool1 + 2 * weights2),
        "relu2": (0, 0, 2 * conv2, 3 * conv2),
        "drop2": (0, 0, 3 * conv2, 3 * conv2),  # a mask
        "fc": (2 * fc * 24, 4 * fc * 24, conv2 + weights_fc + fc, fc + 2 * conv2 + 2 * weights_fc),
        "loss": (0, 0, 2 * fc + 10 + 1, 1 + fc + 5 + fc),
    }
    found = {work.name: work for work in layer_work.of_net(NET)}
    assert list(found) == list(expected)
    for name, (forward, backward, values, values_back) in expected.items():
        assert found[name].flop == {"forward": forward, "backward": backward}, name
        assert found[name].bytes == {"forward": 4 * values, "backward": 4 * values_back}, name
    assert found["conv1"].shape == (5, 4, 8, 8)


def test_parameters_that_do_not_learn_need_no_gradient():
    frozen = NET.replace('top: "conv1"\n', 'top: "conv1" param { lr_mult: 0 } param { lr_mult: 0 }\n')
    names = [work.name for work in layer_work.of_net(frozen.replace('type: "PReLU"', 'type: "ReLU"'))]
    assert names == ["conv2", "relu2", "drop2", "fc", "loss"]


@pytest.fixture(scope="module")
def result(tool, tmp_path_factory):
    file = tmp_path_factory.mktemp("where") / "out.json"
    more = "--threads", 1, "--quick", "--no-stock", "--json", "--out", file
    done = tool("benchmark", "where", "model1", "--batch", 3, *more)
    assert json.loads(file.read_text()) == json.loads(done.stdout)
    return json.loads(done.stdout)


@needs_caffe
def test_shares_are_work_over_time_over_the_limits(result):
    assert (result["model"], result["batch"]) == ("model1", 3)
    names = [layer["name"] for layer in result["layers"]]
    assert names[:3] == ["conv1_1", "relu1_1", "pool1"] and names[-1] == "loss"
    for layer in result["layers"]:
        ours = layer["measured"]["ours"]
        ms = sum(value["best"] for value in ours["ms"].values())
        if ms > 0.01:  # the clock ticks in microseconds
            assert ours["sgemm"] == pytest.approx(
                sum(layer["flop"].values()) / (ms / 1000) / result["limits"]["sgemm"], rel=1e-3
            )
            assert ours["copy"] == pytest.approx(
                sum(layer["bytes"].values()) / (ms / 1000) / result["limits"]["copy"], rel=1e-3
            )
    kinds = {kind["type"]: kind for kind in result["kinds"]}
    convolutions = [layer for layer in result["layers"] if layer["type"] == "Convolution"]
    assert kinds["Convolution"]["flop"] == sum(sum(layer["flop"].values()) for layer in convolutions)
    best = [value["best"] for layer in convolutions for value in layer["measured"]["ours"]["ms"].values()]
    assert kinds["Convolution"]["measured"]["ours"]["ms"] == pytest.approx(sum(best))
    assert "--no-stock" in result["not_measured"]["stock"]


@needs_caffe
def test_tables(result, capsys):
    layer_tables.show(result)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("conv1_1") for line in lines) and any("--quick" in line for line in lines)
    assert "\x1b" not in "".join(lines) and "…" not in "".join(lines)
    text = layer_tables.markdown(result)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert sum(line.startswith("| --- |") for line in rows) == 2
    assert any(line.startswith("| Convolution | ") for line in rows)
    assert all(line.count("|") in (9, 8) for line in rows)


def test_programs_and_limits_take_turns(monkeypatch, tmp_path, capsys):
    """A product of 100 x 100 matrices in 2 ms is 1 GFLOP/s; a copy of 1 MB in 2 ms is 1 GB/s."""
    for name in ("caffe", "caffe_stock"):
        (tmp_path / name).touch()
    calls = []

    def net_times(program, text, iterations, threads):
        calls.append(program.name)
        late = calls.count(program.name)  # the first round is the best
        factor = {"caffe": 1, "caffe_stock": 3}[program.name] * late
        return {work.name: {"forward": 1.0 * factor, "backward": 2.0 * factor} for work in layer_work.of_net(NET)}

    def products(program, layer, shape, in_place, iterations, threads):
        calls.append("limits")
        assert shape == (100, 100) and "num_output: 100" in layer
        return {"forward": 5.0, "backward": 4.0}

    def caffe(program, case, text, task, how):
        return net_programs.Round({"caffe": 40, "caffe_stock": 100}[program.name], 1, 1, 5.0)

    monkeypatch.setattr(timing, "net_times", net_times)
    monkeypatch.setattr(timing, "caffe_times", products)
    monkeypatch.setattr(timing, "copy_times", lambda *_: {"whole": 2.0, "layer": 2.5})
    monkeypatch.setattr(net_programs, "caffe", caffe)
    case = {"model": "mine", "batch": 5, "training": {"ours": NET, "stock": NET}}
    settings = layer_shares.Settings(threads=1, rounds=2, sgemm=100, copy=1_000_448)
    result = layer_shares.layers(case, settings, tmp_path)
    assert calls == 2 * ["limits", "caffe", "caffe_stock"]
    assert result["limits"] == {"sgemm": pytest.approx(1e9), "copy": pytest.approx(2 * 1_000_448 / 0.002)}
    conv2 = next(layer for layer in result["layers"] if layer["name"] == "conv2")
    assert conv2["measured"]["stock"]["ms"] == {
        "forward": {"best": 3, "median": 4.5},
        "backward": {"best": 6, "median": 9},
    }
    assert conv2["measured"]["ours"]["sgemm"] == pytest.approx(sum(conv2["flop"].values()) / 0.003 / 1e9)
    layer_tables.show(result)
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("conv2")).split()[-1] == "3.00"
    rest = next(line for line in lines if line.startswith("update and the rest")).split()
    assert rest[4:] == ["16.0", "40", "28.0", "28", "1.75"]  # 40 - 8 x 3 and 100 - 8 x 9


@needs_caffe
def test_the_net_of_every_model_can_be_counted():
    for name in ("model1", "model5", "model9"):
        case = net_cases.case(ROOT / "prototxt" / name, 2)
        kinds = {work.type for work in layer_work.of_net(case["training"]["ours"])}
        assert {"Convolution", "InnerProduct", "SoftmaxWithLoss"} <= kinds
        assert not kinds & {"DummyData", "Embed", "Parameter", "Silence"}


def test_wrong_arguments(tool):
    assert "not both" in tool("benchmark", "where", "model1", "--json", "--markdown", fails=2).stderr
    assert "required: MODEL" in tool("benchmark", "where", fails=2).stderr
