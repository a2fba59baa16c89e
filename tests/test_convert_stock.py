"""Records and mean compared with those of Caffe's convert_imageset and compute_image_mean."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

import stock_tools
from tiny_imagenet.data import convert, datum, lmdb_reader, sample

pytestmark = pytest.mark.slow  # builds the two programs


@pytest.fixture(scope="module")
def programs():
    if not (stock_tools.ROOT / "build" / "CMakeCache.txt").exists():
        pytest.skip("no build in build/: tools/setup.sh")
    return stock_tools.build()


@pytest.mark.parametrize("split", ["train", "train_screened", "val"])
def test_records_and_mean_equal_those_of_caffes_programs(programs, tmp_path, split):
    root, out = tmp_path / "digits", tmp_path / "ours"
    sample.write(root, train=1500, val=100, test=20, seed=4)  # some are grey
    convert.convert(root, out, workers=2, seed=3)
    folders = {f"{wnid}_{n}.JPEG": f"train/{wnid}/images" for wnid in sample.WNIDS for n in range(1500)}
    ours = [(key.split("_", 1)[1], value) for key, value in lmdb_reader.raw_records(out / f"{split}.lmdb")]
    images = [
        (str(root / folders.get(name, "val/images") / name), datum.Datum.FromString(value).label)
        for name, value in ours
    ]
    stock_tools.write_list(tmp_path / "list.txt", root, images)
    flags = ("--resize_height=64", "--resize_width=64")
    stock_tools.convert_imageset(programs[0], root, tmp_path / "list.txt", tmp_path / "theirs", *flags)
    theirs = list(lmdb_reader.raw_records(tmp_path / "theirs"))
    assert len(theirs) == len(ours) > 50
    for (name, value), (key, other) in zip(ours, theirs):
        assert key.endswith(f"/{name}")
        assert value == other, name  # the whole Datum: shape, pixels, label and the order of its fields
    subprocess.run([programs[1], tmp_path / "theirs", tmp_path / "mean"], check=True, env=stock_tools.QUIET)
    mean = np.mean([datum.decode(value)[0] for _, value in ours], axis=0, dtype=np.float64)
    # Caffe adds in float32: a sum of 1,500 pixels is below 2**24 and so exact, and the division rounds once.
    np.testing.assert_allclose(datum.read_mean(tmp_path / "mean"), mean, rtol=2e-7)
    if split == "train":
        np.testing.assert_array_equal(datum.read_mean(tmp_path / "mean"), datum.read_mean(out / "mean.binaryproto"))
