import caffe
import pytest
from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect import outline
from tiny_imagenet.models import derive, nets, solvers, zoo


@pytest.mark.parametrize("name", [*zoo.MODELS, *zoo.VARIANTS])
def test_caffe_counts_the_parameters_of_the_row(name):
    row = zoo.get(name)
    for model in (row, row.replace(batch_norm=True, activation="PReLU", shallow=())):
        made = outline.outline(derive.deploy(nets.build(model)))
        assert made.parameter_count == model.parameters
        weights = [layer.name for layer in made.layers if layer.type in ("Convolution", "InnerProduct")]
        convs = [conv.name for stage in model.stages for conv in stage]
        assert weights == [*convs, *(name for name, _ in model.fully_connected)]


def types(net, phase):
    return [la.type for la in net.layer if not la.include or any(rule.phase == phase for rule in la.include)]


def test_the_layers_of_model6_in_order():
    block = ["Convolution", "LReLU", "Convolution", "LReLU"]
    stages = [*block, "Pooling", *block, "Pooling", *block, "Dropout", "Pooling"]
    head = ["InnerProduct", "ReLU", "Dropout", "InnerProduct"]
    expected = ["CropData", "Power", *stages, *head, "SoftmaxWithLoss"]
    assert types(nets.build(zoo.MODELS["model6"]), caffe.TRAIN) == expected
    assert types(nets.build(zoo.MODELS["model6"]), caffe.TEST) == [*expected, "Accuracy", "Accuracy"]


def test_batch_norm_follows_each_convolution():
    net = nets.build(zoo.MODELS["model1"].replace(batch_norm=True))
    kinds = [layer.type for layer in net.layer]
    starts = [i for i, kind in enumerate(kinds) if kind == "Convolution"]
    assert len(starts) == 3
    assert all(kinds[i : i + 4] == ["Convolution", "BatchNorm", "Scale", "ReLU"] for i in starts)
    assert not any(layer.convolution_param.bias_term for layer in net.layer if layer.type == "Convolution")
    assert nets.nonlinearity(net) == "ReLU"


def test_training_crops_at_random_and_validation_in_the_centre():
    train, val = (layer for layer in nets.build(zoo.MODELS["model8"]).layer if layer.type == "CropData")
    sources = [nets.data_param(layer).source for layer in (train, val)]
    assert sources == ["data/train_screened.lmdb", "data/val.lmdb"]
    assert (train.transform_param.mirror, val.transform_param.mirror) == (True, False)
    assert train.transform_param.crop_size == val.transform_param.crop_size == 56
    assert train.crop_data_param.batch_size == 200
    ten = nets.build(zoo.MODELS["model8"].replace(draw="TEN_CROP"))
    assert ten.layer[0].crop_data_param.draw == caffe_pb2.CropDataParameter.TEN_CROP


def test_solvers_have_the_values_of_their_rows():
    solver = solvers.build(zoo.MODELS["model8"])
    assert (solver.base_lr, solver.weight_decay) == (pytest.approx(0.02), pytest.approx(1e-4))
    assert (solver.max_iter, solver.test_iter[0], solver.test_interval) == (50_000, 100, 500)


def test_a_solver_finds_the_net_beside_it(tmp_path):
    for name in ("original", "copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.prototxt").write_text('layer { name: "x" type: "Silence" }')
    for net in ("net.prototxt", "prototxt/model1/net.prototxt", tmp_path / "original" / "net.prototxt"):
        solver = caffe_pb2.SolverParameter(net=str(net))
        assert solvers.net_path(solver, tmp_path / "copy" / "s.prototxt") == tmp_path / "copy" / "net.prototxt"
    (tmp_path / "copy" / "net.prototxt").unlink()
    assert solvers.net_path(solver, tmp_path / "copy" / "s.prototxt") == tmp_path / "original" / "net.prototxt"
    with pytest.raises(NetError, match=r"no\.prototxt"):
        solvers.net_path(caffe_pb2.SolverParameter(net="no.prototxt"), tmp_path / "s.prototxt")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no layers"),
        ('net: "a" base_lr: 0', "base_lr"),
        ('net: "a" base_lr: 1 max_iter: 0', "max_iter"),
        ("base_lr: 1", "net:"),
    ],
)
def test_an_unusable_file_is_refused(text, named, tmp_path):
    path = tmp_path / "file.prototxt"
    path.write_text(text)
    with pytest.raises(NetError, match=named):
        (solvers if text else nets).read(path)


def test_the_last_layer_is_found_and_changed():
    net = nets.build(zoo.MODELS["model3"])
    assert (nets.classifier(net).name, nets.outputs(net)) == ("fc3", 200)
    nets.set_outputs(net, 7)
    assert nets.outputs(net) == 7
    assert nets.nonlinearity(nets.build(zoo.MODELS["model5"])) == "PReLU"
