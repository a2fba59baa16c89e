"""The nets compared with independent implementations: PyTorch, and OpenCV's reader of Caffe's files."""

import json
import os
import subprocess
import sys

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2

from conftest import ROOT
from tiny_imagenet.export import stock
from tiny_imagenet.models import derive, nets, solvers, zoo
from tiny_imagenet.models.paper import PAPER

# Narrow fully connected layers of the large nets save memory.
NARROW = {"model7": (256, 128), "model8": (256, 128), "model9": (256, 128)}
STAGED = {stage.name: stage for name in PAPER for model in [zoo.MODELS[name]] for stage in model.training_stages}
CLASSES = 20


def narrow(name):
    model = STAGED[name]
    hidden = NARROW.get(name.split("_")[0], model.hidden)
    return model.replace(hidden=hidden, classes=CLASSES, batch=4)


@pytest.fixture(scope="module")
def torch_python():
    python = os.environ.get("TORCH_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 0
    return python if found else pytest.skip("no PyTorch: set TORCH_PYTHON to a Python with torch")


def randomize(net):
    """Set weights, biases and slopes so that signals of both signs pass every layer."""
    rng = np.random.default_rng(5)
    for blobs in net.params.values():
        for blob in blobs:
            fan_in = max(blob.data[0].size, 1) if blob.data.ndim > 1 else 100
            blob.data[...] = rng.normal(scale=np.sqrt(2 / fan_in), size=blob.data.shape)


def in_torch(python, folder, param, net, inputs):
    """Compute prob or loss and the gradient of each parameter with tests/torch_reader.py."""
    counts = {name: len(layer.blobs) for name, layer in zip(net._layer_names, net.layers)}
    layers = []
    for layer in param.layer:
        one = {
            "name": layer.name,
            "type": layer.type,
            "bottom": list(layer.bottom),
            "top": (list(layer.top) or [""])[0],
        }
        one |= {"parameters": counts[layer.name], "scale": layer.power_param.scale}
        one |= {"pad": list(layer.convolution_param.pad)[:1], "slope": layer.relu_param.negative_slope}
        layers.append(one)
    (folder / "net.json").write_text(json.dumps(layers))
    weights = {f"{name}/{i}": b.data for name, blobs in net.params.items() for i, b in enumerate(blobs)}
    np.savez(folder / "in.npz", **inputs, **weights)
    subprocess.run([python, str(ROOT / "tests" / "torch_reader.py"), str(folder)], check=True)
    return np.load(folder / "out.npz")


@pytest.mark.parametrize("name", STAGED)
def test_deploy_nets_match_the_softmax_of_pytorch(name, torch_python, tmp_path):
    param = derive.deploy(nets.build(narrow(name)))
    net = caffe.Net(param, caffe.TEST)
    randomize(net)
    images = np.random.default_rng(6).normal(scale=50, size=(2, 3, 56, 56)).astype(np.float32)
    net.blobs["data"].reshape(*images.shape)
    ours = net.forward(data=images)["prob"]
    theirs = in_torch(torch_python, tmp_path, param, net, {"data": images})["prob"]
    assert np.ptp(theirs) > 0.01  # the comparison is not trivial
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def use(engine, param):
    """Select the engine of convolutions; Winograd rounds more, which changes more decisions of ReLU and pooling."""
    for layer in param.layer:
        if layer.type == "Convolution":
            layer.convolution_param.engine = caffe_pb2.ConvolutionParameter.Engine.Value(engine)


@pytest.mark.parametrize(("engine", "most"), [("CAFFE", 5e-3), ("DEFAULT", 2e-2)])
@pytest.mark.parametrize("name", STAGED)
def test_training_nets_match_the_loss_and_gradients_of_pytorch(name, engine, most, torch_python, tmp_path):
    """On one batch without dropout; PyTorch computes in float64, so that only our rounding differs."""
    model = narrow(name)
    param = nets.build(model)
    data = caffe_pb2.LayerParameter(name="data", type="Input", top=["data", "label"])
    data.input_param.shape.add(dim=[model.batch, 3, model.crop, model.crop])
    data.input_param.shape.add(dim=[model.batch])
    training = [la for la in param.layer if not any(rule.phase == caffe_pb2.TEST for rule in la.include)]
    changed = caffe_pb2.NetParameter(layer=[data, *(la for la in training if la.type not in ("CropData", "Dropout"))])
    use(engine, changed)
    net = caffe.Net(changed, caffe.TRAIN)
    randomize(net)
    rng = np.random.default_rng(7)
    inputs = {
        "data": rng.normal(scale=50, size=(model.batch, 3, model.crop, model.crop)).astype(np.float32),
        "label": rng.integers(0, CLASSES, size=model.batch).astype(np.float32),
    }
    loss = net.forward(**inputs)["loss"]
    net.clear_param_diffs()
    net.backward()
    theirs = in_torch(torch_python, tmp_path, changed, net, inputs)
    np.testing.assert_allclose(loss, theirs["loss"], rtol=1e-4)
    for layer, blobs in net.params.items():
        for i, blob in enumerate(blobs):
            want = theirs[f"{layer}/{i}"]
            # Rounding may change the winner of a pool or the sign of a rectifier's input, and with it a gradient.
            off = np.linalg.norm(blob.diff - want) / np.linalg.norm(want)
            assert off < most, (layer, i)


@pytest.mark.parametrize(
    ("name", "convs", "off"),
    [
        ("model1", "3-32 5-32 3-32", 1e-4),
        ("model1", "5-8 3-8", 1e-4),  # with tanh instead of kinks, equal up to rounding
        # float32 and float64 diverge when they are on different sides of a kink
        ("model1", "5-64 | 5-64 | 5-128 |", 0.1),
        ("model5", "3-64 3-64 | 3-128 3-128 | 3-256 3-256 |", 0.1),
        ("model6", "3-64 3-64 | 3-128 3-128 | 3-256 3-256 |", 0.1),
    ],
)
def test_twenty_iterations_match_the_sgd_of_pytorch(name, convs, off, torch_python, tmp_path):
    """Momentum, weight decay, learning rate and the multipliers of parameters, without dropout."""
    small = {"classes": CLASSES, "batch": 8, "dropout": 0, "crop": 24, "hidden": (32,)}
    model = STAGED[name].replace(convs=convs, drop_after_stage=0, **small)
    net = nets.build(model)
    if "|" not in convs:
        for layer in net.layer:
            layer.type = layer.type.replace("ReLU", "TanH")
    use("DEFAULT" if off < 0.1 else "CAFFE", net)
    data = caffe_pb2.LayerParameter(name="data", type="Input", top=["data", "label"])
    data.input_param.shape.add(dim=[model.batch, 3, model.crop, model.crop])
    data.input_param.shape.add(dim=[model.batch])
    layers = [la for la in net.layer if la.type != "CropData" and not la.include]
    multipliers = {"conv1_1": [(1, 1), (2, 0)], "fc3": [(0.5, 3), (1, 0)]}
    for layer in layers:
        for rate, decay in multipliers.get(layer.name, ()):
            layer.param.add(lr_mult=rate, decay_mult=decay)
    solver = solvers.build(model)
    for field in ("net", "test_iter", "test_interval", "snapshot", "snapshot_prefix", "display"):
        solver.ClearField(field)
    solver.snapshot_after_train = False
    solver.weight_decay, solver.random_seed = 0.01, 3
    solver.net_param.layer.extend([data, *layers])
    built = caffe.get_solver(solver)
    rng = np.random.default_rng(11)
    inputs = {
        "data": rng.normal(scale=50, size=(model.batch, 3, model.crop, model.crop)).astype(np.float32),
        "label": rng.integers(0, CLASSES, size=model.batch).astype(np.float32),
    }
    for blob, values in inputs.items():
        built.net.blobs[blob].data[...] = values
    before = {f"{n}/{i}": b.data.copy() for n, blobs in built.net.params.items() for i, b in enumerate(blobs)}
    groups = {}
    for key in before:
        layer, i = key.split("/")
        rate, decay = multipliers.get(layer, [(1, 1), (1, 1)])[int(i)]
        groups[key] = {"lr": solver.base_lr * rate, "weight_decay": solver.weight_decay * decay}
    (tmp_path / "sgd.json").write_text(json.dumps({"steps": 20, "momentum": solver.momentum, "groups": groups}))
    theirs = in_torch(torch_python, tmp_path, solver.net_param, built.net, inputs)
    built.step(20)
    for layer, blobs in built.net.params.items():
        for i, blob in enumerate(blobs):
            key = f"{layer}/{i}"
            moved = np.linalg.norm(theirs[key] - before[key])
            assert moved > 1e-4
            assert np.linalg.norm(blob.data - theirs[key]) < off * moved, key


@pytest.mark.parametrize("name", STAGED)
def test_opencv_reads_the_stock_export_and_computes_the_same_softmax(name, tmp_path):
    import cv2

    param = derive.deploy(nets.build(narrow(name)))
    net = caffe.Net(param, caffe.TEST)
    randomize(net)
    net.save(tmp_path / "weights.caffemodel")
    (tmp_path / "stock.prototxt").write_text(nets.to_text(stock.export(param)))
    images = np.random.default_rng(8).normal(scale=50, size=(1, 3, 56, 56)).astype(np.float32)
    ours = net.forward(data=images)["prob"]
    theirs = cv2.dnn.readNetFromCaffe(str(tmp_path / "stock.prototxt"), str(tmp_path / "weights.caffemodel"))
    theirs.setInput(images)
    np.testing.assert_allclose(ours, theirs.forward(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("name", STAGED)
def test_upstreams_caffe_proto_reads_the_stock_export(name):
    """Upstream's caffe.proto does not have our messages."""
    source = ROOT / "build" / "caffe-source" / "src" / "caffe" / "proto"
    if not source.is_dir():
        pytest.skip("no Caffe source in build/")
    for deploy in (False, True):
        param = nets.build(STAGED[name])
        param = stock.export(derive.deploy(param) if deploy else param)
        assert not {layer.type for layer in param.layer} & {"LReLU", "CropData"}
        done = subprocess.run(
            ["protoc", "--encode=caffe.NetParameter", f"--proto_path={source}", "caffe.proto"],
            input=nets.to_text(param).encode(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
