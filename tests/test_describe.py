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
from tiny_imagenet import describe, drawing, net_diff, nets, outline, paper, soundness, zoo
from tiny_imagenet.errors import NetError

PROTOTXT = ROOT / "prototxt"
GOLDEN = ROOT / "tests" / "data" / "nets.json"
SOURCE = ROOT / "build" / "caffe-source"
STAGES = {stage.name: stage for model in zoo.MODELS.values() for stage in model.training_stages}
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
    for name, column in paper.MODELS.items():
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


def test_lenet_has_its_well_known_figures():
    net = caffe_pb2.NetParameter()
    text_format.Parse((SOURCE / "examples/mnist/lenet.prototxt").read_text(), net)
    made = outline.outline(net)
    assert (made.parameter_count, made.multiply_adds) == (431_080, 2_293_000)


def test_model9_is_described_without_memory_for_its_weights():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tiny_imagenet import describe, outline\n"
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
    assert lines[-2].startswith("solver: SGD, rate 0.02 fixed, momentum 0.9, weight decay 0.0001")
    assert lines[-1] == "the paper: 9 layers with weights, 60.56 M parameters, 46.45 % top-1 on validation"


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
    tool("describe", "model7", "--diff", PROTOTXT / "model7" / "deploy.prototxt", fails=1)


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
    text = "".join(ET.parse(svg).getroot().itertext())
    for word in ("conv1_1", "LReLU 0.01", "14,196,488 parameters", "Dropout 0.5", "SoftmaxWithLoss"):
        assert word in text
    tool("describe", PROTOTXT / "model1" / "deploy.prototxt", "--draw", png)
    assert png.read_bytes().startswith(b"\x89PNG")
    tool("describe", "model6", "--draw", tmp_path / "net.gif", fails=1)
    tool("describe", "model6", "--draw", tmp_path / "net.svg", "--json", fails=2)
    assert not (tmp_path / "net.gif").exists()


def test_names_that_are_markup_are_drawn(tmp_path):
    text = 'name: "a:<b>\\"&" layer { name: "<i>&" type: "Input" top: "x:y" input_param { shape { dim: 1 } } }'
    net = outline.outline(text_format.Parse(text, caffe_pb2.NetParameter()))
    drawing.draw(net, tmp_path / "net.svg")
    assert "<i>&" in "".join(ET.parse(tmp_path / "net.svg").getroot().itertext())


# --- Check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.MODELS)
def test_generated_files_are_sound(name):
    assert soundness.check(PROTOTXT / name / "solver.prototxt") == []


@pytest.fixture
def model(tmp_path):
    """A copy of model4's files to break, and a function that replaces text in one and says what check() finds."""
    for name in ("train_val", "deploy", "solver"):
        text = (PROTOTXT / "model4" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text.replace("prototxt/model4/", ""))

    def findings(name, old, new, which=0):
        path = tmp_path / f"{name}.prototxt"
        text = path.read_text()
        places = [match.start() for match in re.finditer(re.escape(old), text)]
        path.write_text(text[: places[which]] + new + text[places[which] + len(old) :])
        return soundness.check(tmp_path / "solver.prototxt")

    return findings


def line_of(path, text, which=0):
    return [i for i, line in enumerate(path.read_text().splitlines(), 1) if text in line][which]


@pytest.mark.parametrize(
    ("file", "old", "new", "which", "at", "says"),
    [
        ("train_val", "bottom:", "botom:", 3, "botom:", 'no field named "botom"'),
        ("train_val", '"Pooling"', '"Pool"', 0, '"Pool"', "there is no layer type 'Pool', did you mean 'Pooling'?"),
        (
            "train_val",
            'bottom: "pool1"',
            'bottom: "pol1"',
            0,
            '"pol1"',
            "no blob 'pol1' before it, did you mean 'pool1'?",
        ),
        ("train_val", "kernel_size: 2", "kernel_size: 99", 0, 'name: "pool1"', "pool1"),
        ("train_val", 'type: "xavier"', 'type: "savier"', 0, 'name: "conv1_1"', "Unknown filler name: savier"),
        ("train_val", "num_output: 256", "num_output: 250", 0, None, "has weights of 256x128x3x3, 256, in train_val"),
        ("deploy", "kernel_size: 2", "kernel_size: 4", 0, 'name: "pool1"', "pooling_param.kernel_size is 4"),
        ("deploy", "dim: 56", "dim: 58", 1, None, "fc1"),
        (
            "solver",
            'net: "train_val',
            'net: "train',
            0,
            "net:",
            "names the net train.prototxt, which is neither there nor beside the solver",
        ),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "stepp"', 0, "lr_policy", "it must be one of step"),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "step"', 0, "lr_policy", "needs gamma"),
        ("solver", "base_lr: 0.01", "base_lr: -1", 0, "base_lr", "it must be above 0"),
        ("solver", "momentum: 0.9", "momentum: 9", 0, "momentum", "below 1"),
    ],
)
def test_a_mistake_is_found_in_its_line(file, old, new, which, at, says, model, tmp_path):
    findings = model(file, old, new, which)
    found = [finding for finding in findings if says in finding.text]
    assert found and found[0].error, findings
    if at is not None:
        path = tmp_path / f"{file}.prototxt"
        at_line = line_of(path, at)
        assert abs(found[0].line - at_line) <= 1, (found[0].line, at_line)  # a layer begins a line above its name


def test_a_layer_that_deploy_lacks_is_found(model, tmp_path):
    path = tmp_path / "deploy.prototxt"
    text = path.read_text()
    start = text.index('layer {\n  name: "relu2_1"')
    path.write_text(text[:start] + text[text.index("layer {", start + 5) :])
    assert "train_val.prototxt has the layer relu2_1 (ReLU), and deploy.prototxt has not" in {
        finding.text for finding in soundness.check(tmp_path / "train_val.prototxt")
    }


def test_what_does_nothing_is_a_warning(model, tool, tmp_path):
    findings = model("train_val", "pooling_param {", "convolution_param { pad: 1 }\n  pooling_param {")
    assert [finding.error for finding in findings] == [False]
    assert "Pooling does not read convolution_param" in findings[0].text
    findings = model("train_val", 'weight_filler {\n      type: "xavier"\n    }', "", 2)
    assert any("conv2_1: without a weight_filler its weights start at 0" in finding.text for finding in findings)
    assert tool("describe", tmp_path / "solver.prototxt", "--check").stdout.endswith("is sound, with 2 warnings\n")


def test_check_fails_with_the_lines_of_errors(model, tool, tmp_path):
    model("train_val", '"Pooling"', '"Pool"')
    done = tool("describe", tmp_path / "train_val.prototxt", "--check", fails=1)
    assert re.search(r"train_val\.prototxt:\d+: error: layer pool1 \(Pool\): there is no layer type", done.stdout)
    findings = json.loads(tool("describe", tmp_path / "train_val.prototxt", "--check", "--json", fails=1).stdout)
    assert findings[0]["error"] is True


def test_the_stock_export_is_written_whole(tool, tmp_path):
    tool("describe", PROTOTXT / "model8" / "deploy.prototxt", "--export-stock", tmp_path / "stock.prototxt")
    text = (tmp_path / "stock.prototxt").read_text()
    assert "LReLU" not in text
    assert text.count("negative_slope: 0.01") == 6
    with pytest.raises(NetError):
        describe.load(str(tmp_path / "nothing"), PROTOTXT)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(measure(), indent=2) + "\n")
