import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import derive, nets, solvers, zoo
from tiny_imagenet.runs import Run

SMALL = [name for name in zoo.MODELS if name not in ("model7", "model8", "model9")]


@pytest.mark.parametrize("name", SMALL)
def test_caffe_counts_the_parameters_that_the_row_says(name, tmp_path):
    net = build(zoo.MODELS[name], tmp_path)
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == zoo.MODELS[name].parameters


@pytest.mark.parametrize("name", ["model7", "model9"])
def test_the_large_nets_build_with_narrow_hidden_layers(name, tmp_path):
    """Their fully connected layers alone are hundreds of megabytes; the rest is built as it is."""
    model = zoo.MODELS[name].replace(hidden=(8, 8))
    net = build(model, tmp_path)
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == model.parameters
    assert [layer for layer in net.params if layer.startswith(("conv", "fc"))] == [
        *(conv.name for stage in model.stages for conv in stage),
        *(name for name, _ in model.fully_connected),
    ]


def build(model, folder):
    path = folder / "deploy.prototxt"
    path.write_text(nets.to_text(derive.deploy(nets.build(model))))
    return caffe.Net(str(path), caffe.TEST)


def types(net, phase=None):
    return [
        layer.type
        for layer in net.layer
        if phase is None or not layer.include or any(rule.phase == phase for rule in layer.include)
    ]


def test_the_layers_of_model6_in_order():
    block = ["Convolution", "LReLU", "Convolution", "LReLU"]
    stages = [*block, "Pooling", *block, "Pooling", *block, "Dropout", "Pooling"]
    head = ["InnerProduct", "ReLU", "Dropout", "InnerProduct"]
    expected = ["CropData", "Power", *stages, *head, "SoftmaxWithLoss"]
    assert types(nets.build(zoo.MODELS["model6"]), caffe.TRAIN) == expected


def test_only_models_4_6_7_and_8_drop_out_after_the_convolutions():
    dropped = {name for name, row in zoo.MODELS.items() if "drop_conv3" in [la.name for la in nets.build(row).layer]}
    assert dropped == {"model4", "model6", "model7", "model8"}


def test_training_crops_at_random_and_mirrors_and_validation_does_not():
    net = nets.build(zoo.MODELS["model8"])
    train, val = (layer for layer in net.layer if layer.type == "CropData")
    sources = [nets.data_param(layer).source for layer in (train, val)]
    assert sources == ["data/train_screened.lmdb", "data/val.lmdb"]
    assert (train.transform_param.mirror, val.transform_param.mirror) == (True, False)
    assert train.transform_param.crop_size == val.transform_param.crop_size == 56
    assert train.crop_data_param.batch_size == 200
    assert train.crop_data_param.draw == caffe_pb2.CropDataParameter.UNIFORM
    ten = nets.build(zoo.MODELS["model8"].replace(draw="TEN_CROP"))
    assert ten.layer[0].crop_data_param.draw == caffe_pb2.CropDataParameter.TEN_CROP


def test_a_deploy_net_gives_probabilities_for_any_number_of_images(tmp_path):
    net = build(zoo.MODELS["model1"].replace(classes=10), tmp_path)
    net.blobs["data"].reshape(3, 3, 56, 56)
    net.reshape()
    net.blobs["data"].data[...] = np.random.default_rng(1).normal(size=(3, 3, 56, 56))
    prob = net.forward()["prob"]
    assert prob.shape == (3, 10)
    np.testing.assert_allclose(prob.sum(axis=1), 1, rtol=1e-5)


def test_solvers_hold_the_values_of_their_rows():
    solver = solvers.build(zoo.MODELS["model8"])
    assert solver.base_lr == np.float32(0.02)
    assert solver.weight_decay == np.float32(1e-4)
    assert (solver.max_iter, solver.test_iter[0], solver.test_interval) == (50_000, 100, 500)


def test_a_typo_is_found_with_its_place(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('name: "x"\nlayer {\n  nam: "y"\n}\n')
    with pytest.raises(NetError, match=r"net\.prototxt:3:\d+: .*nam"):
        nets.read(path)
    path.write_text("")
    with pytest.raises(NetError, match="no layers"):
        nets.read(path)
    with pytest.raises(NetError, match="cannot read"):
        nets.read(tmp_path / "missing.prototxt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NetError, match="no text"):
        nets.read(path)


def test_the_last_layer_is_found_and_changed():
    net = nets.build(zoo.MODELS["model3"])
    assert (nets.classifier(net).name, nets.outputs(net)) == ("fc3", 200)
    nets.set_outputs(net, 7)
    assert nets.outputs(net) == 7
    assert nets.nonlinearity(nets.build(zoo.MODELS["model5"])) == "PReLU"


def test_a_run_trained_by_hand_is_read_by_opencv_too(trained):
    """The weights file is Caffe's own format, LReLU or not."""
    assert caffe.Net(str(Run(trained).deploy), caffe.TEST, weights=str(Run(trained).weights())).params["fc3"]
