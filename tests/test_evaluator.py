"""Evaluation through CropData, compared with crops in numpy and a net that is fed by hand."""

import caffe
import lmdb
import numpy as np
import pytest

from tiny_imagenet.data import datum, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation.evaluator import Evaluator
from tiny_imagenet.models import derive, nets
from tiny_imagenet.runs import Run

OFFSETS = ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))  # of 56x56 crops in 64x64


@pytest.fixture(scope="module")
def run(trained):
    return Run(trained)


@pytest.fixture(scope="module")
def expected(run, data):
    """Probabilities (40, 10 crops, 10) of the validation split, by a deploy net that numpy feeds."""
    net = caffe.Net(derive.deploy(nets.read(run.train_val)), caffe.TEST, weights=run.weights())
    mean = datum.read_mean(run.mean)
    rows = []
    for _, _, image in lmdb_reader.records(data / "val.lmdb"):
        crops = [(image - mean)[:, top : top + 56, left : left + 56] for top, left in OFFSETS]
        crops += [crop[:, :, ::-1] for crop in crops]
        net.blobs["data"].reshape(10, 3, 56, 56)
        rows.append(net.forward(data=np.stack(crops))["prob"].astype(np.float64))
    return np.array(rows)


def evaluator(run, data, **options):
    return Evaluator(nets.read(run.train_val), data / "val.lmdb", run.mean, run.weights(), **options)


@pytest.mark.parametrize(
    ("batch", "ten_crop"), [(1, False), (7, False), (40, False), (64, False), (7, True), (None, True)]
)
def test_every_record_is_predicted_once_in_order(run, data, expected, batch, ten_crop):
    made = evaluator(run, data, batch=batch, ten_crop=ten_crop)
    calls = []
    given = made(between=lambda: calls.append(1))
    records = list(lmdb_reader.records(data / "val.lmdb"))
    assert given.keys.tolist() == [key for key, _, _ in records]
    assert given.labels.tolist() == [label for _, label, _ in records]
    assert given.probabilities.dtype == np.float32 and made.classes == 10
    want = expected.mean(axis=1) if ten_crop else expected[:, 4]
    np.testing.assert_allclose(given.probabilities, want, rtol=1e-4, atol=1e-7)
    assert len(calls) == made.batches == -(-40 // (batch or 5))
    np.testing.assert_array_equal(made().probabilities, given.probabilities)  # again, from the start


@pytest.mark.parametrize("ten_crop", [False, True])
def test_shares_of_the_batches_are_parts_of_the_whole(run, data, ten_crop):
    made = evaluator(run, data, batch=7, ten_crop=ten_crop)
    whole = made()
    assert made.batches == 6
    for batches in (range(4, 6), range(2), range(2, 4), range(3, 3)):
        part = made(batches)
        records = slice(batches.start * 7, min(batches.stop * 7, 40))
        assert part.keys.tolist() == whole.keys[records].tolist()
        assert part.labels.tolist() == whole.labels[records].tolist()
        np.testing.assert_array_equal(part.probabilities, whole.probabilities[records])


def test_weights_of_another_net_are_shared(run, data):
    param = nets.read(run.train_val)
    other = caffe.Net(derive.deploy(param), caffe.TEST, weights=run.weights())
    made = Evaluator(param, data / "val.lmdb", run.mean, other)
    np.testing.assert_array_equal(made().probabilities, evaluator(run, data)().probabilities)
    other.params["fc3"][0].data[...] = 0
    assert np.ptp(made().probabilities) < np.ptp(evaluator(run, data)().probabilities)


def test_the_transformation_is_that_of_the_file(run, data):
    param = nets.read(run.train_val)
    for layer in param.layer:
        if layer.type in nets.LMDB_TYPES:
            layer.transform_param.ClearField("mean_file")
            layer.transform_param.mean_value.append(100)
            layer.transform_param.scale = 0.5
    made = Evaluator(param, data / "val.lmdb", run.mean, run.weights())
    made.net.forward()
    image = made.records.image(0)[:, 4:60, 4:60]
    np.testing.assert_array_equal(made.net.blobs["data"].data[0], (np.float32(image) - 100) * 0.5)


def test_an_exception_between_batches_stops(run, data):
    made = evaluator(run, data, batch=7)
    calls = []

    def stop():
        calls.append(1)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        made(between=stop)
    assert calls == [1]
    assert len(made().keys) == 40


def test_what_does_not_fit_is_refused(run, data, tmp_path):
    param = nets.read(run.train_val)
    with pytest.raises(DatasetError, match="none.lmdb"):
        Evaluator(param, tmp_path / "none.lmdb", run.mean, run.weights())
    with pytest.raises(NetError, match="none.binaryproto"):
        Evaluator(param, data / "val.lmdb", tmp_path / "none.binaryproto", run.weights())
    with pytest.raises(NetError, match="none.caffemodel"):
        Evaluator(param, data / "val.lmdb", run.mean, tmp_path / "none.caffemodel")
    next(layer for layer in param.layer if layer.name == "fc3").name = "fc4"
    net = caffe.Net(derive.deploy(nets.read(run.train_val)), caffe.TEST)
    for layer in param.layer:
        layer.bottom[:] = [bottom.replace("fc4", "fc3") for bottom in layer.bottom]
    for weights in (run.weights(), net):
        with pytest.raises(NetError, match="fc4"):
            Evaluator(param, data / "val.lmdb", run.mean, weights)


def test_a_record_of_another_size_is_named(run, tmp_path):
    with lmdb.open(str(tmp_path / "odd.lmdb"), map_size=1 << 20) as file, file.begin(write=True) as transaction:
        transaction.put(b"00000000_a", datum.encode(np.zeros((3, 64, 64), np.uint8), 1))
        transaction.put(b"00000001_b", datum.encode(np.zeros((3, 32, 64), np.uint8), 1))
    made = Evaluator(nets.read(run.train_val), tmp_path / "odd.lmdb", run.mean, run.weights(), batch=1)
    with pytest.raises(DatasetError, match="00000001_b"):
        made()


def test_a_net_that_diverged_gives_what_it_computes(run, data):
    made = evaluator(run, data)
    made.net.params["fc3"][0].data[...] = np.nan
    assert not np.isfinite(made().probabilities).all()
