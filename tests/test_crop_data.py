"""The CropData layer compared with a second implementation in numpy; errors in its data."""

import collections
import os
import subprocess
import sys

import caffe
import cv2
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from google.protobuf import text_format

SIDE, CROP, RECORDS = 12, 7, 23
UNIFORM, TEN_CROP = "UNIFORM", "TEN_CROP"


# --- The reference ----------------------------------------------------------------------------------------------------
def philox(counter, key):
    """Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011)."""
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        low, high = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (high >> 32) ^ b ^ k, high & 0xFFFFFFFF, (low >> 32) ^ d ^ m, low & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return a, b, c, d


def draw(seed, number, position, purpose):
    return philox(
        (number & 0xFFFFFFFF, number >> 32, position, purpose), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    )


def order_of(seed, epoch, records):
    order = list(range(records))
    for i in range(records, 1, -1):
        high, low, *_ = draw(seed, epoch, i, 1)
        j = ((high << 32 | low) * i) >> 64
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


def crop_of(seed, iteration, position, kind, mirror, height=SIDE, width=SIDE, crop=CROP):
    r = draw(seed, iteration, position, 0)
    down, right = height - crop, width - crop
    if kind == TEN_CROP:
        place = (r[0] * 5) >> 32
        top, left = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)][place]
    else:
        top, left = (r[0] * (down + 1)) >> 32, (r[1] * (right + 1)) >> 32
    return top, left, bool(mirror and r[2] % 2)


def sample(pictures, seed, iteration, position, batch, kind=UNIFORM, mirror=True, mean=0.0, scale=1.0, shuffle=True):
    """(crop, label, record) of one position."""
    epoch, place = divmod(iteration * batch + position, len(pictures))
    record = order_of(seed, epoch, len(pictures))[place] if shuffle else place
    picture = (np.float32(pictures[record]) - np.float32(mean)) * np.float32(scale)
    top, left, flip = crop_of(seed, iteration, position, kind, mirror, *picture.shape[1:])
    crop = picture[:, top : top + CROP, left : left + CROP]
    return (crop[:, :, ::-1] if flip else crop), record % 5, record


def test_the_reference_generator_gives_the_published_answers():
    ones, pi = (0xFFFFFFFF,) * 4, (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    assert philox((0,) * 4, (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    assert philox(ones, ones[:2]) == (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)
    assert philox(pi, (0xA4093822, 0x299F31D0)) == (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)


# --- Made data --------------------------------------------------------------------------------------------------------
def key(record):
    return f"{record:06}_{record * 7919 % 1000}"


def raw(picture, label=0):
    channels, height, width = picture.shape
    return caffe_pb2.Datum(channels=channels, height=height, width=width, data=picture.tobytes(), label=label)


def encoded(picture, label=0, form=".png"):
    image = picture.transpose(1, 2, 0)
    bytes_ = cv2.imencode(form, image)[1].tobytes()
    return caffe_pb2.Datum(data=bytes_, label=label, encoded=True)


def floats(picture, label=0):
    channels, height, width = picture.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    datum.float_data.extend(picture.ravel().tolist())
    return datum


def write(path, values):
    """Write an LMDB of Datums or bytes."""
    with lmdb.open(str(path), map_size=1 << 28) as env, env.begin(write=True) as transaction:
        for i, value in enumerate(values):
            transaction.put(key(i).encode(), value if isinstance(value, bytes) else value.SerializeToString())
    return path


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (RECORDS, 3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def source(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("crop_data") / "raw.lmdb"
    return write(path, [raw(picture, i % 5) for i, picture in enumerate(pictures)])


@pytest.fixture
def net(tmp_path, source):
    """Build a net of one CropData layer: net(phase, transform="...", source=..., **crop_data_param)."""

    def build(phase=caffe.TRAIN, transform="", tops=3, **param):
        layer = caffe_pb2.LayerParameter(name="data", type="CropData", top=["data", "label", "record"][:tops])
        text_format.Merge(f"crop_size: {CROP} mirror: true", layer.transform_param)
        layer.transform_param.MergeFrom(text_format.Parse(transform, caffe_pb2.TransformationParameter()))
        options = {"source": str(source), "batch_size": 10, "seed": 7, **param}
        for name, value in options.items():
            if value is not None:
                text_format.Merge(
                    f'{name}: "{value}"' if name == "source" else f"{name}: {value}", layer.crop_data_param
                )
        file = tmp_path / "net.prototxt"
        file.write_text(str(caffe_pb2.NetParameter(layer=[layer])))
        return caffe.Net(str(file), phase)

    return build


def batch_of(net):
    net.forward()
    return {name: blob.data.copy() for name, blob in net.blobs.items()}


def expect(net, pictures, iterations, batch=10, positions=None, **definition):
    for iteration in iterations:
        made = batch_of(net)
        for row, position in enumerate(positions or range(batch)):
            crop, label, record = sample(pictures, 7, iteration, position, batch, **definition)
            np.testing.assert_array_equal(made["data"][row], crop, err_msg=f"iteration {iteration}, {position}")
            assert (made["label"][row], made["record"][row]) == (label, record)


# --- Batches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [UNIFORM, TEN_CROP])
@pytest.mark.parametrize("mirror", ["true", "false"])
def test_batches_are_those_of_the_definition(net, pictures, kind, mirror):
    made = net(transform=f"mirror: {mirror} scale: 0.25 mean_value: 10", draw=kind)
    expect(made, pictures, range(6), kind=kind, mirror=mirror == "true", mean=10, scale=0.25)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_threads_and_prefetch_change_no_byte(net, pictures, threads, prefetch):
    """Even with more threads than chunks and a batch longer than an epoch."""
    expect(net(threads=threads, prefetch=prefetch, batch_size=53), pictures, range(4), batch=53)


def test_an_iteration_offset_is_where_reading_starts(net, pictures):
    expect(net(iteration=1_000_003), pictures, range(1_000_003, 1_000_006))


def test_testing_takes_the_centre_of_each_record_in_order(net, pictures):
    made = net(caffe.TEST)
    for iteration in range(4):
        batch = batch_of(made)
        for row in range(10):
            record = (iteration * 10 + row) % RECORDS
            assert batch["record"][row] == record
            low = (SIDE - CROP) // 2
            np.testing.assert_array_equal(batch["data"][row], pictures[record][:, low : low + CROP, low : low + CROP])


def test_testing_with_ten_crops_takes_them_from_each_record(net, pictures):
    made = net(caffe.TEST, draw=TEN_CROP, batch_size=30, iteration=7)
    offsets = [(0, 0), (0, 5), (5, 0), (5, 5), (2, 2)]
    for iteration in (7, 8):
        batch = batch_of(made)
        for row in range(30):
            record, (top, left) = (iteration * 3 + row // 10) % RECORDS, offsets[row % 5]
            crop = pictures[record][:, top : top + CROP, left : left + CROP]
            assert (batch["record"][row], batch["label"][row]) == (record, record % 5)
            np.testing.assert_array_equal(batch["data"][row], crop[:, :, ::-1] if row % 10 >= 5 else crop)
    made.seek_data(1)  # counted from its own iteration
    assert batch_of(made)["record"][0] == 8 * 3 % RECORDS
    with pytest.raises(caffe.CaffeError, match="25"):
        net(caffe.TEST, draw=TEN_CROP, batch_size=25)


def test_training_without_shuffling_and_testing_with_it(net, pictures):
    expect(net(shuffle="false"), pictures, range(3), shuffle=False)
    shuffled = np.concatenate([batch_of(net(caffe.TEST, shuffle="true", iteration=i))["record"] for i in range(2)])
    assert list(shuffled) == order_of(7, 0, RECORDS)[:20]


def test_another_seed_gives_other_batches_and_none_one_of_caffes(net):
    def first(**param):
        caffe.set_random_seed(5)
        return batch_of(net(**param))["data"].tobytes()

    assert first(seed=1) == first(seed=1) != first(seed=1 << 40 | 1)
    assert first(seed=None) == first(seed=None)
    assert len({first(seed=s) for s in (0, 1, 1 << 32, None)}) == 4


@pytest.mark.parametrize("make", [encoded, floats])
def test_the_form_of_a_record_does_not_matter(net, pictures, tmp_path, make):
    path = write(tmp_path / "other.lmdb", [make(picture, i % 5) for i, picture in enumerate(pictures)])
    mean = np.random.default_rng(1).uniform(0, 255, (3, SIDE, SIDE)).astype(np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=SIDE, width=SIDE, data=mean.ravel().tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    transform = f'mean_file: "{tmp_path / "mean.binaryproto"}" scale: 0.5'
    expect(net(transform=transform, source=path, threads=3), pictures, range(3), mean=mean, scale=0.5)
    expect(net(transform=transform), pictures, range(3), mean=mean, scale=0.5)


def test_records_of_many_sizes_are_cropped_alike(net, tmp_path):
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 256, (3, h, w), dtype=np.uint8) for h, w in [(7, 7), (30, 9), (8, 64), (224, 100)] * 3]
    path = write(tmp_path / "sizes.lmdb", [raw(picture, i % 5) for i, picture in enumerate(pictures)])
    expect(net(source=path), pictures, range(4))


@pytest.mark.parametrize("flag, flags", [("force_color", cv2.IMREAD_COLOR), ("force_gray", cv2.IMREAD_GRAYSCALE)])
def test_encoded_pictures_are_decoded_as_asked(net, tmp_path, flag, flags):
    grey = np.random.default_rng(3).integers(0, 256, (1, CROP, CROP), dtype=np.uint8)
    colour = np.random.default_rng(4).integers(0, 256, (3, CROP, CROP), dtype=np.uint8)
    path = write(tmp_path / "mixed.lmdb", [encoded(grey, form=".jpg"), encoded(colour, form=".jpg")] * 2)
    batch = batch_of(net(caffe.TEST, transform=f"{flag}: true", source=path, batch_size=4))
    for row, picture in enumerate([grey, colour] * 2):
        image = cv2.imdecode(cv2.imencode(".jpg", picture.transpose(1, 2, 0))[1], flags)
        np.testing.assert_array_equal(batch["data"][row], np.atleast_3d(image).transpose(2, 0, 1))


def test_an_lmdb_that_is_one_file(net, pictures, tmp_path):
    with lmdb.open(str(tmp_path / "one.mdb"), map_size=1 << 24, subdir=False) as env, env.begin(write=True) as t:
        for i, picture in enumerate(pictures):
            t.put(key(i).encode(), raw(picture, i % 5).SerializeToString())
    expect(net(source=tmp_path / "one.mdb"), pictures, range(2))


# --- Shares, epochs, chances ------------------------------------------------------------------------------------------
def test_solvers_together_see_what_one_would(net, pictures):
    try:
        caffe.set_solver_count(5)
        for rank in range(5):
            caffe.set_solver_rank(rank)
            made = net(iteration=4)
            assert list(made.blobs["data"].shape) == [2, 3, CROP, CROP]
            expect(made, pictures, range(4, 7), positions=[2 * rank, 2 * rank + 1])
        assert list(net(caffe.TEST).blobs["data"].shape) == [10, 3, CROP, CROP]  # testing is not shared out
        with pytest.raises(caffe.CaffeError, match="12"):
            net(batch_size=12)
        with pytest.raises(caffe.CaffeError, match="seed"):
            net(seed=None)
    finally:
        caffe.set_solver_rank(0)
        caffe.set_solver_count(1)


def test_every_record_comes_once_an_epoch(net):
    made = net(batch_size=RECORDS, threads=3)
    orders = [tuple(batch_of(made)["record"]) for _ in range(5)]
    assert all(sorted(order) == list(range(RECORDS)) for order in orders)
    assert len(set(orders)) == 5
    made = net(batch_size=4)
    records = np.concatenate([batch_of(made)["record"] for _ in range(RECORDS)])  # four epochs
    assert set(collections.Counter(records).values()) == {4}


def chi_square(counts, cells):
    """Pearson's statistic of counts with equal expectations, and its 1 - 1e-6 quantile."""
    total = sum(counts.values())
    assert total >= 20 * cells and len(counts) == cells, "too few samples, or cells that never came"
    statistic = sum((count - total / cells) ** 2 / (total / cells) for count in counts.values())
    degrees, normal = cells - 1, 4.7534
    return statistic, degrees * (1 - 2 / (9 * degrees) + normal * np.sqrt(2 / (9 * degrees))) ** 3


@pytest.fixture
def places(tmp_path, net):
    """Counts of crop places, found with pictures whose values are their rows and columns."""

    def observe(draw, mirror=True, batches=40):
        rows, columns = np.mgrid[0:SIDE, 0:SIDE]
        picture = np.uint8([rows, columns, 0 * rows])
        path = write(tmp_path / f"places_{draw}.lmdb", [raw(picture)])
        made = net(source=path, batch_size=500, draw=draw, transform=f"mirror: {str(mirror).lower()}")
        seen = collections.Counter()
        for _ in range(batches):
            for crop in batch_of(made)["data"]:
                seen[int(crop[0, 0, 0]), int(crop[1].min()), bool(crop[1, 0, 0] > crop[1, 0, 1])] += 1
        return seen

    return observe


def test_uniform_draws_are_uniform(places):
    seen = places(UNIFORM)
    statistic, limit = chi_square(seen, (SIDE - CROP + 1) ** 2 * 2)
    assert statistic < limit
    assert {(top, left) for top, left, _ in seen} == {(t, x) for t in range(6) for x in range(6)}


def test_ten_crop_draws_only_its_ten_and_each_as_often(places):
    seen = places(TEN_CROP, batches=10)
    far, middle = SIDE - CROP, (SIDE - CROP) // 2
    assert set(seen) == {
        (t, x, m) for t, x in [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)] for m in (False, True)
    }
    statistic, limit = chi_square(seen, 10)
    assert statistic < limit
    assert {mirror for *_, mirror in places(TEN_CROP, mirror=False, batches=4)} == {False}


# --- Solvers ----------------------------------------------------------------------------------------------------------
def test_a_restored_solver_continues_reading_where_it_was(tmp_path, source):
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "CropData" top: "data" top: "label" transform_param {{ crop_size: {CROP} }}'
        f' crop_data_param {{ source: "{source}" batch_size: 10 seed: 3 iteration: 100 }} }}'
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 5 } }'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" }'
    )
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.0001 lr_policy: "fixed" max_iter: 100 iter_size: 2'
        f' snapshot_prefix: "{tmp_path}/at"'
    )

    def batches(solver, steps):
        seen = []
        for _ in range(steps):
            solver.step(1)
            seen.append(solver.net.blobs["data"].data.tobytes())
        return seen

    first = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    batches(first, 3)
    first.snapshot()
    second = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    batches(second, 1)  # prefetches batches to drop
    second.restore(str(tmp_path / "at_iter_3.solverstate"))
    assert batches(first, 4) == batches(second, 4)
    weights = [solver.net.params["fc"][0].data.tobytes() for solver in (first, second)]
    assert weights[0] == weights[1]


# --- Errors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("param", "transform", "named"),
    [
        ({"source": "nowhere.lmdb"}, "", r"layer data \(TRAIN\): .*nowhere.lmdb"),
        ({"source": "/"}, "", "data.mdb"),
        ({"source": __file__}, "", "test_crop_data"),
        ({"source": ""}, "", "source"),
        ({"batch_size": 0}, "", "batch_size"),
        ({"threads": 0}, "", "threads"),
        ({}, "crop_size: 13", "crop_size is 13"),
        ({}, 'mean_file: "nowhere.binaryproto"', "nowhere.binaryproto"),
        ({}, f'mean_file: "{__file__}"', "test_crop_data"),
        ({}, "force_color: true force_gray: true", "force_gray"),
        ({}, "mean_value: 1 mean_value: 2", "mean_value"),
        ({}, 'mean_value: 1 mean_file: "mean.binaryproto"', "mean_file"),
    ],
)
def test_a_layer_that_cannot_work_is_refused(net, param, transform, named):
    with pytest.raises(caffe.CaffeError, match=named):
        net(transform=transform, **param)


PICTURE = np.zeros((3, SIDE, SIDE), np.uint8)


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xff\xff",
        b"",
        raw(PICTURE).SerializeToString()[:-40],
        raw(PICTURE[:1]),
        raw(PICTURE[:, :5]),
        caffe_pb2.Datum(channels=3, height=SIDE, width=SIDE, data=b"short"),
        caffe_pb2.Datum(channels=3, height=SIDE, width=SIDE),
        caffe_pb2.Datum(channels=3, height=-5, width=SIDE),
        caffe_pb2.Datum(channels=3, height=1 << 30, width=1 << 30),
        caffe_pb2.Datum(encoded=True, data=b"no picture at all"),
        caffe_pb2.Datum(encoded=True, data=encoded(PICTURE).data[:60]),
        caffe_pb2.Datum(encoded=True),
        encoded(PICTURE[:1]),
        encoded(np.zeros((3, 12, 12), np.uint16)),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_record_is_an_error_that_names_its_key(net, tmp_path, pictures, bad, threads):
    values = [raw(picture) for picture in pictures]
    values[15] = bad
    path = write(tmp_path / "bad.lmdb", values)
    made = net(caffe.TEST, source=path, threads=threads)
    batch_of(made)  # records 0 to 9
    for _ in range(3):
        with pytest.raises(caffe.CaffeError, match=rf"record {key(15)} of .*bad\.lmdb"):
            made.forward()
    batch_of(net(caffe.TEST))  # the next net works


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_database_that_was_cut_short_is_an_error(net, tmp_path, pictures, when):
    path = write(tmp_path / "cut.lmdb", [raw(picture) for picture in np.repeat(pictures, 40, 0)])
    made = None if when == "before" else net(source=path, prefetch=1)
    if made:
        batch_of(made)
    os.truncate(path / "data.mdb", 40960)
    with pytest.raises(caffe.CaffeError, match=r"cut\.lmdb.* 40960"):
        made = made or net(source=path)
        for _ in range(3):
            made.forward()


def test_the_process_ends_with_threads_at_work(tmp_path, source):
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "data" type: "CropData" top: "data" crop_data_param {{ source: "{source}" batch_size: 9'
        " threads: 3 prefetch: 50 } }"
    )
    code = f"import caffe; net = caffe.Net({str(tmp_path / 'net.prototxt')!r}, caffe.TRAIN); net.forward()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
