import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import caffe
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from conftest import ROOT
from tiny_imagenet import errors
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import describe, drawing, net_diff, outline
from tiny_imagenet.models import nets, paper, solvers, zoo

PROTOTXT = ROOT / "prototxt"
GOLDEN = ROOT / "tests" / "data" / "nets.json"
SOURCE = ROOT / "build" / "caffe-source"
needs_source = pytest.mark.skipif(
    not SOURCE.exists(), reason="Caffe's source is in the build folder, which is not here"
)
STAGES = {stage.name: stage for name in paper.PAPER for stage in zoo.MODELS[name].training_stages}
NOT_THE_PAPERS = {"model9"}  # which prints VGG-16's own count (open point c)


def measure():
    """The figures of the nine nets and their training stages as Caffe shapes them, for one image."""
    figures = {}
    for name, model in STAGES.items():
        net = outline.outline(nets.build(model, deploy=True), "TEST")
        figures[name] = {
            "depth": describe.depth(net),
            "parameters": net.parameter_count,
            "multiply_adds": net.multiply_adds,
            "activation_bytes": net.activation_bytes,
        }
    return figures


def test_the_nets_have_the_golden_figures():
    """`tests/test_describe.py` as a script writes them anew."""
    assert measure() == json.loads(GOLDEN.read_text())


def test_the_golden_figures_are_the_papers():
    golden = json.loads(GOLDEN.read_text())
    for name, column in paper.PAPER.items():
        assert golden[name]["depth"] == column.depth
        assert golden[name]["parameters"] == zoo.MODELS[name].parameters
        printed = round(golden[name]["parameters"] / 1e6, 2)
        assert (printed == column.parameters_millions) == (name not in NOT_THE_PAPERS)
    assert golden["model5"]["parameters"] - golden["model6"]["parameters"] == 896  # its slopes (open point b)


@pytest.mark.parametrize("name", ["model1", "model5"])
def test_an_outline_is_what_caffe_builds(name):
    model = zoo.MODELS[name]
    built = caffe.Net(nets.build(model, deploy=True), caffe.TEST)
    net = outline.outline(nets.build(model, deploy=True))
    assert net.phase == "TEST"
    assert {la.name: la.parameters for la in net.layers if la.parameters} == {
        name: tuple(tuple(blob.shape) for blob in blobs) for name, blobs in built.params.items()
    }
    assert {top: s for la in net.layers for top, s in zip(la.tops, la.shapes)} == {
        name: tuple(blob.shape) for name, blob in built.blobs.items()
    }


def test_multiply_adds_are_those_of_the_formula():
    net = outline.outline(nets.build(zoo.MODELS["model1"]), "TRAIN")
    by_name = {layer.name: layer for layer in net.layers}
    assert net.batch == 200
    assert by_name["conv1_1"].multiply_adds == 200 * 56 * 56 * 64 * 5 * 5 * 3
    assert by_name["conv2_1"].multiply_adds == 200 * 28 * 28 * 64 * 5 * 5 * 64
    assert by_name["fc1"].multiply_adds == 200 * 256 * 128 * 7 * 7
    assert by_name["conv1_1"].activation_bytes == 4 * 200 * 64 * 56 * 56
    assert by_name["relu1_1"].activation_bytes == 0


@needs_source
def test_lenet_has_its_well_known_figures():
    net = caffe_pb2.NetParameter()
    text_format.Parse((SOURCE / "examples/mnist/lenet.prototxt").read_text(), net)
    made = outline.outline(net)
    assert (made.parameter_count, made.multiply_adds) == (431_080, 2_293_000)


def test_model9_is_described_without_memory_for_its_weights():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tiny_imagenet.inspect import describe, outline\n"
        "source = describe.load('model9', Path(sys.argv[1]))\n"
        "text = describe.to_text(source, outline.outline(source.net))\n"
        "assert '135,079,944' in text\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(PROTOTXT)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 270  # MiB; the weights alone are 515


def upstream_files():
    return sorted([*SOURCE.glob("models/**/*.prototxt"), *SOURCE.glob("examples/**/*.prototxt")])


def test_all_of_upstreams_files_are_described():
    files = upstream_files()
    if not files:
        pytest.skip("Caffe's source is in the build folder, which is not here")
    assert len(files) > 50
    whole = 0
    for file in files:
        source = describe.load(str(file), PROTOTXT)
        net = outline.outline(source.net)
        assert describe.to_text(source, net)
        json.dumps(describe.to_json(source, net))
        whole += bool(net.layers) and net.whole
        for layer in net.layers:  # what has no shape says why, or follows from one that does
            assert layer.shapes is not None or layer.problem or layer.bottoms
    assert whole >= 19


OLD = {
    "V1": """
        name: "old"
        input: "x" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
        layers { name: "conv" type: CONVOLUTION bottom: "x" top: "conv"
                 convolution_param { num_output: 4 kernel_size: 3 } }
        layers { name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
    """,
    "V0": """
        name: "old"
        input: "x" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
        layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 } bottom: "x" top: "conv" }
        layers { layer { name: "fc" type: "innerproduct" num_output: 5 } bottom: "conv" top: "fc" }
    """,
}


@pytest.mark.parametrize("version", OLD)
def test_old_formats_are_described(version, tmp_path, tool):
    path = tmp_path / "old.prototxt"
    path.write_text(OLD[version])
    done = tool("describe", path, "--json")
    described = json.loads(done.stdout)
    assert described["parameters"] == 4 * 27 + 4 + 5 * 144 + 5
    assert [layer["type"] for layer in described["layers"]] == ["Input", "Convolution", "InnerProduct"]
    assert tool("describe", path, "--check").stdout.endswith("old.prototxt is sound\n")


def test_the_table_of_a_model_has_its_figures_and_the_papers(tool):
    lines = tool("describe", "model8").stdout.splitlines()
    assert lines[0].split() == ["layer", "type", "output", "parameters", "multiply-adds", "activation", "bytes"]
    conv = next(line for line in lines if line.startswith("conv1_2 "))
    assert re.split(r"\s{2,}", conv)[1:4] == ["Convolution 3x3", "200x128x56x56", "147,584"]
    assert "model8, TRAIN phase: 9 layers with weights, 60,564,808 parameters (242.3 MB)" in lines
    assert lines[-2].startswith("trained by SGD, rate 0.02 fixed, momentum 0.9, weight decay 0.0001")
    assert lines[-1] == "the paper: 9 layers with weights, 60.56 M parameters, 46.45 % top-1 on validation"


@needs_source
def test_data_that_is_not_here_needs_a_shape(tool):
    lenet = SOURCE / "examples" / "mnist" / "lenet_train_test.prototxt"
    unknown = tool("describe", lenet).stdout
    assert (
        "mnist has no shape: its size is that of its images, which are not here: give it, as in --shape data="
        in unknown
    )
    assert "431,080 parameters" in tool("describe", lenet, "--shape", "data=64,1,28,28").stdout
    tool("describe", lenet, "--shape", "date=64,1,28,28", fails=1)
    tool("describe", lenet, "--shape", "data=64,x", fails=2)


def test_memory_for_training_is_what_a_process_takes(data):
    code = (
        "import sys\n"
        "import caffe, numpy\n"
        "from caffe.proto import caffe_pb2\n"
        "from tiny_imagenet.inspect import outline\nfrom tiny_imagenet.models import nets, solvers, zoo\n"
        "def resident():\n"
        "    return 1024 * int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])\n"
        "model = zoo.MODELS['model5'].replace(batch=20, classes=10, screened=False)\n"
        "net = nets.build(model)\n"
        "layers = [la for la in net.layer if not any(rule.phase == caffe.TEST for rule in la.include)]\n"
        "layers[0].crop_data_param.source = sys.argv[1] + '/train.lmdb'\n"
        "layers[0].transform_param.mean_file = sys.argv[1] + '/mean.binaryproto'\n"
        "solver = caffe_pb2.SolverParameter(base_lr=0.01, lr_policy='fixed', momentum=0.9, max_iter=9)\n"
        "solver.snapshot_after_train = False\n"
        "solver.net_param.layer.extend(layers)\n"
        "said = outline.outline(solver.net_param, 'TRAIN').training_bytes()\n"
        "numpy.dot(*numpy.ones((2, 999, 999), numpy.float32))  # OpenBLAS's own buffers\n"
        "before = resident()\n"
        "built = caffe.get_solver(solver)\n"
        "built.step(2)\n"
        "print(said, resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(data)], capture_output=True, text=True, check=True)
    said, measured = map(int, done.stdout.split())
    assert said > 300e6
    assert abs(said - measured) < 0.1 * measured


@pytest.mark.parametrize("source", ["modell", "nowhere.prototxt", "README.md", os.devnull, "prototxt"])
def test_what_is_no_net_is_refused(source, tool):
    tool("describe", source, fails=1, cwd=ROOT)


def test_two_models_differ_in_the_fields_words(tool):
    lines = tool("describe", "model3", "--diff", "model4").stdout.splitlines()
    assert lines[-1] == "layer drop_conv3 (Dropout) added after relu3_2"
    assert 'net: name "model3" -> "model4"' in lines
    lines = tool("describe", "model7", "--diff", "model8").stdout.splitlines()
    assert "solver: base_lr 0.01 -> 0.02" in lines
    assert not [line for line in lines if line.startswith("layer")]
    assert tool("describe", "model7", "--diff", "model7").stdout == "no difference\n"
    done = tool("describe", "model7", "--diff", PROTOTXT / "model7" / "deploy.prototxt")
    assert done.stderr.endswith("deploy.prototxt is a net: the nets are compared, the solver is left out\n")
    assert "layer loss (SoftmaxWithLoss) removed" in done.stdout
    for one, other in (("model7", "model8"), ("model8", "model7")):  # nets that have a solver beside them are nets
        nets_alone = tool(
            "describe", PROTOTXT / one / "train_val.prototxt", "--diff", PROTOTXT / other / "deploy.prototxt"
        )
        assert "solver" not in nets_alone.stdout + nets_alone.stderr


def test_differences_of_nets():
    base = nets.build(zoo.MODELS["model6"])
    changed = caffe_pb2.NetParameter()
    changed.CopyFrom(base)
    conv = next(layer for layer in changed.layer if layer.name == "conv1_2")
    conv.convolution_param.kernel_size[0] = 5
    conv.convolution_param.pad[0] = 2
    changed.layer[0].transform_param.crop_size = 48
    drop = next(layer for layer in changed.layer if layer.name == "drop_fc1")
    drop.dropout_param.ClearField("dropout_ratio")  # 0.5, as its default
    del changed.layer[-1]
    assert net_diff.nets(base, changed) == [
        "layer accuracy_top5 (Accuracy) removed",
        "layer data in TRAIN: transform_param.crop_size 56 -> 48",
        "layer conv1_2: convolution_param.pad 1 -> 2",
        "layer conv1_2: convolution_param.kernel_size 3 -> 5",
    ]
    moved = caffe_pb2.NetParameter()
    moved.CopyFrom(base)
    first, second = moved.layer[-2], moved.layer[-1]
    copy = caffe_pb2.LayerParameter()
    copy.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(copy)
    assert net_diff.nets(base, moved) == ["the layers that both have come in another order"]
    assert net_diff.nets(base, base) == []


def test_pictures_are_drawn(tool, tmp_path):
    svg, png = tmp_path / "net.svg", tmp_path / "net.png"
    tool("describe", "model6", "--draw", svg)
    root = ET.parse(svg).getroot()
    text = "".join(root.itertext())
    frame, drawing_scale = root.get("viewBox").split(), re.search(r"scale\(([\d.]+) ", svg.read_text())
    assert abs(float(root.get("width")[:-2]) - float(frame[2])) <= 1  # or it is cropped
    assert drawing_scale is None or float(drawing_scale[1]) == 1
    for word in ("conv1_1", "LReLU 0.01", "14,196,488 parameters", "Dropout 0.5", "SoftmaxWithLoss"):
        assert word in text
    tool("describe", PROTOTXT / "model1" / "deploy.prototxt", "--draw", png)
    assert png.read_bytes().startswith(b"\x89PNG")
    tool("describe", "model6", "--draw", tmp_path / "net.gif", fails=1)
    tool("describe", "model6", "--draw", tmp_path / "net.svg", "--json", fails=2)
    assert not (tmp_path / "net.gif").exists()
    tool("describe", PROTOTXT / "model1" / "deploy.prototxt", "--draw", tmp_path / "NET.SVG")
    ET.parse(tmp_path / "NET.SVG")


def test_names_that_are_markup_are_drawn(tmp_path):
    text = 'name: "a:<b>\\"&" layer { name: "<i>&" type: "Input" top: "x:y" input_param { shape { dim: 1 } } }'
    net = outline.outline(text_format.Parse(text, caffe_pb2.NetParameter()))
    drawing.draw(net, tmp_path / "net.svg")
    assert "<i>&" in "".join(ET.parse(tmp_path / "net.svg").getroot().itertext())


def test_the_stock_export_is_written_whole(tool, tmp_path):
    tool("describe", PROTOTXT / "model8" / "deploy.prototxt", "--export-stock", tmp_path / "stock.prototxt")
    text = (tmp_path / "stock.prototxt").read_text()
    assert "LReLU" not in text
    assert text.count("negative_slope: 0.01") == 6
    with pytest.raises(NetError):
        describe.load(str(tmp_path / "nothing"), PROTOTXT)


def test_graphviz_that_fails_is_one_line(tool, tmp_path, monkeypatch):
    (tmp_path / "dot").write_text("#!/bin/sh\necho went wrong >&2\nexit 3\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = tool("describe", "model1", "--draw", tmp_path / "x.svg", fails=1)
    assert done.stdout == "" and done.stderr.endswith("graphviz's program dot failed: went wrong\n")
    assert not (tmp_path / "x.svg").exists()


def test_a_picture_has_somewhere_to_go(tool, tmp_path):
    for flag in ("--draw", "--export-stock"):
        assert "is a folder: name a file in it" in tool("describe", "model1", flag, tmp_path, fails=2).stderr
    if os.path.exists("/dev/full"):
        (tmp_path / "x.svg").symlink_to("/dev/full")
        assert "is no plain file" in tool("describe", "model1", "--draw", tmp_path / "x.svg", fails=2).stderr


def test_odd_names_are_drawn_and_listed(tool, tmp_path):
    name = 'b\\\\ \\n \\001 \\" ' + "x" * 200
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'name: "{name}" layer {{ name: "{name}" type: "Input" top: "{name}" top: "b" '
        "input_param { shape { dim: 1 dim: 2 } } }\n"
        f'layer {{ name: "s" type: "Silence" bottom: "{name}" bottom: "b" }}\n'
    )
    for ending in ("svg", "png"):
        tool("describe", path, "--draw", tmp_path / f"x.{ending}")
    ET.parse(tmp_path / "x.svg")
    table = tool("describe", path).stdout
    assert "x" * 200 in table
    assert len([line for line in table.splitlines() if " Input " in line]) == 1


def test_shapes_are_for_data_layers_and_of_a_size(tool):
    deploy = PROTOTXT / "model1" / "deploy.prototxt"
    tool("describe", deploy, "--shape", "data=99999999999999999999,3,3,3", fails=2)
    tool("describe", deploy, "--shape", "conv1_1=1,2,3,4", fails=1)
    assert "its shape would be" in tool("describe", deploy, "--shape", "data=9999999,3,56,56").stdout


def test_old_formats_are_described_without_a_word_of_caffes(tool, tmp_path):
    path = tmp_path / "old.prototxt"
    path.write_text(OLD["V0"])
    assert tool("describe", path).stderr == ""


def test_batch_normalized_residual_nets_take_what_is_said(data):
    code = (
        "import caffe, numpy\n"
        "from caffe import NetSpec, layers as L\n"
        "from caffe.proto import caffe_pb2\n"
        "from tiny_imagenet.inspect import outline\n"
        "def resident():\n"
        "    return 1024 * int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])\n"
        "n = NetSpec()\n"
        "n.x, n.y = L.DummyData(ntop=2, shape=[dict(dim=[16, 32, 56, 56]), dict(dim=[16])])\n"
        "conv = dict(num_output=32, kernel_size=3, pad=1, weight_filler=dict(type='xavier'))\n"
        "top = n.x\n"
        "for i in range(3):\n"
        "    c = L.Convolution(top, convolution_param=conv)\n"
        "    c = L.Scale(L.BatchNorm(c, in_place=True), in_place=True, scale_param=dict(bias_term=True))\n"
        "    c = L.ReLU(c, in_place=True)\n"
        "    top = n['sum%d' % i] = L.Eltwise(top, c)\n"
        "n.norm = L.LRN(top)\n"
        "n.fc = L.InnerProduct(n.norm, num_output=5, weight_filler=dict(type='xavier'))\n"
        "n.loss = L.SoftmaxWithLoss(n.fc, n.y)\n"
        "solver = caffe_pb2.SolverParameter(base_lr=1e-9, lr_policy='fixed', momentum=0.9, max_iter=9)\n"
        "solver.snapshot_after_train = False\n"
        "solver.net_param.CopyFrom(n.to_proto())\n"
        "said = outline.outline(solver.net_param, 'TRAIN').training_bytes()\n"
        "numpy.dot(*numpy.ones((2, 999, 999), numpy.float32))  # OpenBLAS's own buffers\n"
        "before = resident()\n"
        "built = caffe.get_solver(solver)\n"
        "built.step(2)\n"
        "print(said, resident() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, measured = map(int, done.stdout.split())
    assert said > 150e6
    assert abs(said - measured) < 0.1 * measured


def test_layers_of_one_name_and_two_phases_are_told_apart_in_differences():
    base = nets.build(zoo.MODELS["model8"])
    without = caffe_pb2.NetParameter()
    without.CopyFrom(base)
    del without.layer[1]
    assert net_diff.nets(base, without) == ["layer data in TEST (CropData) removed"]
    assert net_diff.nets(without, base) == ["layer data in TEST (CropData) added after data"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('type: "BatchNorm"', 'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 }'),
        (
            'type: "SoftmaxWithLoss" top: "a" top: "b"',
            'type: "SoftmaxWithLoss" top: "a" top: "b" loss_weight: 1 loss_weight: 0',
        ),
        ('type: "ReLU"', 'type: "ReLU" loss_weight: 0'),
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
    ],
)
def test_what_caffe_builds_alike_is_no_difference(one, other):
    pair = [text_format.Parse(f'layer {{ name: "x" {text} }}', caffe_pb2.NetParameter()) for text in (one, other)]
    assert net_diff.nets(*pair) == []
    changed = [
        text_format.Parse(f"layer {{ name: 'x' type: 'Power' power_param {{ scale: {s} }} }}", caffe_pb2.NetParameter())
        for s in ("0.01", "0.010000001")
    ]
    assert net_diff.nets(*changed) == ["layer x: power_param.scale 0.00999999978 -> 0.0100000007"]


def test_the_export_does_not_write_over_its_source(tool, tmp_path):
    path = tmp_path / "deploy.prototxt"
    path.write_text((PROTOTXT / "model6" / "deploy.prototxt").read_text())
    before = path.read_text()
    tool("describe", path, "--export-stock", tmp_path / "." / "deploy.prototxt", fails=1)
    other = tmp_path / "train_val.prototxt"
    other.write_text("mine")
    tool("describe", path, "--export-stock", other, fails=1)
    assert path.read_text() == before and other.read_text() == "mine"
    for _ in range(2):  # an earlier export is written anew
        tool("describe", path, "--export-stock", tmp_path / "stock.prototxt")


def test_a_solver_without_its_net_is_not_drawn_exported_or_compared(tool, tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "gone.prototxt" base_lr: 0.01 lr_policy: "fixed"  # on one line\n')
    assert "names the net gone.prototxt" in tool("describe", path).stdout
    for arguments in (["--draw", tmp_path / "x.svg"], ["--export-stock", tmp_path / "x"], ["--diff", "model1"]):
        assert "names the net gone.prototxt" in tool("describe", path, *arguments, fails=1).stderr
    assert "names the net gone.prototxt" in tool("describe", "model1", "--diff", path, fails=1).stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["solver.prototxt"]


def test_flags_that_would_do_nothing_are_refused(tool, tmp_path):
    for arguments in (
        ["--check", "--phase", "TEST"],
        ["--diff", "model2", "--stage", "x"],
        ["--export-stock", tmp_path / "x", "--phase", "TRAIN"],
        ["--diff", "model2", "--shape", "data=1,3,56,56"],
    ):
        tool("describe", "model1", *arguments, fails=2)


def test_a_stage_that_no_rule_names_is_refused_with_those_that_are(tool, tmp_path):
    path = tmp_path / "net.prototxt"
    layers = 'layer { name: "%s" type: "Input" top: "%s" %s { %s: "%s" } input_param { shape { dim: 1 } } }\n'
    path.write_text(
        layers % ("x", "x", "include", "stage", "deploy") + layers % ("y", "y", "exclude", "not_stage", "b")
    )
    assert "x      Input" in tool("describe", path, "--stage", "deploy").stdout
    says = "--stage deplo: no include or exclude rule of .*net.prototxt names it; they name b, deploy"
    assert re.search(says, tool("describe", path, "--stage", "deplo", fails=1).stderr)
    assert "they name no stage at all" in tool("describe", "model1", "--stage", "x", fails=1).stderr


def test_the_papers_figures_stand_beside_the_papers_shapes_alone(tool):
    assert "the paper:" in tool("describe", "model1").stdout
    assert "the paper:" not in tool("describe", "model1", "--shape", "data=20,3,48,48").stdout
    assert json.loads(tool("describe", "model1", "--shape", "data=20,3,48,48", "--json").stdout)["paper"] is None


def test_no_outputs_at_all_are_no_traceback(tool, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc" inner_product_param { num_output: 0 } }\n'
    )
    assert "2x0" in tool("describe", path).stdout
    assert (
        f"{path}:2: error: layer fc (InnerProduct) needs a num_output"
        in tool("describe", path, "--check", fails=1).stdout
    )


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
def test_a_solver_is_told_from_a_net_by_its_fields(text, solver):
    assert solvers.is_solver(text) == solver


def test_what_caffe_says_is_put_the_other_way_round():
    assert (
        errors.from_caffe("Check failed: kernel_h_ > 0 (0 vs. 0) Filter dimensions cannot be zero.")
        == "Filter dimensions cannot be zero (kernel_h_ > 0, here 0 and 0)"
    )
    assert (
        errors.from_caffe("Check failed: f() == b.size() (2 vs. 1) x takes 2.")
        == "x takes 2 (f() == b.size(), here 2 and 1)"
    )
    assert (
        errors.from_caffe("Check failed: pad_h_ < kernel_h_ (3 vs. 2) ")
        == "Caffe requires pad_h_ < kernel_h_, here 3 and 2"
    )
    assert errors.from_caffe("Unknown\nlayer") == "Unknown layer"
    said = "Check failed: ReadProtoFromBinaryFile(file, &state) Failed to parse solver state file: a.solverstate"
    assert errors.from_caffe(said) == "Failed to parse solver state file: a.solverstate"


def test_ways_to_write_one_thing_are_no_difference():
    def net(conv, relu="", param="", pool="kernel_size: 2 stride: 2"):
        conv = f"convolution_param {{ num_output: 2 {conv} }}"
        text = (
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }'
            f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" {param} {conv} }}'
            f'layer {{ name: "r" type: "LReLU" bottom: "c" top: "c" {relu} }}'
            f'layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {{ {pool} }} }}'
        )
        return text_format.Parse(text, caffe_pb2.NetParameter())

    base = net("kernel_size: 3")
    for other in (
        net("kernel_size: 3 kernel_size: 3 stride: 1 pad: 0 dilation: 1"),
        net("kernel_h: 3 kernel_w: 3 stride_h: 1 stride_w: 1 pad_h: 0 pad_w: 0 group: 1"),
        net("kernel_size: 3", relu="relu_param { negative_slope: 0.01 }"),
        net("kernel_size: 3", param="param { lr_mult: 1 } param { lr_mult: 1 decay_mult: 1 }"),
        net("kernel_size: 3", pool="kernel_h: 2 kernel_w: 2 stride_h: 2 stride_w: 2 pool: MAX"),
    ):
        assert net_diff.nets(base, other) == []
    assert net_diff.nets(base, net("kernel_h: 3 kernel_w: 5")) == ["layer c: convolution_param.kernel_size 3 -> 3, 5"]
    assert net_diff.nets(base, net("kernel_size: 3 stride: 2")) == ["layer c: convolution_param.stride 1 -> 2"]
    slope = net("kernel_size: 3", relu="relu_param { negative_slope: 0 }")
    assert net_diff.nets(base, slope) == ["layer r: relu_param.negative_slope 0.01 -> 0"]


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(measure(), indent=2) + "\n")
