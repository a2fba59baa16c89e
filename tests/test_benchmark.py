"""tools/benchmark.py: the nets that it measures, and the consistency of its figures. No test depends on a time."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import cases as net_cases
from benchmarks import figure, layers, nets, programs, tables, where
from benchmarks.programs import How, Round
from conftest import ROOT
from tiny_imagenet.errors import BenchmarkError, NetError
from tiny_imagenet.models import zoo

BUILD = ROOT / "build"
TORCH = os.environ.get("TORCH_PYTHON")
LITTLE = How(threads=1, iterations=1)
needs_caffe = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")
needs_torch = pytest.mark.skipif(not TORCH, reason="TORCH_PYTHON is not set to a Python with torch")


@pytest.fixture(scope="module")
def cases():
    return {name: net_cases.case(ROOT / "prototxt" / name, 2) for name in zoo.MODELS}


# --- The nets --------------------------------------------------------------------------------------------------------
def test_a_case_is_the_net_of_the_model(cases):
    for name, model in zoo.MODELS.items():
        case = cases[name]
        assert (case["model"], case["parameters"], case["base_lr"]) == (name, model.parameters, model.base_lr)
        convolutions = [layer["kernel"] for layer in case["layers"] if layer["type"] == "Convolution"]
        assert convolutions == [conv.kernel for stage in model.stages for conv in stage]
        for task in programs.TASKS:
            assert "LReLU" not in case[task]["stock"] and "CropData" not in case[task]["stock"]
            assert ("LReLU" in case[task]["ours"]) == any(layer["type"] == "LReLU" for layer in case["layers"])
    assert json.loads(json.dumps(cases)) == cases


@pytest.mark.parametrize(
    ("old", "new", "layer"),
    [
        ("    pad: 2\n", "    pad: 2\n    dilation: 2\n", "conv1_1"),
        ("pool: MAX", "pool: AVE", "pool1"),
        ('type: "ReLU"', 'type: "TanH"', "relu1_1"),
        ('type: "SoftmaxWithLoss"', 'type: "EuclideanLoss"', "model1"),
    ],
)
def test_a_net_that_pytorch_cannot_build_is_refused(old, new, layer, tmp_path):
    for name in ("solver", "train_val"):
        text = (ROOT / "prototxt" / "model1" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text.replace(old, new, 1))
    with pytest.raises((BenchmarkError, NetError), match=layer):
        net_cases.case(tmp_path, 2)


@needs_caffe
def test_the_data_is_drawn_once_and_does_not_learn(cases, tmp_path):
    import caffe

    (tmp_path / "net.prototxt").write_text(cases["model1"]["training"]["ours"])
    (tmp_path / "solver.prototxt").write_text(programs.solver(tmp_path, cases["model1"]))
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    solver.net.forward()
    first = solver.net.blobs["data"].data.copy()
    solver.step(2)
    assert (solver.net.blobs["data"].data == first).all() and first.std() > 10 and not np.array_equal(*first)


@needs_caffe
def test_inference_computes_what_the_deploy_net_computes(cases, tmp_path):
    import caffe

    (tmp_path / "net.prototxt").write_text(cases["model6"]["inference"]["ours"])
    timed = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    deploy = caffe.Net(str(ROOT / "prototxt" / "model6" / "deploy.prototxt"), caffe.TEST)
    assert timed.forward()["all"] == pytest.approx(2)
    for name, blobs in deploy.params.items():
        for blob, given in zip(blobs, timed.params[name]):
            blob.data[...] = given.data
    deploy.blobs["data"].reshape(2, 3, 56, 56)
    deploy.blobs["data"].data[...] = timed.blobs["data"].data
    np.testing.assert_array_equal(deploy.forward()["prob"], timed.blobs["prob"].data)


# --- One measurement -------------------------------------------------------------------------------------------------
CASE = {"model": "model1", "batch": 200, "parameters": 5, "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0}
LOG = {
    "training": "I20240131 {} 77 solver.cpp:242] Iteration {} (21.3 iter/s, 0.047s/1 iters), loss = {}",
    "inference": "I0131 {} 77 caffe.cpp:304] Batch {}, all = {}",
}
STAMPS = ["23:59:58.000000", "23:59:59.900000", "00:00:00.100000", "00:00:00.700000", "00:00:00.800000"]


@pytest.fixture
def program(tmp_path):
    """Make a caffe program that logs iterations with these values and then does `then`."""

    def make(task, values, then="exec sleep 1000"):
        lines = ["I20240131 23:59:00.000000 77 sgd_solver.cpp:120] Iteration 0, lr = 0.01"]
        for number, (stamp, value) in enumerate(zip(STAMPS, values)):
            lines += [LOG[task].format(stamp, number, value), "    Train net output #0: loss = 9 (* 1 = 9 loss)"]
        path = tmp_path / "caffe"
        path.write_text("#!/bin/sh\ncat >&2 <<END\n" + "\n".join(lines) + f"\nEND\n{then}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize("task", programs.TASKS)
@pytest.mark.parametrize(
    ("iterations", "seconds", "ms", "count"),
    [(1, 0, 200, 1), (3, 0, 300, 3), (None, 0.15, 200, 1), (None, 0.85, 300, 3)],
)
def test_a_program_is_timed_by_its_log(program, task, iterations, seconds, ms, count):
    """Two iterations of warm-up are not counted, and the clock passes midnight."""
    how = How(threads=1, iterations=iterations, seconds=seconds)
    found = programs.caffe(program(task, [5, 4, 3, 2, 1]), CASE, task, 'name: "x"', how)
    assert (found.ms, found.iterations, found.value) == (pytest.approx(ms), count, 5)


@pytest.mark.parametrize(
    ("values", "then", "found"),
    [([5, 4, 3], "echo a last word >&2; exit 3", "a last word"), ([5, 4, "nan"], "exec sleep 1000", "nan")],
)
def test_a_program_that_fails_or_diverges_is_an_error(program, values, then, found):
    with pytest.raises(BenchmarkError, match=found):
        programs.caffe(program("training", values, then), CASE, "training", 'name: "x"', How(1, iterations=50))


@needs_caffe
def test_the_caffe_program_trains_and_tests_a_case(cases):
    case = cases["model1"]
    for task in programs.TASKS:
        found = programs.caffe(BUILD / "caffe", case, task, case[task]["ours"], LITTLE)
        assert found.iterations == 1 and found.memory > 4 * case["parameters"]
        assert found.value == pytest.approx(2) if task == "inference" else math.isfinite(found.value)
    with pytest.raises(BenchmarkError, match="NoSuchLayer"):
        programs.caffe(BUILD / "caffe", case, "training", 'layer { type: "NoSuchLayer" }', LITTLE)
    with pytest.raises(BenchmarkError, match="NoSuchLayer"):
        programs.layer_times(BUILD / "caffe", 'type: "NoSuchLayer"', (2, 3), False, LITTLE)


def test_a_torch_that_ends_early_is_an_error(tmp_path):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\necho \'{"version": "0", "memory": 1}\'\nread line\necho "out of memory" >&2\n')
    fake.chmod(0o755)
    with programs.Torch(str(fake), 1) as torch, pytest.raises(BenchmarkError, match="out of memory"):
        torch.ask(layer="PReLU")


@needs_caffe
@needs_torch
def test_pytorch_builds_the_same_nets(cases):
    for name in ("model1", "model5", "model6"):
        for task in programs.TASKS:
            found = programs.torch(TORCH, cases[name], task, LITTLE)
            assert found.value == pytest.approx(2) if task == "inference" else math.isfinite(found.value)
    with pytest.raises(BenchmarkError, match=r"1,969,544"):
        programs.torch(TORCH, {**cases["model1"], "parameters": 5}, "training", LITTLE)


@needs_caffe
@pytest.mark.skipif(not (BUILD / "caffe_stock").is_file(), reason="no caffe_stock in build/: tools/benchmark.py")
def test_stock_caffe_computes_the_same_loss(cases):
    for name in ("model1", "model5", "model6"):
        texts = cases[name]["training"]
        ours = programs.caffe(BUILD / "caffe", cases[name], "training", texts["ours"], LITTLE)
        stock = programs.caffe(BUILD / "caffe_stock", cases[name], "training", texts["stock"], LITTLE)
        assert stock.value == pytest.approx(ours.value, rel=1e-4)


def test_nets_are_measured_without_pycaffe():
    code = "import benchmarks.nets, sys; print('caffe' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT / 'python'}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


# --- Results ---------------------------------------------------------------------------------------------------------
def test_programs_take_turns_and_are_compared_round_by_round(monkeypatch, tmp_path, capsys):
    for name in ("caffe", "caffe_stock"):
        (tmp_path / name).touch()
    times = {"caffe": [10, 20, 40], "caffe_stock": [30, 50, 200], "torch": [20, 30, 20]}
    calls = []

    def run(name, task):
        calls.append((name, task))
        ms = times[name][calls.count((name, task)) - 1]
        return Round(ms, 7, len(calls), 200 if task == "inference" else 5.3, "2.0", 1)

    monkeypatch.setattr(programs, "caffe", lambda path, case, task, net, how: run(path.name, task))
    monkeypatch.setattr(programs, "torch", lambda python, case, task, how: run("torch", task))
    texts = {"ours": "", "stock": ""}
    case, kept = {**CASE, "training": texts, "inference": texts}, []
    settings = nets.Settings(threads=2)
    result = nets.measure([case], settings, tmp_path, True, "python", lambda found: kept.append(len(found["nets"])))
    assert calls == [(name, task) for task in programs.TASKS for name in 3 * ["caffe", "torch", "caffe_stock"]]
    assert kept == [1, 2]
    measured = result["nets"][0]["measured"]
    assert measured["ours"]["ms"] == {"best": 10, "median": 20}
    assert measured["ours"]["images_per_second"] == {"best": 20000, "median": 10000}
    assert measured["torch"]["ours_over_this"] == {"best": 2, "median": 1.5}  # of 2, 1.5, 0.5
    assert measured["stock"]["ours_over_this"] == {"best": 3, "median": 3}
    assert measured["torch"]["memory"] == 8  # the largest of 2, 5, 8
    tables.show("nets", result)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("model1"))
    assert line.split()[-3:] == ["0", "3.00", "(3.00)"]
    assert [bar.get_height() for bar in figure.draw(result).axes[0].patches] == pytest.approx([2, 3])


@pytest.mark.parametrize(("task", "ours", "stock"), [("inference", 190, 200), ("training", 5.3, 5.5)])
def test_programs_that_compute_something_else_are_an_error(task, ours, stock):
    found = {name: [(Round(1.0, 1, 1, value), 1)] for name, value in (("ours", ours), ("stock", stock))}
    with pytest.raises(BenchmarkError, match=f"{ours:g}"):
        nets.row(CASE, task, found)


def test_a_rectifier_is_compared_with_the_bandwidth():
    found = {"ours": [1.0, 3.0, 2.0], "stock": [8.0, 4.0, 9.0]}
    row = layers.rectifier_row(layers.Case("PReLU", (2, 3), True), "forward", found, {"best": 1e6, "median": 5e5})
    assert row["bytes"] == 3 * 4 * 6  # x, y and the copy of x
    assert row["measured"]["stock"]["ours_over_this"] == {"best": 0.25, "median": 0.25}
    assert row["measured"]["ours"]["share"] == pytest.approx({"best": 0.072, "median": 0.072})
    assert row["measured"]["torch"] is None


NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 5 dim: 3 dim: 8 dim: 8 } } }
layer { name: "label" type: "DummyData" top: "label" dummy_data_param { shape { dim: 5 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "prelu1" type: "PReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc" inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_the_work_of_layers_is_counted():
    data, conv1, pool1, fc = 5 * 3 * 64, 5 * 4 * 64, 5 * 4 * 16, 5 * 7
    weights1, weights_fc = 4 * 3 * 9 + 4, 7 * 64 + 7
    expected = {  # flop forward, backward; float32 values forward, backward
        "conv1": (2 * conv1 * 27, 2 * conv1 * 27, data + weights1 + conv1, conv1 + data + weights1),
        "prelu1": (0, 0, 3 * conv1 + 4, 3 * conv1 + 8),  # a copy of x; dy, x, dx, slopes and their gradient
        "pool1": (0, 0, conv1 + pool1, pool1 + conv1),
        "fc": (2 * fc * 64, 4 * fc * 64, pool1 + weights_fc + fc, fc + 2 * pool1 + 2 * weights_fc),
        "loss": (0, 0, 2 * fc + 10 + 1, 1 + fc + 5 + fc),
    }
    found = {work.name: work for work in where.work_of(NET)}
    assert list(found) == list(expected)
    for name, (forward, backward, values, values_back) in expected.items():
        assert found[name].flop == {"forward": forward, "backward": backward}, name
        assert found[name].bytes == {"forward": 4 * values, "backward": 4 * values_back}, name
    frozen = NET.replace('top: "conv1"\n', 'top: "conv1" param { lr_mult: 0 } param { lr_mult: 0 }\n')
    assert [work.name for work in where.work_of(frozen.replace('"PReLU"', '"ReLU"'))] == ["fc", "loss"]


@needs_caffe
@pytest.mark.slow
@pytest.mark.parametrize("subject", [["layers"], ["nets", "model1", "--batch", 3], ["where", "model1", "--batch", 3]])
def test_each_subject_writes_json_and_markdown(subject, tool, tmp_path, capsys):
    done = tool("benchmark", *subject, "--quick", "--no-stock", "--threads", 1, "--json", "--out", tmp_path / "x.json")
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "x.json").read_text())
    assert result["settings"]["threads"] == 1 and "--no-stock" in result["not_measured"]["stock"]
    tables.show(subject[0], result, markdown=True)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(("| PReLU", "| model1", "| conv1_1")) for line in lines)


@needs_caffe
def test_invalid_arguments_are_named(tool, tmp_path):
    def error(*arguments, status=2):
        return tool("benchmark", *arguments, fails=status).stderr

    assert "model10" in error("nets", "model10")
    assert "'0'" in error("nets", "--batch", 50, 0)
    assert ".png or .svg" in error("nets", "--plot", tmp_path / "x.pdf")
    assert str(tmp_path) in error("nets", "--out", tmp_path)
    assert "--cases" in error("nets", "--cases", "x", "--batch", 2)
    assert "--gpu" in error("nets", "--deterministic")
    assert "--write-cases" in error("nets", "--cases", tmp_path / "none", status=1)
    assert "tools/setup.sh" in error("layers", "--no-stock", "--build", tmp_path, status=1)
    assert str(tmp_path / "python") in error("nets", "model1", "--torch", tmp_path / "python")
    assert "MODEL" in error("where")
