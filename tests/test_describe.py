"""tools/describe.py: tables, totals, pictures and the stock export."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import caffe
import pytest
from caffe import layers
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from conftest import ROOT
from tiny_imagenet.errors import UnknownModelError, from_caffe
from tiny_imagenet.inspect import describe, drawing, outline
from tiny_imagenet.models import derive, nets, paper, zoo

PROTOTXT = ROOT / "prototxt"
GOLDEN = ROOT / "tests" / "data" / "nets.json"
SOURCE = ROOT / "build" / "caffe-source"
needs_source = pytest.mark.skipif(not SOURCE.exists(), reason="Caffe's source is in the build folder, which is missing")
STAGES = {stage.name: stage for name in paper.PAPER for stage in zoo.MODELS[name].training_stages}


def measure():
    """Figures of the paper's nets and their training stages as Caffe shapes them, per image."""
    figures = {}
    for name, model in STAGES.items():
        net = outline.outline(derive.deploy(nets.build(model)), "TEST")
        figures[name] = {
            "depth": describe.depth(net),
            "parameters": net.parameter_count,
            "multiply_adds": net.multiply_adds,
            "activation_bytes": net.activation_bytes,
        }
    return figures


def test_the_nets_have_the_golden_figures():
    """`python tests/test_describe.py` writes them again."""
    golden = json.loads(GOLDEN.read_text())
    assert measure() == golden
    for name, published in paper.PAPER.items():
        assert golden[name]["depth"] == published.depth
        assert golden[name]["parameters"] == zoo.MODELS[name].parameters


@pytest.mark.parametrize("name", ["model1", "model5"])
def test_an_outline_has_the_shapes_of_the_built_net(name):
    net = derive.deploy(nets.build(zoo.MODELS[name]))
    built, made = caffe.Net(net, caffe.TEST), outline.outline(net)
    assert made.phase == "TEST"
    assert {la.name: la.parameters for la in made.layers if la.parameters} == {
        name: tuple(tuple(blob.shape) for blob in blobs) for name, blobs in built.params.items()
    }
    assert {top: s for la in made.layers for top, s in zip(la.tops, la.shapes)} == {
        name: tuple(blob.shape) for name, blob in built.blobs.items()
    }


def test_multiply_adds_follow_the_formula():
    net = outline.outline(nets.build(zoo.MODELS["model1"]), "TRAIN")
    by_name = {layer.name: layer for layer in net.layers}
    assert net.batch == 200
    assert by_name["conv2_1"].multiply_adds == 200 * 28 * 28 * 64 * 5 * 5 * 64
    assert by_name["fc1"].multiply_adds == 200 * 256 * 128 * 7 * 7
    assert by_name["conv1_1"].activation_bytes == 4 * 200 * 64 * 56 * 56
    assert by_name["relu1_1"].activation_bytes == 0


def test_a_net_is_described_without_memory_for_its_weights():
    code = (
        "from pathlib import Path\n"
        "from tiny_imagenet.inspect import describe, outline\n"
        f"source = describe.load('model9', Path({str(PROTOTXT)!r}))\n"
        "assert outline.outline(source.net).parameter_count == 135_079_944\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 450 << 10  # kB; the weights alone take 515 MiB


def test_the_memory_for_training_is_that_of_the_blobs_and_more():
    spec = caffe.NetSpec()
    spec.x, spec.y = layers.DummyData(ntop=2, shape=[{"dim": [4, 32, 56, 56]}, {"dim": [4]}])
    top = spec.x
    for i in range(3):
        own = layers.Convolution(top, convolution_param={"num_output": 32, "kernel_size": 3, "pad": 1})
        own = layers.Scale(layers.BatchNorm(own, in_place=True), in_place=True)
        top = spec[f"sum{i}"] = layers.Eltwise(top, layers.ReLU(own, in_place=True))
    spec.fc = layers.InnerProduct(layers.LRN(top), num_output=5)
    spec.loss = layers.SoftmaxWithLoss(spec.fc, spec.y)
    built, made = caffe.Net(spec.to_proto(), caffe.TRAIN), outline.outline(spec.to_proto(), "TRAIN")
    values = sum(blob.count for blob in built.blobs.values())  # their gradients, masks and copies come on top
    assert 4 * values < made.training_bytes() < 4 * 4 * values
    assert made.training_bytes(history=2) - made.training_bytes(history=1) == 4 * made.parameter_count


@needs_source
def test_all_of_upstreams_files_are_described():
    whole = 0
    for file in sorted([*SOURCE.glob("models/**/*.prototxt"), *SOURCE.glob("examples/**/*.prototxt")]):
        source = describe.load(str(file), PROTOTXT)
        net = outline.outline(source.net)
        assert describe.to_text(source, net)
        json.dumps(describe.to_json(source, net))
        whole += bool(net.layers) and net.whole
        assert all(layer.shapes is not None or layer.problem or layer.bottoms for layer in net.layers)
    assert whole >= 19


@needs_source
def test_missing_data_needs_a_shape(tool):
    lenet = SOURCE / "examples" / "mnist" / "lenet_train_test.prototxt"
    assert "--shape data=" in tool("describe", lenet).stdout
    assert "431,080 parameters" in tool("describe", lenet, "--shape", "data=64,1,28,28").stdout
    assert "'data'" in tool("describe", lenet, "--shape", "date=64,1,28,28", fails=1).stderr
    tool("describe", lenet, "--shape", "data=64,x", fails=2)


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
    assert done.stderr == ""  # nothing of Caffe's notes on old formats
    assert json.loads(tool("describe", path, "--check", "--json").stdout) == []


def test_the_table_has_the_figures_of_the_model_and_the_paper(tool):
    lines = tool("describe", "model8").stdout.splitlines()
    conv = next(line for line in lines if line.startswith("conv1_2 "))
    assert re.split(r"\s{2,}", conv)[1:4] == ["Convolution 3x3", "200x128x56x56", "147,584"]
    text = "\n".join(lines[-6:])
    for value in ("9 layers with weights", "60,564,808 parameters", "rate 0.02", "60.56 M", "46.45 %"):
        assert value in text
    shaped = tool("describe", "model1", "--shape", "data=20,3,48,48", "--json").stdout
    assert json.loads(shaped)["paper"] is None  # its figures are for other shapes


@pytest.mark.parametrize(
    ("source", "status", "named"),
    [
        ("modle8", 2, "'model8'"),
        ("nowhere.prototxt", 2, "nowhere.prototxt"),
        ("README.md", 1, "README.md"),
        (os.devnull, 1, os.devnull),
        ("prototxt", 1, "prototxt"),
    ],
)
def test_other_files_are_refused(source, status, named, tool):
    assert named in tool("describe", source, fails=status, cwd=ROOT).stderr


def test_an_unknown_model_gets_a_hint():
    with pytest.raises(UnknownModelError, match="'model6'"):
        describe.load("modell6", PROTOTXT)


def test_flags_that_do_not_apply_are_refused(tool, tmp_path):
    for arguments in (
        ["--check", "--phase", "TEST"],
        ["--diff", "model2", "--stage", "x"],
        ["--export-stock", tmp_path / "x", "--phase", "TRAIN"],
        ["--diff", "model2", "--shape", "data=1,3,56,56"],
        ["--draw", tmp_path / "net.svg", "--json"],
        ["--draw", tmp_path],
    ):
        tool("describe", "model1", *arguments, fails=2)


def test_a_stage_selects_layers(tool, tmp_path):
    path = tmp_path / "net.prototxt"
    layers = 'layer { name: "%s" type: "Input" top: "%s" %s { %s: "%s" } input_param { shape { dim: 1 } } }\n'
    path.write_text(
        layers % ("x", "x", "include", "stage", "deploy") + layers % ("y", "y", "exclude", "not_stage", "b")
    )
    assert "x      Input" in tool("describe", path, "--stage", "deploy").stdout
    assert "'deploy'" in tool("describe", path, "--stage", "deplo", fails=1).stderr


def test_a_solver_without_its_net_is_described(tool, tmp_path):
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "gone.prototxt" base_lr: 0.01 lr_policy: "fixed"\n')
    assert "gone.prototxt" in tool("describe", path).stdout
    for arguments in (["--draw", tmp_path / "x.svg"], ["--export-stock", tmp_path / "x"], ["--diff", "model1"]):
        assert "gone.prototxt" in tool("describe", path, *arguments, fails=1).stderr
    assert "gone.prototxt" in tool("describe", "model1", "--diff", path, fails=1).stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["solver.prototxt"]


# --- pictures ---

SVG = "{http://www.w3.org/2000/svg}"


def test_pictures_are_drawn(tool, tmp_path):
    svg, png = tmp_path / "net.svg", tmp_path / "NET.PNG"
    tool("describe", "model6", "--draw", svg)
    root = ET.parse(svg).getroot()
    text = "".join(root.itertext())
    for word in ("conv1_1", "LReLU 0.01", "14,196,488 parameters", "Dropout 0.5", "SoftmaxWithLoss"):
        assert word in text
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "fc1, relu_fc1, drop_fc1" in titles and "scaled to conv1_1" in titles
    nodes = [group for group in root.iter(f"{SVG}g") if group.get("class") == "node"]
    assert {t.get("text-anchor") for group in nodes for t in group.iter(f"{SVG}text")} == {"middle"}
    assert {t.get("fill") for t in root.iter(f"{SVG}text")} <= {"currentColor", "#dc2626"}  # also in dark mode
    tool("describe", PROTOTXT / "model1" / "deploy.prototxt", "--draw", png)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert ".svg" in tool("describe", "model6", "--draw", tmp_path / "net.gif", fails=1).stderr


@pytest.mark.parametrize("name", ["model9", "bvlc_googlenet"])
def test_a_long_net_continues_in_further_columns(name, tmp_path):
    source = name if name in zoo.MODELS else SOURCE / "models" / name / "train_val.prototxt"
    if name not in zoo.MODELS and not SOURCE.exists():
        pytest.skip("Caffe's source is in the build folder, which is missing")
    net = outline.outline(describe.load(str(source), PROTOTXT).net, inputs={"data": (8, 3, 224, 224)})
    drawing.draw(net, tmp_path / "net.svg")
    root = ET.parse(tmp_path / "net.svg").getroot()
    assert 0.4 < float(root.get("width")[:-2]) / float(root.get("height")[:-2]) < 2.5


def test_names_with_markup_are_drawn(tmp_path):
    text = 'name: "a:<b>\\"&" layer { name: "<i>&" type: "Input" top: "x:y" input_param { shape { dim: 1 } } }'
    drawing.draw(outline.outline(text_format.Parse(text, caffe_pb2.NetParameter())), tmp_path / "net.svg")
    assert "<i>&" in "".join(ET.parse(tmp_path / "net.svg").getroot().itertext())


def test_a_failure_of_graphviz_is_one_line(tool, tmp_path, monkeypatch):
    (tmp_path / "dot").write_text("#!/bin/sh\necho went wrong >&2\nexit 3\n")
    (tmp_path / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert "went wrong" in tool("describe", "model1", "--draw", tmp_path / "x.svg", fails=1).stderr
    assert not (tmp_path / "x.svg").exists()


# --- the stock export ---


def test_the_stock_export_has_upstreams_types(tool, tmp_path):
    out = tmp_path / "stock.prototxt"
    for _ in range(2):  # an earlier export is overwritten
        tool("describe", PROTOTXT / "model8" / "train_val.prototxt", "--export-stock", out)
    net = text_format.Parse(out.read_text(), caffe_pb2.NetParameter())
    assert not {"LReLU", "CropData"} & {layer.type for layer in net.layer}
    slopes = [layer.relu_param.negative_slope for layer in net.layer if layer.relu_param.negative_slope]
    assert slopes == [pytest.approx(0.01)] * 6


def test_the_export_overwrites_nothing_else(tool, tmp_path):
    path = tmp_path / "deploy.prototxt"
    path.write_text((PROTOTXT / "model6" / "deploy.prototxt").read_text())
    before = path.read_text()
    tool("describe", path, "--export-stock", tmp_path / "." / "deploy.prototxt", fails=1)
    assert path.read_text() == before


def test_caffes_checks_are_reworded():
    said = "Check failed: kernel_h_ > 0 (0 vs. 0) Filter dimensions cannot be zero."
    assert from_caffe(said) == "Filter dimensions cannot be zero (kernel_h_ > 0, here 0 and 0)"
    said = "Check failed: ReadProtoFromBinaryFile(file, &state) Failed to parse solver state file: a.solverstate"
    assert from_caffe(said) == "Failed to parse solver state file: a.solverstate"
    assert from_caffe("Unknown\nlayer") == "Unknown layer"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(measure(), indent=2) + "\n")
