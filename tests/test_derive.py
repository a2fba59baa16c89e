"""Deploy and evaluation nets derived from train_val nets."""

import caffe
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

from tiny_imagenet.errors import NetError
from tiny_imagenet.models import derive, nets, zoo

DATA = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 6 mirror: true mean_file: "a" } data_param { source: "train" batch_size: 2 } }
layer { name: "data" type: "CropData" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 6 mean_file: "a" } crop_data_param { source: "val" batch_size: 2 } }
"""
FC = """
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'


def net(text, name="n"):
    return text_format.Parse(text, caffe_pb2.NetParameter(name=name))


def derived(text):
    """The deploy net of a prototxt, which Caffe can build, as [(type, bottoms, tops)]."""
    result = derive.deploy(net(text))
    built = caffe.Net(result, caffe.TEST)
    assert built.inputs == list(result.layer[0].top) and built.outputs == list(result.layer[-1].top)
    evaluated = derive.evaluation(net(text), "val", "mean", 5)
    assert list(evaluated.layer)[1:] == list(result.layer)[1:]
    return [(layer.type, list(layer.bottom), list(layer.top)) for layer in result.layer]


USUAL = [("Input", [], ["data"]), ("InnerProduct", ["data"], ["fc"]), ("Softmax", ["fc"], ["prob"])]


@pytest.mark.parametrize("name", zoo.MODELS)
def test_a_model_has_the_deploy_net_of_its_row(name):
    for stage in zoo.get(name).training_stages:
        deploy = derive.deploy(nets.build(stage))
        assert list(deploy.layer[0].input_param.shape[0].dim) == [1, 3, stage.crop, stage.crop]
        assert deploy.layer[-1].type == "Softmax" and nets.outputs(deploy) == stage.classes
        assert derive.deploy(deploy) == deploy
        train_val = nets.build(stage)
        types = [
            layer.type for layer in train_val.layer if layer.type not in ("CropData", "SoftmaxWithLoss", "Accuracy")
        ]
        assert [layer.type for layer in deploy.layer] == ["Input", *types, "Softmax"]


@pytest.mark.parametrize(
    "text",
    [
        DATA + FC + LOSS,
        DATA + FC + LOSS + 'layer { type: "Accuracy" name: "a" bottom: "fc" bottom: "label" include { phase: TEST } }',
        DATA.replace('top: "label"', 'top: "class"') + FC + LOSS.replace("label", "class"),
        DATA[: DATA.index("layer", 20)] + FC + LOSS,  # the data layer of TRAIN alone
        DATA.replace("include { phase: TRAIN }", "exclude { phase: TEST }") + FC + LOSS,
        DATA + FC + LOSS.replace("top:", "include { phase: TRAIN } top:"),  # no head in the TEST phase
        DATA + FC + LOSS.replace("top:", "exclude { stage: 'x' } top:"),
        DATA + FC + LOSS + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }',
        DATA
        + FC
        + LOSS.replace("top:", "include { phase: TRAIN } top:")
        + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" include { phase: TEST } }'
        + 'layer { name: "a" type: "Accuracy" bottom: "prob" bottom: "label" include { phase: TEST } }',
        DATA + 'layer { name: "s" type: "Silence" bottom: "label" }' + FC + LOSS,
        DATA
        + 'layer { name: "aux" type: "InnerProduct" bottom: "data" top: "aux" inner_product_param { num_output: 9 } }'
        + 'layer { name: "loss1" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" loss_weight: 0.3 }'
        + FC
        + LOSS,
    ],
)
def test_what_only_leads_to_losses_is_left_out(text):
    assert derived(text) == USUAL


def test_in_place_layers_are_kept_up_to_the_loss():
    relu = 'layer { name: "%s" type: "ReLU" bottom: "fc" top: "fc" }'
    found = derived(DATA + FC + relu % "before" + LOSS + relu % "after")
    assert found == [*USUAL[:2], ("ReLU", ["fc"], ["fc"]), USUAL[2]]


def test_an_output_that_nothing_reads_is_silenced():
    text = DATA + 'layer { name: "s" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { slice_point: 1 } }'
    text += FC.replace('bottom: "data"', 'bottom: "a"') + LOSS
    text += 'layer { name: "e" type: "EuclideanLoss" bottom: "b" bottom: "b" }'
    assert ("Silence", ["b"], []) in derived(text)


def test_names_that_are_taken_get_another():
    text = DATA + FC.replace("fc", "prob") + LOSS.replace("fc", "prob")
    assert derived(text)[-1] == ("Softmax", ["prob"], ["prob_"])
    text = (
        DATA.replace("label", "class")
        + FC.replace("fc", "label")
        + LOSS.replace("label", "class").replace("fc", "label")
    )
    assert list(derive.evaluation(net(text), "val", None, 1).layer[0].top) == ["data", "label_", "record"]


def test_old_formats_are_read_as_caffe_reads_them():
    old = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 6 input_dim: 6 '
    old += 'layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc" inner_product_param { num_output: 4 } }'
    old += 'layers { name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }'
    assert derived(old) == USUAL
    loss = LOSS.replace("layer", "layers").replace('"SoftmaxWithLoss"', "SOFTMAX_LOSS")
    data = DATA[: DATA.index("layer", 20)].replace("layer", "layers").replace('"Data"', "DATA")
    fc = FC.replace("layer", "layers").replace('"InnerProduct"', "INNER_PRODUCT")
    assert derived(data + fc + loss) == USUAL


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (DATA + FC, "Softmax"),
        (DATA + FC + LOSS.replace("SoftmaxWithLoss", "HingeLoss"), "Softmax"),
        (FC + LOSS, "'data'"),
        (DATA + FC.replace('"data"', '"dat"') + LOSS, "'dat'"),
        (
            DATA
            + 'layer { name: "sum" type: "Eltwise" bottom: "data" bottom: "label" top: "sum" }'
            + FC.replace('"data"', '"sum"')
            + LOSS,
            "2: data, label",
        ),
        (
            DATA + FC + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
            'layer { name: "s" type: "Sigmoid" bottom: "prob" top: "s" }',
            "Softmax",
        ),
    ],
)
def test_a_net_without_one_input_or_a_softmax_is_refused(text, named):
    for derivation in (derive.deploy, lambda given: derive.evaluation(given, "val", None, 1)):
        with pytest.raises(NetError, match=named):
            derivation(net(text))


def test_the_mean_replaces_a_mean_file_only():
    def transform(text, mean):
        return derive.evaluation(net(text + FC + LOSS), "val", mean, 1).layer[0].transform_param

    assert transform(DATA, "b").mean_file == "b" and transform(DATA, None).mean_file == "a"
    values = transform(DATA.replace('mean_file: "a"', "mean_value: 7 scale: 2"), "b")
    assert (values.mean_file, list(values.mean_value), values.scale) == ("", [7], 2)
    deploy = derive.deploy(net(DATA + FC + LOSS))
    first = derive.evaluation(deploy, "val", "b", 3, ten_crop=True).layer[0]
    assert (first.transform_param.mean_file, first.transform_param.crop_size) == ("b", 6)
    assert first.crop_data_param.batch_size == 30


def test_the_scores_are_those_of_the_test_phase(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), np.uint8)
    with lmdb.open(str(tmp_path / "val.lmdb"), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for i, picture in enumerate(pictures):
            datum = caffe_pb2.Datum(channels=3, height=8, width=8, data=picture.tobytes(), label=i)
            transaction.put(f"{i:08d}_x".encode(), datum.SerializeToString())
    path = str(tmp_path / "val.lmdb")
    text = DATA.replace('mean_file: "a"', "mean_value: 100 scale: 0.01").replace('"val"', f'"{path}"') + FC
    text += 'layer { name: "drop" type: "Dropout" bottom: "fc" top: "fc" }' + LOSS
    whole = caffe.Net(net(text), caffe.TEST)
    evaluated = caffe.Net(derive.evaluation(net(text), path, None, 3), caffe.TEST)
    deployed = caffe.Net(derive.deploy(net(text)), caffe.TEST)
    for other in (evaluated, deployed):
        other.share_with(whole)
    whole.forward()
    found = evaluated.forward()
    scores = np.exp(whole.blobs["fc"].data - whole.blobs["fc"].data.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found["prob"][:2], scores / scores.sum(axis=1, keepdims=True), rtol=1e-5)
    assert (found["label"].tolist(), found["record"].tolist()) == ([0, 1, 2], [0, 1, 2])
    deployed.blobs["data"].reshape(3, 3, 6, 6)
    prob = deployed.forward(data=(pictures[:, :, 1:7, 1:7] - np.float32(100)) * np.float32(0.01))["prob"]
    np.testing.assert_allclose(prob, found["prob"], rtol=1e-5)


def test_without_a_crop_size_the_pictures_are_measured(tmp_path):
    text = DATA.replace("crop_size: 6", "").replace("val", str(tmp_path / "none.lmdb")) + FC + LOSS
    with pytest.raises(NetError, match="crop_size"):
        derive.deploy(net(text))
    with lmdb.open(str(tmp_path / "none.lmdb"), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        datum = caffe_pb2.Datum(channels=2, height=8, width=9, data=bytes(144))
        transaction.put(b"0", datum.SerializeToString())
    assert list(derive.deploy(net(text)).layer[0].input_param.shape[0].dim) == [1, 2, 8, 9]
