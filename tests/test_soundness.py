"""tools/describe.py --check: mistakes of people who edit prototxt by hand, each found in its line."""

import json
import re
import shutil

import pytest
from caffe.proto import caffe_pb2

from conftest import ROOT
from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import soundness
from tiny_imagenet.models import prototxt, zoo

PROTOTXT = ROOT / "prototxt"
SOURCE = ROOT / "build" / "caffe-source"


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
        ("deploy", "kernel_size: 2", "kernel_size: 4", 0, "kernel_size: 4", "pooling_param.kernel_size is 4"),
        ("deploy", "dim: 56", "dim: 58", 1, None, "fc1"),
        (
            "solver",
            'net: "train_val',
            'net: "train',
            0,
            "net:",
            "names the net train.prototxt, which is neither there nor beside the solver",
        ),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "stepp"', 0, "lr_policy", "it must be one of fixed"),
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
    assert "train_val.prototxt has the layer relu2_1 (ReLU) before conv2_2, and deploy.prototxt has not" in {
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


def errors_of(findings):
    return [finding.text for finding in findings if finding.error]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('type: "SGD"', 'type: "AdaGrad"', "AdaGrad has no momentum"),
        ('type: "SGD"', 'type: "RMSProp" rms_decay: 1.5', "rms_decay is 1.5"),
        ('type: "SGD"', 'type: "Adams"', 'type is "Adams": it must be one of SGD, Nesterov'),
        ('type: "SGD"', 'regularization_type: "L3"', "it must be L1 or L2"),
        ("test_iter: 100", "test_iter: 100 test_iter: 0", "each test_iter must be at least 1"),
        ("test_iter: 100", "test_iter: 100 test_state {} test_state {}", "2 test_state for 1 test_iter"),
        ("test_interval: 500", "test_interval: -1", "test_interval is -1"),
        ("test_interval: 500", "test_interval: 5 test_net: 'no.prototxt'", "names the test net no.prototxt"),
        ("max_iter: 50000", "max_iter: 50000 iter_size: 0", "iter_size is 0"),
        ("max_iter: 50000", "max_iter: 0", "max_iter is 0"),
        ("base_lr: 0.01", "base_lr: nan", "base_lr is nan: it must be a finite number"),
        ("weight_decay: 0.0005", "weight_decay: nan", "weight_decay is nan"),
        ("weight_decay: 0.0005", "clip_gradients: inf", "clip_gradients is inf"),
        ('lr_policy: "fixed"', "", "there is no lr_policy"),
    ],
)
def test_a_solver_that_caffe_refuses_or_that_learns_nothing(old, new, says, model, tmp_path):
    found = [finding for finding in model("solver", old, new) if says in finding.text]
    assert len(found) == 1 and found[0].error
    if new and "AdaGrad" not in new:
        assert found[0].line == line_of(tmp_path / "solver.prototxt", new)


def test_what_caffe_alone_knows_of_a_solver_is_found_too(model, tmp_path):
    """A range that is not written down here."""
    found = model("solver", 'lr_policy: "fixed"', 'lr_policy: "step"\ngamma: 0.1\nstepsize: -5')
    assert errors_of(found) == ["Caffe requires this->param_.stepsize() > 0, here -5 and 0"]
    assert found[0].line == line_of(tmp_path / "solver.prototxt", "stepsize")


def test_old_solver_types_are_known(model):
    assert errors_of(model("solver", 'type: "SGD"', "solver_type: ADAGRAD")) == [
        "AdaGrad has no momentum: leave it out, or take another type"
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kernel_size: 3", "kernel_h: 3 kernel_w: 3 stride: 1 dilation: 1 engine: CAFFE"),
        ("pad: 1", "pad: 1 pad: 1 group: 1"),
        ("kernel_size: 2", "kernel_h: 2 kernel_w: 2"),
        ("dropout_ratio: 0.5", "dropout_ratio: 0.1"),
        ('name: "relu1_1"', 'name: "first_relu"'),
        ('type: "xavier"', 'type: "msra"'),
        ("num_output: 64", "num_output: 64 bias_term: true"),
    ],
)
def test_other_words_for_the_same_in_deploy_are_no_findings(old, new, model):
    assert model("deploy", old, new) == []


def test_lrelu_and_relu_with_its_slope_are_one(tmp_path):
    for name in ("train_val", "deploy"):
        text = (PROTOTXT / "model6" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text)
    deploy = tmp_path / "deploy.prototxt"
    text = deploy.read_text()
    deploy.write_text(text.replace("negative_slope: 0.01", ""))  # LReLU's own default
    assert soundness.check(deploy) == []
    deploy.write_text(text.replace('"LReLU"', '"ReLU"'))
    assert soundness.check(deploy) == []
    deploy.write_text(text.replace('"LReLU"', '"ReLU"').replace("negative_slope: 0.01", ""))
    assert "relu_param.negative_slope is 0, and 0.01 in train_val.prototxt" in errors_of(soundness.check(deploy))[0]
    deploy.write_text(text.replace("negative_slope: 0.01", "negative_slope: 0"))
    assert len(errors_of(soundness.check(deploy))) == 6


def insert_after(path, layer, text):
    """Write a layer after another of a prototxt."""
    old = path.read_text()
    end = old.index("layer {", old.index(f'name: "{layer}"'))
    path.write_text(old[:end] + text + old[end:])


def test_batch_norm_may_use_its_own_statistics_in_deploy_alone(tmp_path, model):
    norm = 'layer { name: "norm" type: "BatchNorm" bottom: "conv1_1" top: "conv1_1" %s }\n'
    insert_after(tmp_path / "train_val.prototxt", "conv1_1", norm % "")
    insert_after(tmp_path / "deploy.prototxt", "conv1_1", norm % "batch_norm_param { use_global_stats: true }")
    assert soundness.check(tmp_path / "solver.prototxt") == []


def test_layers_that_only_deploy_has_or_that_are_wired_otherwise_are_found(tmp_path, model):
    deploy = tmp_path / "deploy.prototxt"
    original = deploy.read_text()
    insert_after(deploy, "relu2_1", 'layer { name: "extra" type: "TanH" bottom: "conv2_1" top: "conv2_1" }\n')
    says = "there is the layer extra (TanH) before conv2_2, and train_val.prototxt has none"
    found = soundness.check(deploy)
    assert errors_of(found) == [says]
    assert (
        found[0].line == line_of(deploy, 'bottom: "conv2_1"', 2)
        or found[0].line == line_of(deploy, 'name: "conv2_2"') + 2
    )
    deploy.write_text(original.replace('"ReLU"', '"Sigmoid"', 1))
    assert errors_of(soundness.check(deploy)) == [
        "layer conv1_2 gets conv1_1 (Convolution) > relu1_1 (Sigmoid), and in train_val.prototxt conv1_1 (Convolution) "
        "> relu1_1 (ReLU)"
    ]
    end = original.index('name: "prob"')
    deploy.write_text(original[:end].replace("layer {\n  ", "layer {\n  ") + original[end:])
    insert_after(deploy, "fc3", 'layer { name: "last" type: "ReLU" bottom: "fc3" top: "fc3" }\n')
    assert errors_of(soundness.check(deploy)) == [
        "there is the layer last (ReLU) before prob, and train_val.prototxt has none"
    ]


def test_a_finding_in_a_layer_of_one_phase_has_its_own_line(model, tmp_path):
    findings = model("train_val", "crop_size: 56", "crop_size: 48", 1)
    train_val = tmp_path / "train_val.prototxt"
    says = "layer fc1 has weights of 1024x9216, 1024 in phase TEST, of 1024x12544, 1024 in TRAIN"
    assert says in errors_of(findings)
    text = train_val.read_text()
    train_val.write_text(text.replace("crop_size: 48", "crop_size: 56").replace('source: "data/val.lmdb"', ""))
    found = soundness.check(train_val)
    assert errors_of(found) == ["layer data (CropData) has no source in its crop_data_param"]
    assert found[0].line == line_of(train_val, "crop_data_param", 1)
    train_val.write_text(text.replace("crop_size: 48", "crop_size: 56").replace('"CropData"', '"CropDat"'))
    lines = [finding.line for finding in soundness.check(train_val) if "CropDat" in finding.text]
    assert lines == [line_of(train_val, '"CropDat"', 0), line_of(train_val, '"CropDat"', 1)]


def test_a_net_without_a_loss_or_outputs_is_found(tmp_path, model):
    train_val = tmp_path / "train_val.prototxt"
    text = train_val.read_text()
    start = text.index('layer {\n  name: "loss"')
    end = text.index("layer {", start + 5)
    train_val.write_text(text[:start] + text[end:])
    (tmp_path / "deploy.prototxt").unlink()
    assert errors_of(soundness.check(tmp_path / "solver.prototxt")) == [
        "the net train_val.prototxt has no loss in phase TRAIN: nothing is learned"
    ]
    # a net whose loss alone is tested is tested
    start = text.index('layer {\n  name: "accuracy"')
    train_val.write_text(text[:start])
    assert soundness.check(tmp_path / "solver.prototxt") == []


def test_a_copy_is_checked_and_not_what_it_was_copied_from(tool, tmp_path):
    """From the checkout, where the name in the solver leads to the original."""
    copy = tmp_path / "two  spaces" / "mine"
    shutil.copytree(PROTOTXT / "model1", copy)
    train_val = copy / "train_val.prototxt"
    train_val.write_text(train_val.read_text().replace("kernel_size: 5", "kernel_size: 4", 1))
    for source in (copy, copy / "solver.prototxt"):
        done = tool("describe", source, "--check", cwd=ROOT, fails=1)
        assert "deploy.prototxt:30: error: layer conv1_1 has weights of 64x3x5x5, 64, in train_val" in done.stdout
    assert "the train_val.prototxt beside it is taken" in done.stdout
    assert f"net: {train_val}" in tool("describe", copy, cwd=ROOT).stdout
    train_val.write_text(train_val.read_text().replace("bottom:", "botom:", 1))
    line = line_of(train_val, "botom:")
    assert f"{train_val}:{line}: error: Message type" in tool("describe", copy, "--check", fails=1).stdout


def test_upstreams_own_files_are_sound():
    files = sorted([*SOURCE.glob("models/**/*.prototxt"), *SOURCE.glob("examples/**/*.prototxt")])
    if not files:
        pytest.skip("Caffe's source is in the build folder, which is not here")
    wrong = {file.name for file in files if errors_of(soundness.check(file))}
    assert wrong == {"lenet_auto_solver.prototxt"}  # its nets are written by a notebook


LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "y" top: "loss" }\n'
FC = """layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
        inner_product_param { num_output: %d weight_filler { type: "xavier" } } }\n"""


def data_layer(extra="", param="batch_size: 4"):
    return f"""layer {{ name: "data" type: "CropData" top: "x" top: "y" {extra}
        transform_param {{ crop_size: 8 }} crop_data_param {{ source: "none" {param} }} }}\n"""


SOLVER = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 9\n'


def solver_with(folder, text, **nets):
    """A solver's file, and the nets that it names."""
    for name, net in nets.items():
        (folder / f"{name}.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(SOLVER + text)
    return soundness.check(folder / "solver.prototxt")


def test_nets_inside_a_solver_are_checked_with_their_lines(tmp_path):
    good, bad = data_layer() + FC % 5 + LOSS, data_layer() + FC % 5 + LOSS.replace('"fc"', '"nofc"')
    assert solver_with(tmp_path, f"net_param {{\n{good}}}\n") == []
    found = solver_with(tmp_path, f"net_param {{\n{bad}}}\n")
    assert errors_of(found) == ["layer loss (SoftmaxWithLoss): there is no blob 'nofc' before it, did you mean 'fc'?"]
    assert found[0].line == line_of(tmp_path / "solver.prototxt", "nofc")
    tests = f"train_net_param {{\n{good}}}\ntest_iter: 1 test_interval: 5 test_net_param {{\n{bad}}}\n"
    found = solver_with(tmp_path, tests)
    assert found[0].error and found[0].line == line_of(tmp_path / "solver.prototxt", "nofc")


def test_a_net_that_is_only_trained_needs_no_data_to_test_with(tmp_path):
    train = data_layer("include { phase: TRAIN }") + FC % 5 + LOSS
    assert solver_with(tmp_path, 'train_net: "a.prototxt"', a=train) == []
    assert solver_with(tmp_path, 'net: "a.prototxt"', a=train) == []
    found = solver_with(tmp_path, 'net: "a.prototxt" test_iter: 1 test_interval: 5', a=train)
    assert any("there is no blob 'x' before it" in text for text in errors_of(found))


def test_a_test_net_takes_the_weights_of_the_trained_one(tmp_path):
    text = 'train_net: "a.prototxt" test_net: "b.prototxt" test_iter: 1 test_interval: 5'
    train = data_layer() + FC % 5 + LOSS
    assert solver_with(tmp_path, text, a=train, b=train.replace('weight_filler { type: "xavier" }', "")) == []
    found = solver_with(tmp_path, text, a=train, b=data_layer() + FC % 6 + LOSS)
    assert errors_of(found) == ["layer fc has weights of 6x192, 6 in phase TEST, of 5x192, 5 in TRAIN"]
    other = train.replace('name: "fc"', 'name: "fcx"')
    found = solver_with(tmp_path, text, a=train, b=other)
    assert "layer fcx has weights in phase TEST, and none learn them in TRAIN" in found[0].text


def test_stages_and_levels_of_the_solver_are_asked_for(tmp_path):
    net = data_layer('include { stage: "a" stage: "b" min_level: 1 }') + FC % 5 + LOSS
    text = 'net: "a.prototxt" train_state { stage: "a" stage: "b" level: 1 }'
    assert solver_with(tmp_path, text, a=net) == []
    found = solver_with(tmp_path, text.replace('stage: "b"', ""), a=net)
    assert any("no blob 'x'" in text for text in errors_of(found))


def test_a_stage_that_no_rule_names_is_a_warning(tmp_path):
    net = data_layer('include { stage: "a" }') + data_layer('exclude { stage: "a" }') + FC % 5 + LOSS
    found = solver_with(tmp_path, 'net: "a.prototxt"\ntrain_state {\n stage: "A" }', a=net)
    assert [f.line for f in found if f.text == "no rule of the net names the stage 'A': it names a"] == [4]
    assert not errors_of(found)


def test_a_net_that_needs_a_stage_is_sound(tmp_path):
    (tmp_path / "net.prototxt").write_text(data_layer('include { stage: "a" stage: "b" }') + FC % 5 + LOSS)
    assert soundness.check(tmp_path / "net.prototxt") == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('net: "a.prototxt" train_net: "a.prototxt"', "net and train_net exclude each other"),
        ('net: "a.prototxt" type: "Adam" solver_type: SGD', "type and solver_type exclude each other"),
        ("", "names no net"),
    ],
)
def test_what_excludes_each_other_in_a_solver(text, says, tmp_path):
    assert any(says in found for found in errors_of(solver_with(tmp_path, text, a=data_layer() + FC % 5 + LOSS)))


@pytest.mark.parametrize(
    "text", ['lr_policy: "inv" gamma: 0.1 power: 0', 'lr_policy: "exp" gamma: 0', 'lr_policy: "fixed" test_interval: 9']
)
def test_what_caffe_trains_with_is_no_error(text, tmp_path):
    (tmp_path / "a.prototxt").write_text(data_layer() + FC % 5 + LOSS)
    (tmp_path / "solver.prototxt").write_text(f'net: "a.prototxt" base_lr: 0.01 max_iter: 9 {text}')
    assert errors_of(soundness.check(tmp_path / "solver.prototxt")) == []


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (data_layer() + data_layer(), "another layer makes a blob 'x' already"),
        (data_layer('bottom: "zz"'), "there is no blob 'zz' before it"),
        (data_layer(param=""), "it needs a batch_size of at least 1"),
        (data_layer(param="batch_size: 2000000000"), "its shape would be (2000000000, 3, 8, 8)"),
        (data_layer('top: "a" top: "b"'), "it has 4 tops, and gives at most 3"),
        (data_layer().replace("crop_size", 'mean_file: "m" mean_value: 3 crop_size'), "exclude each other"),
    ],
)
def test_a_data_layer_that_is_wrong_is_an_error(layer, says, tmp_path):
    (tmp_path / "net.prototxt").write_text(layer + FC % 5 + LOSS)
    assert any(says in text for text in errors_of(soundness.check(tmp_path / "net.prototxt")))


RESIDUAL = """
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
  convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "c1" top: "c1" %s }
layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "c1" top: "sum" }
layer { name: "fc" type: "InnerProduct" bottom: "sum" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: %d dim: %d } } }\n'
PROB = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" %s }\n'


def deployed(folder, deploy):
    (folder / "train_val.prototxt").write_text(data_layer() + RESIDUAL % "" + LOSS)
    (folder / "deploy.prototxt").write_text(deploy)
    return soundness.check(folder / "deploy.prototxt")


def test_a_residual_net_in_deploy(tmp_path):
    net = INPUT % (8, 8) + RESIDUAL % ""
    assert deployed(tmp_path, net + PROB % "") == []
    swapped = net.replace('bottom: "x" bottom: "c1" top: "sum"', 'bottom: "c1" bottom: "x" top: "sum"')
    assert deployed(tmp_path, swapped + PROB % "") == []
    product = net.replace('top: "sum" }', 'top: "sum" eltwise_param { operation: PROD } }')
    assert "eltwise_param.operation is PROD, and SUM" in errors_of(deployed(tmp_path, product + PROB % ""))[0]
    only = net.replace('bottom: "x" bottom: "c1" top: "sum"', 'bottom: "x" bottom: "x" top: "sum"')
    assert errors_of(deployed(tmp_path, only + PROB % ""))
    fixed = INPUT % (8, 8) + RESIDUAL % "batch_norm_param { use_global_stats: true }"
    assert deployed(tmp_path, fixed + PROB % "") == []
    own = INPUT % (8, 8) + RESIDUAL % "batch_norm_param { use_global_stats: false }"
    assert "use_global_stats is false" in errors_of(deployed(tmp_path, own + PROB % ""))[0]
    assert "softmax_param.axis is 0" in errors_of(deployed(tmp_path, net + PROB % "softmax_param { axis: 0 }"))[0]


def test_images_of_another_size_are_a_warning(tmp_path):
    deploy = PROTOTXT / "model1" / "deploy.prototxt"
    (tmp_path / "deploy.prototxt").write_text(deploy.read_text())
    train = (PROTOTXT / "model1" / "train_val.prototxt").read_text()
    (tmp_path / "train_val.prototxt").write_text(train.replace("crop_size: 56", "crop_size: 55"))
    found = soundness.check(tmp_path / "train_val.prototxt")
    assert [f.text for f in found] == ["deploy.prototxt takes images of 56x56, train_val.prototxt of 55x55"]
    assert not found[0].error


def test_the_line_is_that_of_the_field(model, tmp_path):
    found = model("train_val", "dropout_ratio: 0.5", "dropout_ratio: 1.5")
    line = line_of(tmp_path / "train_val.prototxt", "dropout_ratio: 1.5")
    assert [f.line for f in found if "dropout_ratio" in f.text] == [line]


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (
            "",
            "",
            "its parameter 'w' has the shape 4x4, in layer a 4x192: give both one shape, or one of them another name",
        ),
        ("share_mode: PERMISSIVE", "share_mode: PERMISSIVE", "its parameter 'w' has the shape 4x4, in layer a 4x192"),
        ("lr_mult: 1", "lr_mult: 2", "the lr_mult of its parameter 'w' is 2, in layer a 1: write it once, or alike"),
        ("decay_mult: 0", "decay_mult: 1", "the decay_mult of its parameter 'w' is 1, in layer a 0"),
    ],
)
def test_what_cannot_be_shared_is_found_where_it_is_shared(one, other, says, tmp_path):
    path = tmp_path / "net.prototxt"
    layer = """layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"
  param { name: "w" %s } inner_product_param { num_output: %d weight_filler { type: "xavier" } } }
"""
    width = 192 if "mult" in one else 4
    data = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } }\n'
    path.write_text(data + layer % ("a", "x", "a", one, width) + layer % ("b", "a", "b", other, width))
    (found,) = [finding for finding in soundness.check(path) if finding.error]
    assert (found.line, found.text.startswith(f"layer b (InnerProduct): {says}")) == (5, True), found


def test_layers_in_a_list_have_their_lines(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text("""layer [
  { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } },
  {
    name: "conv" type: "Convolution" bottom: "x" top: "conv"
    convolution_param { num_output: 4 kernel_size: [3, 3, 3] weight_filler { type: "xavier" } }
  },
  { name: "cat" type: "Concat"
    bottom: ["x", "y"] top: "cat" }
]
""")
    assert [(f.line, f.text[:10]) for f in soundness.check(path)] == [(4, "layer conv"), (7, "layer cat ")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            'layer { name: "x" botom: "y" }',
            ":1:24: Message type .* has no field named \"botom\"\\. Did you mean 'bottom'\\?",
        ),
        ('layer { name: "x" pooling_param { kernelsize: 2 } }', "Did you mean 'kernel_size'"),
        (
            'layer { name: "x" pooling_param { kernel_size: 2 }\nlayer { name: "y" }',
            ":2:7: .* Is a } missing before it",
        ),
        ('layer { name: "x"', "got: nothing: the text ends here, is a } missing"),
        ("layer { name: \u201cx\u201d }", "Write plain quotes"),
        ('layer { name: "x" nothing_like_it: 1 }', r'"nothing_like_it"\.$'),
    ],
)
def test_what_does_not_parse_is_told_with_what_to_do(text, says, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(NetError, match=says):
        prototxt.read(caffe_pb2.NetParameter(), path)
