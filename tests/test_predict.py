"""Predictions beside OpenCV's and numpy's; the thread that reads ahead; image files to classes."""

import contextlib
import json
import shutil
import threading
import time

import caffe
import cv2
import numpy as np
import pytest

from conftest import wait_for
from tiny_imagenet.data import datum, images, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation import classify, evaluate, predict, predictions
from tiny_imagenet.evaluation.ahead import ahead
from tiny_imagenet.export import stock
from tiny_imagenet.models import nets, zoo
from tiny_imagenet.runs import Run

OFFSETS = {"top left": (0, 0), "top right": (0, 8), "bottom left": (8, 0), "bottom right": (8, 8), "centre": (4, 4)}


@pytest.fixture(scope="module")
def stock_net(tmp_path_factory):
    """Deploy prototxt and caffemodel of a small net of upstream's types alone, with random weights."""
    folder = tmp_path_factory.mktemp("stock")
    model = zoo.get("model1").replace(convs="5-8 | 5-8 | 5-16 |", hidden=(32,), classes=10)
    param = stock.export(nets.build(model, deploy=True))
    (folder / "deploy.prototxt").write_text(nets.to_text(param))
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    rng = np.random.default_rng(4)
    for blobs in net.params.values():
        for blob in blobs:
            fan_in = blob.data[0].size if blob.data.ndim > 1 else 100
            blob.data[...] = rng.normal(scale=np.sqrt(2 / fan_in), size=blob.data.shape)
    net.save(str(folder / "weights.caffemodel"))
    return folder / "deploy.prototxt", folder / "weights.caffemodel"


@pytest.fixture(scope="module")
def opencv(stock_net, data, dataset):
    """Softmax outputs of OpenCV's dnn for each validation image file, in order, for each of the ten crops."""
    net = cv2.dnn.readNetFromCaffe(*map(str, stock_net))
    mean = datum.read_mean(data / "mean.binaryproto").transpose(1, 2, 0)
    outputs = []
    for path in sorted((dataset / "val" / "images").iterdir(), key=lambda path: path.name):
        image = cv2.imread(str(path)).astype(np.float32) - mean
        crops = [image[top : top + 56, left : left + 56] for top, left in OFFSETS.values()]
        crops += [cv2.flip(crop, 1) for crop in crops]
        net.setInput(cv2.dnn.blobFromImages(crops))
        outputs.append(net.forward().astype(np.float64))
    return np.array(outputs)


@pytest.mark.parametrize("ten_crop", [False, True])
def test_a_stock_net_gives_what_opencv_gives_over_the_validation_split(stock_net, data, opencv, tmp_path, ten_crop):
    out = tmp_path / "p.npz"
    result = evaluate.evaluate_files(data, *stock_net, out=out, ten_crop=ten_crop)
    given = predictions.load(out)
    want = opencv.mean(axis=1) if ten_crop else opencv[:, list(OFFSETS).index("centre")]
    assert [key.split("_", 1)[1] for key in given.keys] == sorted(key.split("_", 1)[1] for key in given.keys)
    assert np.ptp(want, axis=0).max() > 0.2  # or nothing would be compared
    np.testing.assert_allclose(given.probabilities, want, rtol=2e-4, atol=2e-6)
    assert np.abs(opencv.mean(axis=1) - opencv[:, 4]).max() > 0.01  # the two are not the same
    assert result["top1"] == np.mean(want.argmax(axis=1) == given.labels)
    assert result["crops"] == given.meta["crops"] == predict.CROPS[ten_crop]


def test_ten_crops_are_the_corners_the_centre_and_their_mirrors(stock_net, data):
    predictor = predict.Predictor(stock_net[0], data / "mean.binaryproto", stock_net[1], ten_crop=True)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64)).astype(np.uint8)
    inputs = predictor.prepare(images)
    assert inputs.shape == (10, 3, 3, 56, 56) and inputs.dtype == np.float32
    exact = images.astype(np.float64) - predictor.mean
    for number, (top, left) in enumerate(OFFSETS.values()):
        want = exact[:, :, top : top + 56, left : left + 56]
        np.testing.assert_allclose(inputs[number], want, atol=2e-5)
        np.testing.assert_allclose(inputs[5 + number], want[..., ::-1], atol=2e-5)
    each = [predictor.forward(one[None]) for one in inputs]
    np.testing.assert_allclose(predictor(images), np.mean(each, axis=0), rtol=1e-5, atol=1e-7)
    symmetric = np.concatenate([images[..., :32], images[..., 31::-1]], axis=3)
    predictor.mean[:] = 0
    np.testing.assert_allclose(
        predictor(symmetric), predictor(np.ascontiguousarray(symmetric[..., ::-1])), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("batch", [1, 7, 40, 64])
def test_any_batch_sees_every_record_once_in_order(stock_net, data, batch):
    predictor = predict.Predictor(stock_net[0], data / "mean.binaryproto", stock_net[1], batch)
    calls = []
    given = predict.predict(predictor, data / "val.lmdb", between=lambda: calls.append(1))
    records = list(lmdb_reader.records(data / "val.lmdb"))
    assert given.keys.tolist() == [key for key, _, _ in records]
    assert given.labels.tolist() == [label for _, label, _ in records]
    assert len(calls) == -(-40 // batch)
    one = predict.Predictor(stock_net[0], data / "mean.binaryproto", stock_net[1])
    np.testing.assert_allclose(
        given.probabilities, one(np.stack([image for _, _, image in records])), rtol=1e-4, atol=1e-7
    )


def test_what_is_raised_between_batches_ends_the_prediction_and_its_thread(stock_net, data):
    predictor = predict.Predictor(stock_net[0], data / "mean.binaryproto", stock_net[1], 1)
    threads = set(threading.enumerate())

    def stop():
        raise InterruptedError("stop")

    with pytest.raises(InterruptedError):
        predict.predict(predictor, data / "val.lmdb", between=stop)
    assert threads.issuperset(threading.enumerate())
    assert len(predict.predict(predictor, data / "val.lmdb", between=lambda: None).keys) == 40


def test_a_record_of_another_size_is_named(stock_net, data, tmp_path):
    import lmdb

    with lmdb.open(str(tmp_path / "odd.lmdb"), map_size=1 << 20) as file, file.begin(write=True) as transaction:
        transaction.put(b"00000000_a.JPEG", datum.encode(np.zeros((3, 64, 64), np.uint8), 1))
        transaction.put(b"00000001_b.JPEG", datum.encode(np.zeros((3, 32, 64), np.uint8), 1))
    predictor = predict.Predictor(stock_net[0], data / "mean.binaryproto", stock_net[1], 1)
    with pytest.raises(DatasetError, match=r"record 00000001_b\.JPEG: shape \(3, 32, 64\) is not"):
        predict.predict(predictor, tmp_path / "odd.lmdb")


# --- a thread that is ahead ---


def test_ahead_gives_all_in_order_and_raises_in_turn():
    assert list(ahead(range(100))) == list(range(100))
    assert list(ahead([])) == []
    taken = []

    def items():
        yield 1
        yield 2
        raise ValueError("third")

    with pytest.raises(ValueError, match="third"):
        taken.extend(ahead(items()))
    got = ahead(items())
    assert [next(got), next(got)] == [1, 2]
    got.close()


def test_ahead_is_a_few_items_ahead_and_ends_when_closed():
    made, threads = [], set(threading.enumerate())

    def items():
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            made.append("closed")

    with contextlib.closing(ahead(items(), depth=2)) as ready:
        assert next(ready) == 0
        wait_for(lambda: len(made) >= 4)
        time.sleep(0.05)  # it could make more by now
        assert made == [0, 1, 2, 3]  # one is used, two are ready, one waits for room
    assert threads.issuperset(threading.enumerate())
    assert len(made) < 8


# --- image files ---


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, dataset):
    """A folder of images of several kinds and sizes, one of them no image."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    (folder / ".hidden").mkdir()
    original = cv2.imread(str(dataset / "val" / "images" / "val_3.JPEG"))
    cv2.imwrite(str(folder / "a.png"), original)
    cv2.imwrite(str(folder / "below" / "large.png"), cv2.resize(original, (200, 150)))
    cv2.imwrite(str(folder / "grey.JPG"), cv2.cvtColor(original, cv2.COLOR_BGR2GRAY))
    (folder / "broken.jpeg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    cv2.imwrite(str(folder / ".hidden" / "b.png"), original)
    return folder


def test_a_folder_is_its_images_in_order(pictures):
    found = list(classify.image_files([pictures]))
    assert found == [(str(pictures / name), "") for name in ("a.png", "below/large.png", "broken.jpeg", "grey.JPG")]
    (path, problem), (named, none) = classify.image_files(["x.txt", pictures / "y.txt"])
    assert (path, problem, named, none) == ("x.txt", "", str(pictures / "y.txt"), "")  # what is named is tried


def test_a_folder_without_images_is_told(tmp_path):
    assert "has no image: its name must end in one of .jpeg, .jpg, .png" in next(classify.image_files([tmp_path]))[1]


def test_images_are_classified_as_their_arrays_are(trained, pictures):
    run = Run(trained)
    names = classify.class_names(run)
    assert names[3] == ("n00000003", "three")
    predictor = classify.open_run(run)
    outcomes = list(classify.classify(predictor, [pictures, pictures / "notes.txt"], names, top=3))
    assert [bool(outcome.error) for outcome in outcomes] == [False, False, True, False, True]
    for outcome in outcomes:
        if outcome.error:
            assert outcome.guesses == [] and outcome.path in outcome.error and "unpack" not in outcome.error
            continue
        image = images.read_image(outcome.path, resize=True)
        row = predictor(image.transpose(2, 0, 1)[None])[0]
        order = sorted(range(10), key=lambda index: -row[index])[:3]
        assert [guess.index for guess in outcome.guesses] == order
        assert [guess.probability for guess in outcome.guesses] == pytest.approx(row[order].tolist(), rel=1e-4)
        assert [guess[1:3] for guess in outcome.guesses] == [names[index] for index in order]


def test_a_file_of_the_validation_split_has_the_probabilities_of_its_record(trained, data, dataset):
    given = evaluate.predict_run(Run(trained), data, ten_crop=True)
    place = [key.endswith("_val_3.JPEG") for key in given.keys].index(True)
    predictor = classify.open_run(Run(trained), ten_crop=True)
    names = classify.class_names(Run(trained))
    (outcome,) = classify.classify(predictor, [dataset / "val" / "images" / "val_3.JPEG"], names, top=99)
    row = {guess.index: guess.probability for guess in outcome.guesses}
    assert [row[index] for index in range(10)] == pytest.approx(given.probabilities[place].tolist(), rel=1e-4)


def test_the_script_prints_a_line_an_image_and_class(tool, trained, pictures):
    done = tool("predict", trained, "--top", 2, pictures / "broken.jpeg", pictures / "a.png", "none.png", fails=1)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith(f"{pictures / 'a.png'} ") for line in lines)
    assert lines[0].split()[2] == "%" and lines[0].split()[3].startswith("n0000000")
    assert float(lines[0].split()[1]) >= float(lines[1].split()[1])
    errors = done.stderr.splitlines()
    assert (
        len(errors) == 2
        and "broken.jpeg: it is " in errors[0]
        and errors[1].endswith("none.png: No such file or directory")
    )


def test_the_script_prints_one_json_object(tool, trained, pictures, data):
    result = json.loads(tool("predict", trained, pictures / "a.png", "--json", "--top", 99, "--data", data).stdout)
    (image,) = result["images"]
    assert result["unreadable"] == [] and image["path"] == str(pictures / "a.png") and len(image["classes"]) == 10
    assert sum(entry["probability"] for entry in image["classes"]) == pytest.approx(1, abs=1e-5)
    assert set(image["classes"][0]) == {"index", "wnid", "words", "probability"}


def test_a_run_whose_data_is_gone_has_its_wnids(trained, data, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, symlinks=True)
    info = {**run.info, "data": str(tmp_path / "gone")}
    run.start(info)
    assert classify.class_names(run)[3] == ("n00000003", "")
    assert classify.class_names(run, data)[3] == ("n00000003", "three")
    with pytest.raises(DatasetError, match=r"manifest\.json is missing"):
        classify.class_names(run, tmp_path / "gone")
    run.start({**info, "wnids": info["wnids"][::-1]})
    with pytest.raises(DatasetError, match="other classes"):
        classify.class_names(run, data)


def test_words_that_are_not_known_are_said(tool, trained, pictures, data, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, symlinks=True)
    run.update(data=str(tmp_path / "gone"))
    done = tool("predict", run.path, pictures / "a.png", "--top", 1)
    assert "words of the classes are not known" in done.stderr and "name the data folder with --data" in done.stderr
    known = tool("predict", run.path, pictures / "a.png", "--top", 1, "--data", data)
    assert known.stderr == "" and known.stdout.startswith(done.stdout.rstrip()) and len(known.stdout.split()) == 5
    error = tool("predict", run.path, pictures / "a.png", "--data", tmp_path / "gone", fails=1).stderr
    assert "manifest.json is missing" in error


def test_a_net_that_does_not_fit_is_refused(trained, pictures):
    predictor = classify.open_run(Run(trained))
    with pytest.raises(NetError, match="tells 10 classes apart, the data set has 2"):
        list(classify.classify(predictor, [pictures / "a.png"], [("n1", "one"), ("n2", "two")]))
    predictor.net.params["fc3"][0].data[:] = np.nan
    with pytest.raises(NetError, match="not finite"):
        list(classify.classify(predictor, [pictures / "a.png"], classify.class_names(Run(trained))))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "give a run folder"),
        (["RUN"], 2, "name images or folders"),
        (["RUN", "a.png", "--top", "0"], 2, "'0' is not a whole number of at least 1"),
        (["RUN", "a.png", "--submission", "t.txt"], 2, "no images"),
        (["RUN", "--predictions", "p.npz", "--data", "d", "--submission", "t.txt"], 2, "alone"),
        (["--predictions", "p.npz"], 2, "needs --submission FILE and --data DIR"),
        (["--predictions", "p", "--data", "d", "--submission", "t", "--ten-crop"], 2, "no --checkpoint, --ten-crop or"),
        (["--predictions", "p", "--data", "d", "--submission", "t", "--checkpoint", "last"], 2, "are there already"),
        (["RUN", "--submission", "/"], 2, "/ is a folder: name a file in it"),
        (["RUN", "--submission", "PHOTO"], 2, "a.png is there and is something else: name another file"),
        (["PHOTO", "RUN"], 2, "a.png is a file: the run folder comes first, then the images"),
        (["photo.png"], 2, "photo.png is taken for the run folder: name images or folders behind it"),
        (["RUN", "--submission", "t.txt", "--top", "3"], 2, "no images, no --top"),
        (["RUN", "a.png", "--gpu", "0,1"], 2, "'0,1' is not the number of one GPU"),
        (["RUN", "a.png", "--data", "nowhere"], 1, "nowhere/manifest.json is missing"),
        (["nowhere", "a.png"], 1, "no such run folder"),
        (["RUN", "a.png", "--checkpoint", "7"], 1, "no checkpoint '7': it has best, last, 10, 20"),
    ],
)
def test_the_script_refuses_in_one_line(tool, trained, pictures, arguments, status, message):
    named = {"RUN": trained, "PHOTO": pictures / "a.png"}
    arguments = [named.get(argument, argument) for argument in arguments]
    done = tool("predict", *arguments, fails=status)
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
