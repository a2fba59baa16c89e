"""Images a second through the data layers: ours (CropData) and upstream's (Data), on LMDBs made for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import caffe
import cv2
import lmdb
import numpy as np

from tiny_imagenet.data import datum

RECORDS = ("raw", "JPEG")
SIZE, CROP = 64, 56  # pixels
_AHEAD = 4  # batches that both layers make ahead by default

_NET = """
layer {{ name: "data" type: "{type}" top: "data" top: "label"
  transform_param {{ crop_size: {crop} mirror: true mean_file: "{folder}/mean.binaryproto" }}
  {parameters} }}
"""


class Reader(NamedTuple):
    """A data layer; `threads` of 0 are as many as it takes by itself (layers.proto says how many)."""

    layer: str
    threads: int


READERS = (Reader("CropData", 1), Reader("CropData", 0), Reader("Data", 1))


@contextmanager
def databases(images: int) -> Iterator[Path]:
    """Yield a temporary folder with {raw,JPEG}.lmdb of so many 64x64 colour images, and mean.binaryproto."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = [_picture(np.random.default_rng(index)) for index in range(images)]
        for records in RECORDS:
            _write(folder / f"{records}.lmdb", pictures, encoded=records == "JPEG")
        datum.write_mean(folder / "mean.binaryproto", np.mean(pictures, axis=0).transpose(2, 0, 1))
        yield folder


def batch_times(folder: Path, records: str, reader: Reader, batch: int, batches: int) -> dict[str, float]:
    """Milliseconds a batch takes: by the clock ("ms"), and of all processors together ("cpu_ms").

    What was made ahead before the clock starts is passed over, so that the layer's threads set the pace.
    """
    net = _net(folder, records, reader, batch)
    for _ in range(2 * _AHEAD + 1):
        net.forward()
    begin, cpu_begin = time.perf_counter(), time.process_time()
    for _ in range(batches):
        net.forward()
    end, cpu_end = time.perf_counter(), time.process_time()
    return {"ms": 1000 * (end - begin) / batches, "cpu_ms": 1000 * (cpu_end - cpu_begin) / batches}


def _net(folder: Path, records: str, reader: Reader, batch: int) -> caffe.Net:
    source = f'source: "{folder}/{records}.lmdb" batch_size: {batch}'
    if reader.layer == "Data":
        parameters = f"data_param {{ {source} backend: LMDB }}"
    else:
        threads = f" threads: {reader.threads}" if reader.threads else ""
        parameters = f"crop_data_param {{ {source}{threads} }}"
    model = folder / "net.prototxt"
    model.write_text(_NET.format(type=reader.layer, crop=CROP, folder=folder, parameters=parameters))
    return caffe.Net(str(model), caffe.TRAIN)


def _picture(rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 (64, 64, 3), that a JPEG makes about as small as a photograph: coarse shapes and some noise."""
    coarse = rng.normal(128, 60, (9, 9, 3)).astype(np.float32)
    image = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 5, (SIZE, SIZE, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def _write(path: Path, pictures: list[np.ndarray], encoded: bool) -> None:
    room = 2 * len(pictures) * SIZE * SIZE * 3 + (8 << 20)
    with lmdb.open(str(path), map_size=room, sync=False) as environment, environment.begin(write=True) as transaction:
        for index, picture in enumerate(pictures):
            if encoded:
                data = cv2.imencode(".jpg", picture)[1].tobytes()
                value = datum.encode_file(data, (3, SIZE, SIZE), index)
            else:
                value = datum.encode(picture.transpose(2, 0, 1), index)
            transaction.put(b"%08d" % index, value, append=True)
