"""caffe.LmdbRecords, caffe.crop_image and the fields of caffe.CaffeError."""

import caffe
import cv2
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2

from tiny_imagenet.data import datum

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 12, 10), np.uint8)


@pytest.fixture
def path(tmp_path):
    """An LMDB of a raw Datum, a PNG, a damaged record and a Datum of floats."""
    png = cv2.imencode(".png", IMAGES[1].transpose(1, 2, 0))[1].tobytes()
    floats = caffe_pb2.Datum(channels=1, height=1, width=1, label=1, float_data=[0.5])
    values = {
        b"0_a": datum.encode(IMAGES[0], 7),
        b"1_b\xff": caffe_pb2.Datum(data=png, encoded=True, label=-1).SerializeToString(),
        b"2_c": b"\xff",
        b"3_d": floats.SerializeToString(),
    }
    with lmdb.open(str(tmp_path / "l.lmdb"), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key, value)
    return tmp_path / "l.lmdb"


def test_records_are_those_of_the_lmdb(path):
    records = caffe.LmdbRecords(path)
    assert len(records) == 4
    assert [records.key(i) for i in range(4)] == ["0_a", "1_b\udcff", "2_c", "3_d"]
    assert [records.label(i) for i in (0, 1, 3)] == [7, -1, 1]
    for i in range(2):
        assert records.image(i).dtype == np.uint8
        np.testing.assert_array_equal(records.image(i), IMAGES[i])


def test_a_record_that_cannot_be_read_is_named(path, tmp_path):
    records = caffe.LmdbRecords(str(path))
    for number, key in ((2, "2_c"), (3, "3_d")):
        with pytest.raises(caffe.CaffeError, match=key):
            records.image(number)
    for number in (-1, 4):
        with pytest.raises(IndexError, match=str(number)):
            records.key(number)
    with pytest.raises(caffe.CaffeError, match="nowhere"):
        caffe.LmdbRecords(tmp_path / "nowhere")


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("mean", ["image", "values", None])
def test_crops_are_those_of_numpy(interleaved, mean):
    image = np.ascontiguousarray(IMAGES[0].transpose(1, 2, 0)).transpose(2, 0, 1) if interleaved else IMAGES[0]
    mean = {"image": IMAGES[1] / np.float32(7), "values": np.float32([1.5, 2, 3]), None: None}[mean]
    centred = np.float32(image) - (0 if mean is None else mean.reshape(3, *mean.shape[1:] or (1, 1)))
    centred *= np.float32(0.25)
    (centre,) = caffe.crop_image(image, 6, mean, scale=0.25)
    assert centre.dtype == np.float32
    np.testing.assert_array_equal(centre, centred[:, 3:9, 2:8])
    crops = [centred[:, top : top + 6, left : left + 6] for top, left in ((0, 0), (0, 4), (6, 0), (6, 4), (3, 2))]
    crops += [crop[:, :, ::-1] for crop in crops]
    np.testing.assert_array_equal(caffe.crop_image(image, 6, mean, scale=0.25, ten_crop=True), crops)


@pytest.mark.parametrize(
    "arguments", [(IMAGES[0], 11), (IMAGES[0], 0), (np.float32(IMAGES[0]), 6), (IMAGES, 6), (IMAGES[0], 6, [1, 2])]
)
def test_an_image_that_cannot_be_cropped_is_refused(arguments):
    with pytest.raises(caffe.CaffeError):
        caffe.crop_image(*arguments)


def test_an_error_names_its_place_and_layer(tmp_path):
    path = tmp_path / "net.prototxt"

    def error_of(text):
        path.write_text(text)
        with pytest.raises(caffe.CaffeError) as caught:
            caffe.Net(path, caffe.TEST)
        error = caught.value
        return error.file, error.line, error.column, error.layer

    inputs = 'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 1 dim: 2 } } }\n'
    assert error_of('name: "n"\nlayer {\n  nam: "x"\n}') == (str(path), 3, 6, None)
    for layer in (
        'type: "InnerProduct" bottom: "a" top: "b"',  # set up
        'type: "ReLU" bottom: "none" top: "b"',
        'type: "ReLU" bottom: "a" top: "in" top: "c"',
        'type: "ReLU" bottom: "a" top: "a" param { name: "p" }',
        'type: "Unknown" bottom: "a" top: "b"',
    ):
        assert error_of(f'{inputs}layer {{ name: "wrong" {layer} }}') == (None, None, None, "wrong")
    share = 'layer { name: "%s" type: "InnerProduct" bottom: "a" top: "%s" param { name: "w" }'
    share += " inner_product_param { num_output: %d } }"
    assert error_of(inputs + share % ("one", "b", 3) + share % ("other", "c", 4))[3] == "other"
    assert caffe.CaffeError("x").layer is None


def test_an_error_of_a_forward_pass_names_the_layer():
    param = caffe_pb2.NetParameter()
    param.layer.add(name="in", type="Input", top=["a"]).input_param.shape.add(dim=[2, 3])
    param.layer.add(name="fc", type="InnerProduct", bottom=["a"], top=["b"]).inner_product_param.num_output = 2
    net = caffe.Net(param, caffe.TEST)
    net.blobs["a"].reshape(2, 4)
    with pytest.raises(caffe.CaffeError) as caught:
        net.forward()
    assert caught.value.layer == "fc"
