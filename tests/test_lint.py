"""tools/describe.py --check: mistakes in hand-edited prototxt, each with its position."""

import json
import re
import shutil

import pytest

from conftest import ROOT
from tiny_imagenet.inspect import lint
from tiny_imagenet.models import zoo

PROTOTXT = ROOT / "prototxt"
SOURCE = ROOT / "build" / "caffe-source"


@pytest.mark.parametrize("name", zoo.MODELS)
def test_generated_files_have_no_mistakes(name):
    assert lint.check(PROTOTXT / name / "solver.prototxt") == []


@pytest.fixture
def edit(tmp_path):
    """A copy of model4's files, and a function that replaces text in one of them and returns the findings."""
    for name in ("train_val", "deploy", "solver"):
        text = (PROTOTXT / "model4" / f"{name}.prototxt").read_text()
        (tmp_path / f"{name}.prototxt").write_text(text.replace("prototxt/model4/", ""))

    def replace(name, old, new, which=0):
        path = tmp_path / f"{name}.prototxt"
        text = path.read_text()
        place = [match.start() for match in re.finditer(re.escape(old), text)][which]
        path.write_text(text[:place] + new + text[place + len(old) :])
        return lint.check(tmp_path / "solver.prototxt")

    return replace


def position(path, text, which=0):
    offset = [match.start() for match in re.finditer(re.escape(text), path.read_text())][which]
    before = path.read_text()[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def errors(findings):
    return [finding for finding in findings if finding.is_error]


@pytest.mark.parametrize(
    ("file", "old", "new", "which", "field", "named"),
    [
        ("train_val", "bottom:", "botom:", 3, None, "'bottom'"),
        ("train_val", '"Pooling"', '"Poling"', 0, "type", "'Pooling'"),
        ("train_val", 'bottom: "pool1"', 'bottom: "pol1"', 0, "bottom[0]", "'pool1'"),
        ("train_val", "kernel_size: 2", "kernel_size: 300", 0, "pooling_param.kernel_size", "56-pixel"),
        ("train_val", "kernel_size: 5", "kernel_size: 99", 0, "convolution_param.kernel_size", "56-pixel"),
        ("train_val", "kernel_size: 5", "pad: 1", 0, "convolution_param.kernel_size", "kernel_size"),
        ("train_val", "num_output: 256", "num_output: 0", 0, "convolution_param.num_output", "num_output"),
        ("train_val", "num_output: 1024", "num_output: 0", 0, "inner_product_param.num_output", "num_output"),
        ("train_val", 'type: "xavier"', 'type: "savier"', 0, "convolution_param.weight_filler.type", "'xavier'"),
        ("train_val", "dropout_ratio: 0.5", "dropout_ratio: 1.5", 0, "dropout_param.dropout_ratio", "1.5"),
        ("train_val", "num_output: 256", "group: 3 num_output: 256", 0, "convolution_param.group", "128"),
        ("solver", 'net: "train_val', 'net: "train', 0, "net", "train.prototxt"),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "stepp"', 0, "lr_policy", "'step'"),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "step"', 0, "lr_policy", "gamma"),
        ("solver", 'lr_policy: "fixed"', 'lr_policy: "step"\ngamma: 0.1\nstepsize: -5', 0, "stepsize", "-5"),
        ("solver", "base_lr: 0.01", "base_lr: -1", 0, "base_lr", "-1"),
        ("solver", "base_lr: 0.01", "base_lr: nan", 0, "base_lr", "nan"),
        ("solver", "momentum: 0.9", "momentum: 9", 0, "momentum", "9"),
        ("solver", 'type: "SGD"', 'type: "Adams"', 0, "type", "'Adam'"),
        ("solver", 'type: "SGD"', 'type: "RMSProp" rms_decay: 1.5', 0, "rms_decay", "1.5"),
        ("solver", 'type: "SGD"', 'regularization_type: "L3"', 0, "regularization_type", "'L3'"),
        ("solver", "test_iter: 100", "test_iter: 0", 0, "test_iter", "test_iter"),
        ("solver", "test_iter: 100", "test_iter: 100 test_state {} test_state {}", 0, "test_state", "2"),
        ("solver", "test_interval: 500", "test_interval: -1", 0, "test_interval", "-1"),
        ("solver", "test_interval: 500", "test_interval: 5 test_net: 'no.prototxt'", 0, "test_net[0]", "no.prototxt"),
        ("solver", "max_iter: 50000", "max_iter: 50000 iter_size: 0", 0, "iter_size", "0"),
        ("solver", "weight_decay: 0.0005", "clip_gradients: inf", 0, "clip_gradients", "inf"),
    ],
)
def test_a_mistake_is_found_at_its_field(file, old, new, which, field, named, edit, tmp_path):
    path = tmp_path / f"{file}.prototxt"
    found = [finding for finding in errors(edit(file, old, new, which)) if field in (None, finding.field)]
    assert found[0].file == str(path) and named in found[0].text
    line = path.read_text().splitlines()[found[0].line - 1][found[0].column - 1 :]
    names = new.split(":")[0] if field is None else field.replace("[0]", "")
    assert re.match(rf"({names.replace('.', '|')})\b", line)


def test_an_old_solver_type_is_known(edit):
    (found,) = errors(edit("solver", 'type: "SGD"', "solver_type: ADAGRAD"))
    assert found.field == "momentum" and "AdaGrad" in found.text


def test_settings_without_an_effect_are_warnings(edit, tool, tmp_path):
    (found,) = edit("train_val", "pooling_param {", "convolution_param { pad: 1 }\n  pooling_param {")
    assert (found.severity, found.layer, found.field) == ("warning", "pool1", "convolution_param")
    found = edit("train_val", 'weight_filler {\n      type: "xavier"\n    }', "", 2)
    assert any(finding.layer == "conv2_1" and "weight_filler" in finding.text for finding in found)
    tool("describe", tmp_path / "solver.prototxt", "--check")


def test_check_prints_places_and_json(edit, tool, tmp_path):
    edit("train_val", '"Pooling"', '"Pool"')
    edit("train_val", '"Pooling"', '"Pool"')
    path = tmp_path / "train_val.prototxt"
    line, column = position(path, 'type: "Pool"')
    assert f"{path}:{line}:{column}: error: layer pool1" in tool("describe", path, "--check", fails=1).stdout
    first, second, *_ = json.loads(tool("describe", path, "--check", "--json", fails=1).stdout)
    assert (first["line"], first["column"], first["severity"]) == (line, column, "error")
    assert (first["layer"], first["field"], second["layer"]) == ("pool1", "type", "pool2")


# --- deploy.prototxt ---


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dim: 1\n", "dim: 10\n"),
        ("dropout_ratio: 0.5", "dropout_ratio: 0.1"),
        ('weight_filler {\n      type: "xavier"\n    }', ""),
        ("kernel_size: 5", "kernel_h: 5 kernel_w: 5"),
        ("kernel_size: 5", "kernel_size: 5 engine: CAFFE"),
        ('top: "conv1_1"', 'top: "conv1_1" param { lr_mult: 0 }'),
    ],
)
def test_equal_settings_in_deploy_are_not_reported(old, new, edit):
    assert edit("deploy", old, new) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "layer", "field", "named"),
    [
        ("deploy", "kernel_size: 2", "kernel_size: 3", "pool1", "pooling_param.kernel_size", "2"),
        ("deploy", "num_output: 256", "num_output: 250", "conv3_1", "convolution_param.num_output", "256"),
        ("train_val", "num_output: 256", "num_output: 250", "conv3_1", "convolution_param.num_output", "250"),
        ("deploy", "dim: 56", "dim: 58", "data", "input_param.shape[0].dim", "58"),
        ("deploy", 'name: "relu1_1"', 'name: "first"', "first", "", "name"),
        ("deploy", 'type: "ReLU"', 'type: "Sigmoid"', "relu1_1", "type", "ReLU"),
    ],
)
def test_a_different_deploy_net_is_a_warning(file, old, new, layer, field, named, edit, tmp_path):
    (found,) = edit(file, old, new)
    assert (found.file, found.severity) == (str(tmp_path / "deploy.prototxt"), "warning")
    assert (found.layer, found.field) == (layer, field) and found.line and named in found.text


def test_a_missing_and_an_additional_layer_of_deploy_are_found(edit, tmp_path):
    path = tmp_path / "deploy.prototxt"
    text = path.read_text()
    start = text.index('layer {\n  name: "relu2_1"')
    extra = 'layer { name: "extra" type: "TanH" bottom: "conv2_2" top: "conv2_2" }\n'
    end = text.index("layer {", start + 5)
    after = 'layer {\n  name: "relu2_2"'
    path.write_text(text[:start] + text[end:].replace(after, extra + after))
    found = lint.check(tmp_path / "train_val.prototxt")
    assert {finding.layer or "missing" for finding in found} == {"extra", "missing"}
    assert any("relu2_1" in finding.text for finding in found)


def test_lrelu_equals_relu_with_its_slope(tmp_path):
    for name in ("train_val", "deploy"):
        shutil.copy(PROTOTXT / "model6" / f"{name}.prototxt", tmp_path)
    deploy = tmp_path / "deploy.prototxt"
    text = deploy.read_text()
    for same in (text.replace("negative_slope: 0.01", ""), text.replace('"LReLU"', '"ReLU"')):
        deploy.write_text(same)
        assert lint.check(deploy) == []
    deploy.write_text(text.replace('"LReLU"', '"ReLU"').replace("negative_slope: 0.01", ""))
    assert {finding.field for finding in lint.check(deploy)} == {"relu_param.negative_slope"}


def test_a_copy_is_checked_and_not_its_original(tool, tmp_path):
    """From the checkout, where the name in the solver leads to the original."""
    copy = tmp_path / "two  spaces" / "mine"
    shutil.copytree(PROTOTXT / "model1", copy)
    train_val = copy / "train_val.prototxt"
    train_val.write_text(train_val.read_text().replace("bottom:", "botom:", 1))
    place = "{}:{}:{}: ".format(train_val, *position(train_val, "botom:"))
    for source in (copy, copy / "solver.prototxt"):
        assert place in tool("describe", source, "--check", cwd=ROOT, fails=1).stdout
    absolute = copy / "solver.prototxt"
    absolute.write_text(absolute.read_text().replace("prototxt/model1", str(PROTOTXT / "model1")))
    assert place in tool("describe", absolute, "--check", cwd=ROOT, fails=1).stdout


def test_upstreams_own_files_have_no_errors():
    files = sorted([*SOURCE.glob("models/**/*.prototxt"), *SOURCE.glob("examples/**/*.prototxt")])
    if not files:
        pytest.skip("Caffe's source is in the build folder, which is missing")
    assert {file.name for file in files if errors(lint.check(file))} == {"lenet_auto_solver.prototxt"}  # has no nets
    assert not any(lint.check(file) for file in files if file.name == "deploy.prototxt")


# --- states, and nets within solvers ---

LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "y" top: "loss" }\n'
FC = """layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
        inner_product_param { num_output: %d weight_filler { type: "xavier" } } }\n"""
SOLVER = 'base_lr: 0.01 lr_policy: "fixed" max_iter: 9\n'


def data_layer(extra="", param="batch_size: 4"):
    return f"""layer {{ name: "data" type: "CropData" top: "x" top: "y" {extra}
        transform_param {{ crop_size: 8 }} crop_data_param {{ source: "none" {param} }} }}\n"""


def solver_with(folder, text, **nets):
    """Write a solver and the nets that it names, and check it."""
    for name, net in nets.items():
        (folder / f"{name}.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text(SOLVER + text)
    return lint.check(folder / "solver.prototxt")


def test_nets_within_a_solver_are_checked(tmp_path):
    good, bad = data_layer() + FC % 5 + LOSS, data_layer() + FC % 5 + LOSS.replace('"fc"', '"nofc"')
    assert solver_with(tmp_path, f"net_param {{\n{good}}}\n") == []
    tests = f"train_net_param {{\n{good}}}\ntest_iter: 1 test_interval: 5 test_net_param {{\n{bad}}}\n"
    for text in (f"net_param {{\n{bad}}}\n", tests):
        (found,) = errors(solver_with(tmp_path, text))
        assert found.layer == "loss" and "'fc'" in found.text
        assert (found.line, found.column) == position(tmp_path / "solver.prototxt", 'bottom: "nofc"')


def test_a_net_for_training_only_needs_no_test_data(tmp_path):
    train = data_layer("include { phase: TRAIN }") + FC % 5 + LOSS
    assert solver_with(tmp_path, 'train_net: "a.prototxt"', a=train) == []
    assert solver_with(tmp_path, 'net: "a.prototxt"', a=train) == []
    found = errors(solver_with(tmp_path, 'net: "a.prototxt" test_iter: 1 test_interval: 5', a=train))
    assert ("fc", "bottom[0]") in [(finding.layer, finding.field) for finding in found]


def test_a_test_net_must_fit_the_weights_of_the_trained_net(tmp_path):
    text = 'train_net: "a.prototxt" test_net: "b.prototxt" test_iter: 1 test_interval: 5'
    train = data_layer() + FC % 5 + LOSS
    assert solver_with(tmp_path, text, a=train, b=train.replace('weight_filler { type: "xavier" }', "")) == []
    (found,) = errors(solver_with(tmp_path, text, a=train, b=data_layer() + FC % 6 + LOSS))
    assert found.layer == "fc" and "6x192" in found.text and "5x192" in found.text
    found = solver_with(tmp_path, text, a=train, b=train.replace('name: "fc"', 'name: "fcx"'))
    assert [(finding.severity, finding.layer) for finding in found] == [("warning", "fcx")]


def test_layers_of_one_name_in_two_phases_have_their_own_lines(edit, tmp_path):
    path = tmp_path / "train_val.prototxt"
    found = errors(edit("train_val", 'source: "data/val.lmdb"', ""))
    assert [(f.layer, f.field, f.line) for f in found] == [
        ("data", "crop_data_param.source", position(path, "crop_data_param", 1)[0])
    ]
    (found,) = errors(edit("train_val", "crop_size: 56", 'crop_size: 48\n source: "x"', 1))[:1]
    assert found.file == str(path)


def test_a_net_without_a_loss_is_found(edit, tmp_path):
    path = tmp_path / "train_val.prototxt"
    text = path.read_text()
    start = text.index('layer {\n  name: "loss"')
    end = text.index("layer {", start + 5)
    path.write_text(text[:start] + text[end:])
    (found,) = errors(lint.check(tmp_path / "solver.prototxt"))
    assert "loss" in found.text and found.field == "net"
    path.write_text(text[: text.index('layer {\n  name: "accuracy"')])  # the loss alone can be tested
    assert lint.check(tmp_path / "solver.prototxt") == []


def test_stages_and_levels_come_from_the_solver(tmp_path):
    net = data_layer('include { stage: "a" stage: "b" min_level: 1 }') + FC % 5 + LOSS
    text = 'net: "a.prototxt" train_state { stage: "a" stage: "b" level: 1 }'
    assert solver_with(tmp_path, text, a=net) == []
    assert errors(solver_with(tmp_path, text.replace('stage: "b"', ""), a=net))
    (tmp_path / "net.prototxt").write_text(net.replace("min_level: 1", ""))
    assert lint.check(tmp_path / "net.prototxt") == []
    other = data_layer('include { stage: "a" }') + data_layer('exclude { stage: "a" }') + FC % 5 + LOSS
    (found,) = solver_with(tmp_path, 'net: "a.prototxt"\ntrain_state {\n stage: "A" }', a=other)
    assert (found.severity, found.line, found.field) == ("warning", 4, "train_state.stage[0]")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('net: "a.prototxt" train_net: "a.prototxt"', "train_net"),
        ('net: "a.prototxt" type: "Adam" solver_type: SGD', "solver_type"),
        ("", "net:"),
    ],
)
def test_a_solver_has_exactly_one_net_and_type(text, named, tmp_path):
    found = errors(solver_with(tmp_path, text, a=data_layer() + FC % 5 + LOSS))
    assert any(named in finding.text for finding in found)


@pytest.mark.parametrize(
    "text", ['lr_policy: "inv" gamma: 0.1 power: 0', 'lr_policy: "exp" gamma: 0', 'lr_policy: "fixed" test_interval: 9']
)
def test_settings_that_caffe_accepts_are_not_errors(text, tmp_path):
    (tmp_path / "a.prototxt").write_text(data_layer() + FC % 5 + LOSS)
    (tmp_path / "solver.prototxt").write_text(f'net: "a.prototxt" base_lr: 0.01 max_iter: 9 {text}')
    assert errors(lint.check(tmp_path / "solver.prototxt")) == []


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        (data_layer() + data_layer(), "top[0]"),
        (data_layer('bottom: "zz"'), "bottom[0]"),
        (data_layer(param=""), "crop_data_param.batch_size"),
        (data_layer(param="batch_size: 2000000000"), ""),
        (data_layer('top: "a" top: "b"'), ""),
        (data_layer().replace("crop_size", 'mean_file: "m" mean_value: 3 crop_size'), "transform_param.mean_value"),
        (data_layer() + FC.replace('"fc"', '"a"') % 4 + 'layer { name: "s" type: "Eltwise" bottom: "x" bottom: "a" '
         'top: "s" }\n', "bottom[1]"),
    ],
)  # fmt: skip
def test_an_invalid_layer_is_an_error(layers, field, tmp_path):
    (tmp_path / "net.prototxt").write_text(layers + FC % 5 + LOSS)
    assert field in [finding.field for finding in errors(lint.check(tmp_path / "net.prototxt"))]


@pytest.mark.parametrize(
    ("one", "other", "named", "field"),
    [
        ("", "", "4x192", "param[0]"),
        ("share_mode: PERMISSIVE", "share_mode: PERMISSIVE", "4x192", "param[0]"),
        ("lr_mult: 1", "lr_mult: 2", "lr_mult", "param[0].lr_mult"),
        ("decay_mult: 0", "decay_mult: 1", "decay_mult", "param[0].decay_mult"),
    ],
)
def test_parameters_that_cannot_be_shared_are_found(one, other, named, field, tmp_path):
    path = tmp_path / "net.prototxt"
    layer = """layer { name: "%s" type: "InnerProduct" bottom: "%s" top: "%s"
  param { name: "w" %s } inner_product_param { num_output: %d weight_filler { type: "xavier" } } }
"""
    width = 192 if "mult" in one else 4
    data = 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 3, 8, 8] } } }\n'
    path.write_text(data + layer % ("a", "x", "a", one, width) + layer % ("b", "a", "b", other, width))
    (found,) = errors(lint.check(path))
    assert (found.line, found.layer, found.field) == (5, "b", field) and named in found.text


def test_all_missing_blobs_are_named_at_once(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layer [\n  { name: "a" type: "Silence"\n    bottom: ["x", "y"] },\n  { type: "Splt" }\n]\n')
    first, second = lint.check(path)
    assert "'x', 'y'" in first.text and (first.line, first.column) == (3, 14)
    assert "'Split'" in second.text and second.line == 4
