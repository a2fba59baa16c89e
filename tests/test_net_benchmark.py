"""tools/benchmark.py nets: that the figures hang together and the nets are the right ones. No timings, no GPU."""

import json
import math
import os
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks import net_benchmark, net_cases, net_figure, net_programs, net_progress, net_tables
from benchmarks.net_programs import How
from conftest import ROOT
from tiny_imagenet.errors import BenchmarkError
from tiny_imagenet.models import nets, paper, zoo

BUILD = ROOT / "build"
TORCH = os.environ.get("TORCH_PYTHON")
LITTLE = How(threads=1, warm_up=2, iterations=1, seconds=0)
needs_caffe = pytest.mark.skipif(not (BUILD / "caffe").is_file(), reason="no caffe program in build/: tools/setup.sh")
needs_torch = pytest.mark.skipif(not TORCH, reason="TORCH_PYTHON names no Python that has torch")


@pytest.fixture(scope="module")
def cases():
    return {name: net_cases.case(ROOT / "prototxt" / name, 2) for name in paper.PAPER}


# --- The nets ---


def test_a_case_is_the_net(cases):
    for name in paper.PAPER:
        model = zoo.MODELS[name]
        case = cases[name]
        assert (case["model"], case["parameters"], case["side"], case["classes"]) == (name, model.parameters, 56, 200)
        assert (case["base_lr"], case["weight_decay"]) == (model.base_lr, model.weight_decay)
        kinds = [layer["type"] for layer in case["layers"]]
        assert kinds.count("Convolution") == sum(map(len, model.stages))
        assert kinds.count(model.activation) >= kinds.count("Convolution")
        assert kinds[0] == "Power" and kinds[-1] == "InnerProduct"
        assert [layer["kernel"] for layer in case["layers"] if layer["type"] == "Convolution"] == [
            conv.kernel for stage in model.stages for conv in stage
        ]
    assert {layer["slope"] for layer in cases["model6"]["layers"] if layer["type"] == "LReLU"} == {0.01}
    assert json.loads(json.dumps(cases)) == cases


def test_stock_caffe_gets_the_same_net_in_its_own_types(cases, tmp_path):
    for case in cases.values():
        for task in net_programs.TASKS:
            ours, stock = case[task]["ours"], case[task]["stock"]
            assert "LReLU" not in stock and "CropData" not in stock
            if "LReLU" not in ours:
                assert ours == stock
    (tmp_path / "net.prototxt").write_text(cases["model6"]["training"]["stock"])
    slopes = [la.relu_param.negative_slope for la in nets.read(tmp_path / "net.prototxt").layer if la.type == "ReLU"]
    assert slopes.count(pytest.approx(0.01)) == cases["model6"]["training"]["ours"].count('type: "LReLU"')


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('type: "Softmax"', 'type: "Sigmoid"', "does not end in a Softmax|no Softmax"),
        ("    pad: 2\n", "    pad: 2\n    group: 1\n    dilation: 2\n", "conv1_1 .* is none that PyTorch is given"),
        ("pool: MAX", "pool: AVE", "pool1 .* is none that PyTorch is given"),
        ('type: "ReLU"', 'type: "TanH"', "relu1_1 .TanH. is none that PyTorch is given"),
        ('bottom: "pool1"', 'bottom: "scaled"', "is no chain of layers"),
    ],
)
def test_a_net_that_pytorch_is_not_given(old, new, says, tmp_path):
    for name in ("solver", "deploy"):
        text = (ROOT / "prototxt" / "model1" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text.replace(old, new, 1))
    with pytest.raises(Exception, match=says):
        net_cases.case(tmp_path, 2)


@needs_caffe
def test_the_data_of_a_case_stays_what_it_is(cases, tmp_path):
    """It is drawn once: not zeros, all images different, and not more with each iteration, updates included."""
    import caffe

    (tmp_path / "net.prototxt").write_text(cases["model1"]["training"]["ours"])
    solver = f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.1 momentum: 0.9 weight_decay: 0.1 lr_policy: "fixed"'
    (tmp_path / "solver.prototxt").write_text(solver)
    solver = caffe.SGDSolver(str(tmp_path / "solver.prototxt"))
    solver.net.forward()
    first = solver.net.blobs["data"].data.copy()
    solver.step(2)
    assert (solver.net.blobs["data"].data == first).all()
    assert first.shape == (2, 3, 56, 56) and 55 < first.std() < 65
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.1
    labels = [solver.net.forward() and solver.net.blobs["label"].data.astype(int).tolist() for _ in range(50)]
    assert min(map(min, labels)) >= 0 and max(map(max, labels)) < 200 and len(np.unique(labels)) > 20


@needs_caffe
def test_inference_is_the_deploy_net(cases, tmp_path):
    """Its probabilities are those of deploy.prototxt with the same weights and images, and their sum is the batch."""
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


# --- One round ---

LOG = {
    "training": "I20240131 {} 77 solver.cpp:242] Iteration {} (21.3 iter/s, 0.047s/1 iters), loss = {}",
    "inference": "I0131 {} 77 caffe.cpp:304] Batch {}, all = {}",
}


@pytest.fixture
def program(tmp_path):
    """Makes a program that does `first`, logs lines, one of each number and value, and then goes on or ends."""

    def make(task, stamps, values, then="exec sleep 100", first=":"):
        lines = ["I20240131 23:59:00.000000 77 sgd_solver.cpp:120] Iteration 0, lr = 0.01"]
        for number, (stamp, value) in enumerate(zip(stamps, values)):
            lines += [LOG[task].format(stamp, number, value), "    Train net output #0: loss = 9 (* 1 = 9 loss)"]
        path = tmp_path / "caffe"
        path.write_text(f"#!/bin/sh\n{first}\ncat >&2 <<END\n" + "\n".join(lines) + f"\nEND\n{then}\n")
        path.chmod(0o755)
        return path

    return make


STAMPS = ["23:59:58.000000", "23:59:59.900000", "00:00:00.100000", "00:00:00.700000", "00:00:00.800000"]


@pytest.mark.parametrize("task", net_programs.TASKS)
@pytest.mark.parametrize(
    ("iterations", "seconds", "ms", "count"),
    [(1, 0, 200, 1), (2, 0, 400, 2), (3, 99, 300, 3), (None, 0.15, 200, 1), (None, 0.3, 400, 2), (None, 0.85, 300, 3)],
)
def test_what_the_program_logs_is_read(program, task, iterations, seconds, ms, count):
    """The first two iterations do not count, and at midnight the clock starts anew."""
    case = {"model": "model1", "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0}
    path = program(task, STAMPS, [5, 4, 3, 2, 1])
    how = How(threads=1, warm_up=2, iterations=iterations, seconds=seconds)
    found = net_programs.caffe(path, case, 'name: "x"', task, how)
    assert (found.ms, found.iterations, found.value) == (pytest.approx(ms), count, 5)
    assert 0 < found.memory < 100e6


@pytest.mark.parametrize(
    ("values", "then", "says"),
    [
        ([5, 4, 3, 2, 1], "echo a last word >&2; exit 3", r"caffe train failed \(status 3\): a last word"),
        ([5, 4, "nan", 2, 1], "exec sleep 100", r"model1, training: \S+/caffe computes nan: .*Iteration 2"),
        ([5, "-inf", 3, 2, 1], "exec sleep 100", "computes -inf"),
    ],
)
def test_a_program_that_fails_is_an_error(program, values, then, says):
    case = {"model": "model1", "base_lr": 0.1, "momentum": 0.9, "weight_decay": 0}
    path = program("training", STAMPS, values, then)
    with pytest.raises(BenchmarkError, match=says):
        net_programs.caffe(path, case, 'name: "x"', "training", How(1, 2, 50, 0))


def test_a_program_that_is_timed_does_not_go_on(program, tmp_path):
    pid = tmp_path / "pid"
    path = program("inference", STAMPS, [2] * 5, first=f"echo $$ >{pid}")
    begin = time.monotonic()
    net_programs.caffe(path, {"model": "model1"}, "", "inference", How(1, 2, 1, 0))
    assert time.monotonic() - begin < 50
    assert not os.path.exists(f"/proc/{int(pid.read_text())}")


@needs_caffe
def test_the_real_program(cases):
    for task in net_programs.TASKS:
        found = net_programs.caffe(BUILD / "caffe", cases["model1"], cases["model1"][task]["ours"], task, LITTLE)
        assert found.iterations == 1 and 0 < found.ms < 60_000
        # The parameters, in training with their gradients and what momentum keeps.
        assert found.memory > (3 if task == "training" else 1) * 4 * cases["model1"]["parameters"]
        expected = 2 if task == "inference" else math.log(200)  # of a net that knows nothing, about
        assert found.value == pytest.approx(expected, abs=1e-4 if task == "inference" else 2)
    with pytest.raises(BenchmarkError, match="Unknown layer type: NoSuchLayer"):
        net_programs.caffe(BUILD / "caffe", cases["model1"], 'layer { type: "NoSuchLayer" }', "training", LITTLE)


@needs_caffe
def test_the_loss_is_what_pycaffe_computes(cases, tmp_path):
    """The same seed gives the same first loss."""
    import caffe

    case = cases["model1"]
    (tmp_path / "net.prototxt").write_text(case["training"]["ours"])
    (tmp_path / "solver.prototxt").write_text(net_programs._solver(tmp_path, case))
    caffe.set_mode_cpu()
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    solver.step(1)
    found = net_programs.caffe(BUILD / "caffe", case, case["training"]["ours"], "training", LITTLE)
    assert found.value == pytest.approx(float(solver.net.blobs["loss"].data), rel=1e-5)


# --- Side by side ---


@pytest.fixture(scope="module")
def result(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    tool("benchmark", "nets", "model1", "--batch", 3, 2, "--write-cases", folder / "cases.json")
    arguments = "nets", "--cases", folder / "cases.json", "--rounds", 2, "--iterations", 1, "--threads", 1, "--json"
    more = "--no-stock", "--out", folder / "out.json", "--plot", folder / "out.svg"
    done = tool("benchmark", *arguments, *more)
    assert "8 of 8: model1, batch 2, inference, round 2 of 2, ours" in done.stderr.splitlines()
    ElementTree.parse(folder / "out.svg")
    assert json.loads((folder / "out.json").read_text()) == json.loads(done.stdout)
    return json.loads(done.stdout)


@needs_caffe
def test_rates_are_images_over_time(result):
    rows = result["nets"]
    assert [(row["model"], row["batch"], row["task"]) for row in rows] == [
        ("model1", batch, task) for batch in (3, 2) for task in ("training", "inference")
    ]
    for row in rows:
        ours = row["measured"]["ours"]
        for name in ("best", "median"):
            assert ours["images_per_second"][name] == pytest.approx(row["batch"] / (ours["ms"][name] / 1000))
        assert ours["ms"]["best"] == min(found["ms"] for found in ours["rounds"])
        assert 0 < ours["ms"]["best"] <= ours["ms"]["median"]
        assert ours["memory"] > 4 * row["parameters"] and result["machine"]["gpu"] is None
    assert result["settings"]["tf32"] == [False]
    assert "--no-stock" in result["not_measured"]["stock"]


def test_programs_take_turns(monkeypatch, tmp_path, capsys):
    """Round by round; the ratio of a round is that of the two times in it; each net is kept when it is done."""
    for name in ("caffe", "caffe_stock"):
        (tmp_path / name).touch()
    times = {"caffe": [10, 20, 40], "caffe_stock": [30, 50, 200], "torch": [20, 30, 20]}
    calls = []

    def run(name, task):
        calls.append((name, task))
        ms = times[name][calls.count((name, task)) - 1]
        return net_programs.Round(ms, 7, len(calls), 200 if task == "inference" else 5.3, "2.0", 1)

    monkeypatch.setattr(net_programs, "caffe", lambda program, case, text, task, how: run(program.name, task))
    monkeypatch.setattr(net_programs, "torch", lambda python, case, task, how: run("torch", task))
    texts = {"ours": "", "stock": ""}
    case = {"model": "model1", "batch": 200, "parameters": 5, "training": texts, "inference": texts}
    kept = []
    settings = net_benchmark.Settings(threads=2)
    result = net_benchmark.nets(
        [case], settings, tmp_path, "python", True, net_progress.shown, lambda found: kept.append(len(found["nets"]))
    )
    turn = ["caffe", "torch", "caffe_stock"]
    assert calls == [(name, task) for task in ("training", "inference") for name in 3 * turn]
    assert kept == [1, 2]
    measured = result["nets"][0]["measured"]
    assert list(measured) == ["ours", "torch", "stock"]
    assert measured["ours"]["ms"] == {"best": 10, "median": 20}
    assert measured["torch"]["ours_over_this"] == {"best": 2, "median": 1.5}  # of 2, 1.5, 0.5
    assert measured["stock"]["ours_over_this"] == {"best": 3, "median": 3}  # of 3, 2.5, 5
    assert measured["torch"]["memory"] == 8  # the largest of 2, 5, 8
    assert measured["ours"]["rounds"][2] == {"ms": 40, "iterations": 7}
    assert "ours_over_this" not in measured["ours"]
    notes = capsys.readouterr().err.splitlines()
    assert notes[2] == "3 of 18: model1, batch 200, training, round 1 of 3, stock"

    net_tables.show(result)
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split() for line in lines if line.startswith("model1")]
    assert " ".join(cells[0]) == ("model1 200 5 20000 (10000) 0 10000 (10000) 0 2.00 (1.50) 6667 (4000) 0 3.00 (3.00)")
    assert len(cells) == 2 and any("Inference: forward alone" in line for line in lines)
    assert any("VmHWM" in line for line in lines) and not any("was not measured" in line for line in lines)

    figure = net_figure.draw(result)
    training, inference = figure.axes
    assert [bar.get_height() for bar in training.patches] == pytest.approx([2, 3])
    assert [text.get_text() for text in training.texts] == ["2.0", "3.0"]
    assert [text.get_text() for text in training.get_xticklabels()] == ["1\n20000/s"]
    assert inference.get_title(loc="left") == "Inference, batch 200"
    assert len({bar.get_facecolor() for bar in training.patches}) == 2
    for row in result["nets"]:
        row["measured"] = {"ours": row["measured"]["ours"]}
    assert [bar.get_height() for bar in net_figure.draw(result).axes[0].patches] == [20000]


def test_both_ways_to_round_on_a_gpu(capsys):
    measured = net_benchmark._rates(200, {"ours": [10.0], "torch": [20.0], "ours TF32": [4.0], "torch TF32": [3.0]})
    assert measured["torch"]["ours_over_this"] == {"best": 2, "median": 2}
    assert measured["torch TF32"]["ours_over_this"] == {"best": 0.75, "median": 0.75}
    for way, memory in zip(measured, (2_000_000_000, None, 1_000_000, 1_000_000)):
        measured[way]["memory"] = memory
    settings = vars(net_benchmark.Settings(threads=2, gpu=0, tf32=(False, True), tasks=("training",), iterations=9))
    machine = {"processor": "P", "cores": 2, "gpu": "Model", "torch": "2.0", "torch_memory": 5}
    row = {"model": "model1", "batch": 200, "parameters": 1_969_544, "task": "training", "measured": measured}
    result = {"settings": settings, "machine": machine, "nets": [row], "not_measured": {"memory": "so"}}
    net_tables.show(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "GPU 0, Model; 3 rounds of 9 iterations"
    cells = next(line for line in lines if line.startswith("model1")).split()
    rates = "20000 (20000) 2,000 10000 (10000) - 2.00 (2.00) 50000 (50000) 1 66667 (66667) 1 0.75 (0.75)"
    assert " ".join(cells[1:]) == f"200 1,969,544 {rates}"
    assert "memory was not measured: so" in lines and "PyTorch 2.0, channels_last" in lines
    hatches = [bar.get_hatch() for bar in net_figure.draw(result).axes[0].patches]
    assert hatches == [None, "////"]


@pytest.mark.parametrize(
    ("task", "values", "says"),
    [
        ("inference", {"ours": [200, 190]}, "ours's probabilities of 200 images have a sum of 190"),
        ("training", {"ours": [5.3], "stock": [5.5]}, "stock Caffe's first loss is 5.5, ours 5.3: not the same net"),
    ],
)
def test_what_is_computed_is_checked(task, values, says):
    with pytest.raises(BenchmarkError, match=says):
        net_benchmark._check({"model": "model1", "batch": 200}, task, values)
    net_benchmark._check({"model": "model1", "batch": 200}, "inference", {"ours": [200.01], "torch": [199.9]})
    net_benchmark._check({"model": "model1", "batch": 200}, "training", {"ours": [5.3], "torch": [7], "stock": [5.301]})


@needs_caffe
def test_wrong_arguments(tool, tmp_path):
    def error(*arguments, status=2):
        return tool("benchmark", *arguments, fails=status).stderr

    assert "unrecognized arguments: model1" in error("layers", "model1")
    assert "unknown model 'model10'" in error("nets", "model10")
    assert "'0' is not a whole number" in error("nets", "--batch", 50, 0)
    assert "ends in .png or .svg" in error("nets", "--plot", tmp_path / "x.pdf")
    assert "is a folder" in error("nets", "--out", tmp_path)
    assert "leave MODEL and --batch out" in error("nets", "--cases", "x", "--batch", 2)
    assert "are settings of GPUs" in error("nets", "--deterministic")
    assert "--write-cases" in error("nets", "--cases", tmp_path / "none", status=1)
    assert "tools/setup.sh" in error("nets", "model1", "--build", tmp_path, status=1)
    missing = tmp_path / "python"
    for name in ("--torch-python", "--torch"):
        text = error("nets", "model1", name, missing)
        assert f"--torch-python '{missing}' does not run" in text
    (tmp_path / "caffe").touch()
    text = error("nets", "model1", "--build", tmp_path, status=1)
    assert "caffe_stock is not there" in text


# --- PyTorch ---


@needs_caffe
@needs_torch
def test_pytorch_has_the_same_nets(cases, tool):
    """It counts the parameters, and another number is an error."""
    arguments = "nets", "model1", "model5", "model6", "--quick", "--no-stock", "--torch-python", TORCH, "--json"
    result = json.loads(tool("benchmark", *arguments).stdout)
    for row in result["nets"]:
        torch = row["measured"]["torch"]
        assert torch["ours_over_this"]["best"] > 0
        assert torch["memory"] > result["machine"]["torch_memory"] > 50e6
    case = {**cases["model1"], "parameters": 5}
    with pytest.raises(BenchmarkError, match=r"model1: PyTorch's net has 1,969,544 parameters, Caffe's 5"):
        net_programs.torch(TORCH, case, "training", LITTLE)


@needs_caffe
@needs_torch
def test_pytorchs_net_computes_what_ours_does(cases, tmp_path):
    """With our weights and images in it, its probabilities are ours."""
    import caffe

    case = cases["model6"]
    (tmp_path / "net.prototxt").write_text(case["inference"]["ours"])
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.forward()
    weights = [blob.data for name, blobs in net.params.items() if name not in ("image", "data") for blob in blobs]
    np.savez(tmp_path / "ours.npz", *weights, data=net.blobs["data"].data)
    (tmp_path / "layers.json").write_text(json.dumps(case["layers"]))
    code = (
        "import json, sys, numpy as np, torch\n"
        "from torch import nn\n"
        f"sys.path.insert(0, {str(ROOT / 'python' / 'tiny_imagenet' / 'benchmarks')!r})\n"
        "import torch_nets\n"
        "modules, channels = [], 3\n"
        "for description in json.load(open('layers.json')):\n"
        "    module, channels = torch_nets.layer(description, channels)\n"
        "    modules.append(module)\n"
        "net = nn.Sequential(*modules).eval()\n"
        "ours = np.load('ours.npz')\n"
        "with torch.inference_mode():\n"
        "    for index, parameter in enumerate(net.parameters()):\n"
        "        parameter.copy_(torch.from_numpy(ours[f'arr_{index}']).reshape(parameter.shape))\n"
        "    assert index + 2 == len(ours.files)\n"
        "    np.save('theirs.npy', net(torch.from_numpy(ours['data'])).softmax(1).numpy())\n"
    )
    subprocess.run([TORCH, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(net.blobs["prob"].data, np.load(tmp_path / "theirs.npy"), rtol=1e-3, atol=1e-6)


# --- Stock Caffe ---


@needs_caffe
@pytest.mark.skipif(
    not (BUILD / "caffe_stock").is_file(), reason="no caffe_stock in build/: tools/benchmark.py builds it"
)
def test_stock_caffe_computes_the_same(cases):
    for name in ("model1", "model5", "model6"):
        case = cases[name]
        ours, stock = (
            net_programs.caffe(BUILD / program, case, case["training"][text], "training", LITTLE).value
            for program, text in (("caffe", "ours"), ("caffe_stock", "stock"))
        )
        assert stock == pytest.approx(ours, rel=1e-4)


def test_the_programs_own_module_needs_nothing_of_ours():
    """torch_nets and torch_layers run in a Python that has torch and perhaps nothing else."""
    for name in ("torch_nets", "torch_layers"):
        text = (ROOT / "tests" / "benchmarks" / f"{name}.py").read_text()
        assert "tiny_imagenet" not in text
    code = "import benchmarks.net_benchmark, sys; print('caffe' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
