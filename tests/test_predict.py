"""Predictions compared with OpenCV's and numpy's; image files to classes."""

import json
import shutil
import struct

import caffe
import cv2
import numpy as np
import pytest

from tiny_imagenet.data import datum, images, lmdb_reader
from tiny_imagenet.errors import DatasetError, NetError
from tiny_imagenet.evaluation import classify, evaluate, predictions
from tiny_imagenet.evaluation.predict import Predictor
from tiny_imagenet.export import stock
from tiny_imagenet.models import derive, nets, zoo
from tiny_imagenet.runs import Run

OFFSETS = {"top left": (0, 0), "top right": (0, 8), "bottom left": (8, 0), "bottom right": (8, 8), "centre": (4, 4)}


@pytest.fixture(scope="module")
def stock_net(tmp_path_factory):
    """Deploy prototxt and caffemodel of a small net of upstream's types alone, with random weights."""
    folder = tmp_path_factory.mktemp("stock")
    model = zoo.get("model1").replace(convs="5-8 | 5-8 | 5-16 |", hidden=(32,), classes=10)
    (folder / "deploy.prototxt").write_text(nets.to_text(stock.export(derive.deploy(nets.build(model)))))
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
    assert result["crops"] == given.meta["crops"] == evaluate.CROPS[ten_crop]


@pytest.mark.parametrize("ten_crop", [False, True])
def test_an_image_in_memory_has_the_probabilities_of_its_record(trained, data, ten_crop):
    run = Run(trained)
    given = evaluate.predict_run(run, data, ten_crop=ten_crop)
    images = np.stack([image for _, _, image in lmdb_reader.records(data / "val.lmdb")])
    for net in (run.train_val, run.deploy):
        predictor = Predictor(nets.read(net), run.mean, run.weights(), ten_crop=ten_crop)
        np.testing.assert_allclose(predictor(images), given.probabilities, rtol=1e-4, atol=1e-7)
    with pytest.raises(DatasetError, match="3 x 32 x 32"):
        predictor(images[:, :, :32, :32])


# --- image files ---


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, dataset):
    """A folder of images of several kinds and sizes, one of them not an image."""
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


def test_a_folder_is_its_images_in_order(pictures, tmp_path):
    found = list(classify.image_files([pictures]))
    assert found == [(str(pictures / name), "") for name in ("a.png", "below/large.png", "broken.jpeg", "grey.JPG")]
    assert list(classify.image_files(["x.txt", pictures / "y.txt"])) == [("x.txt", ""), (str(pictures / "y.txt"), "")]
    ((path, problem),) = classify.image_files([tmp_path])
    assert path == str(tmp_path) and ".jpeg" in problem


def test_images_are_classified_as_their_arrays_are(trained, pictures):
    run = Run(trained)
    names = classify.class_names(run)
    assert names[3] == ("n00000003", "three")
    predictor = classify.open_run(run)
    outcomes = list(classify.classify(predictor, [pictures, pictures / "notes.txt"], names, top=3))
    assert [bool(outcome.error) for outcome in outcomes] == [False, False, True, False, True]
    for outcome in outcomes:
        if outcome.error:
            assert outcome.guesses == [] and outcome.path in outcome.error
            continue
        row = predictor(images.read_image(outcome.path, resize=True).transpose(2, 0, 1)[None])[0]
        order = sorted(range(10), key=lambda index: -row[index])[:3]
        assert [guess.index for guess in outcome.guesses] == order
        assert [guess.probability for guess in outcome.guesses] == pytest.approx(row[order].tolist(), rel=1e-4)
        assert [guess[1:3] for guess in outcome.guesses] == [names[index] for index in order]


@pytest.mark.parametrize("turned", [False, True])
def test_a_photo_is_averaged_and_turned_as_its_camera_was(tmp_path, turned):
    photo = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (1280, 960))
    jpeg = cv2.imencode(".jpg", photo)[1].tobytes()
    if turned:  # Exif orientation 6
        tiff = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
        jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + jpeg[2:]
        photo = cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE)
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    ((_, image),) = classify._read([tmp_path / "photo.jpg"])
    height, width = photo.shape[:2]
    means = photo.reshape(64, height // 64, 64, width // 64, 3).mean(axis=(1, 3))
    assert np.abs(image.transpose(1, 2, 0) - means).mean() < 1


def test_the_script_prints_a_line_per_image_and_class(tool, trained, pictures):
    done = tool("predict", trained, "--top", 2, pictures / "broken.jpeg", pictures / "a.png", "none.png", fails=1)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [str(pictures / "a.png")] * 2
    assert all(line[2] == "%" and line[3].startswith("n0000000") for line in lines)
    assert float(lines[0][1]) >= float(lines[1][1])
    broken, missing = done.stderr.splitlines()
    assert "broken.jpeg" in broken and "none.png" in missing


def test_the_script_prints_one_json_object(tool, trained, pictures, data):
    result = json.loads(tool("predict", trained, pictures / "a.png", "--json", "--top", 99, "--data", data).stdout)
    (image,) = result["images"]
    assert result["unreadable"] == [] and image["path"] == str(pictures / "a.png") and len(image["classes"]) == 10
    assert sum(entry["probability"] for entry in image["classes"]) == pytest.approx(1, abs=1e-5)
    assert set(image["classes"][0]) == {"index", "wnid", "words", "probability"}


def test_a_run_whose_data_is_missing_has_its_wnids(tool, trained, data, pictures, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(trained, run.path, symlinks=True)
    info = {**run.info, "data": str(tmp_path / "gone")}
    run.start(info)
    assert classify.class_names(run)[3] == ("n00000003", "")
    assert classify.class_names(run, data)[3] == ("n00000003", "three")
    done = tool("predict", run.path, pictures / "a.png", "--top", 1)
    assert "--data" in done.stderr
    known = tool("predict", run.path, pictures / "a.png", "--top", 1, "--data", data)
    assert known.stderr == "" and known.stdout.startswith(done.stdout.rstrip()) and len(known.stdout.split()) == 5
    with pytest.raises(DatasetError, match="manifest.json"):
        classify.class_names(run, tmp_path / "gone")
    run.start({**info, "wnids": info["wnids"][::-1]})
    with pytest.raises(DatasetError, match="other classes"):
        classify.class_names(run, data)


def test_a_net_that_does_not_fit_is_refused(trained, pictures):
    predictor = classify.open_run(Run(trained))
    with pytest.raises(NetError, match="10 outputs.* 2 classes"):
        list(classify.classify(predictor, [pictures / "a.png"], [("n1", "one"), ("n2", "two")]))
    predictor.net.params["fc3"][0].data[:] = np.nan
    with pytest.raises(NetError, match="not finite"):
        list(classify.classify(predictor, [pictures / "a.png"], classify.class_names(Run(trained))))


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        ([], 2, "run folder"),
        (["RUN"], 2, "images"),
        (["RUN", "a.png", "--top", "0"], 2, "'0'"),
        (["RUN", "a.png", "--submission", "t.txt"], 2, "--submission"),
        (["RUN", "--predictions", "p.npz", "--data", "d", "--submission", "t.txt"], 2, "--predictions"),
        (["--predictions", "p.npz"], 2, "--submission FILE"),
        (["--predictions", "p", "--data", "d", "--submission", "t", "--ten-crop"], 2, "--ten-crop"),
        (["RUN", "--submission", "/"], 2, "/ is a folder"),
        (["PHOTO", "RUN"], 2, "a.png is a file"),
        (["RUN", "--submission", "t.txt", "--top", "3"], 2, "--top"),
        (["RUN", "a.png", "--gpu", "0,1"], 2, "'0,1'"),
        (["RUN", "a.png", "--data", "nowhere"], 1, "nowhere/manifest.json"),
        (["nowhere", "a.png"], 1, "nowhere"),
        (["RUN", "a.png", "--checkpoint", "7"], 1, "'7'"),
    ],
)
def test_the_script_refuses_in_one_line(tool, trained, pictures, arguments, status, named):
    places = {"RUN": trained, "PHOTO": pictures / "a.png"}
    done = tool("predict", *(places.get(argument, argument) for argument in arguments), fails=status)
    assert named in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""
