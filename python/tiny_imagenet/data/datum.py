"""Caffe's Datum and BlobProto messages, without Caffe.

The messages are declared here, in a separate descriptor pool, with Caffe's field numbers and types: the bytes are
the same as Caffe's, and pycaffe can be imported in the same process.
"""

from __future__ import annotations

import contextlib
import functools
import os

import cv2
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tiny_imagenet import files
from tiny_imagenet.errors import DatasetError

_F = descriptor_pb2.FieldDescriptorProto
_INT32, _PACKED = _F.TYPE_INT32, "packed"
_MESSAGES = {  # message: (field, number, type, "" or "packed")
    "BlobShape": [("dim", 1, _F.TYPE_INT64, _PACKED)],
    "BlobProto": [
        *((name, number, _INT32, "") for number, name in enumerate(("num", "channels", "height", "width"), 1)),
        ("data", 5, _F.TYPE_FLOAT, _PACKED),
        ("shape", 7, _F.TYPE_MESSAGE, ""),
        ("double_data", 8, _F.TYPE_DOUBLE, _PACKED),
    ],
    "Datum": [
        *((name, number, _INT32, "") for number, name in enumerate(("channels", "height", "width"), 1)),
        ("data", 4, _F.TYPE_BYTES, ""),
        ("label", 5, _INT32, ""),
        ("encoded", 7, _F.TYPE_BOOL, ""),
    ],
}


def _message_classes() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="tiny_imagenet/datum.proto", package="caffe", syntax="proto2")
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, number, kind, packed in fields:
            label = _F.LABEL_REPEATED if packed else _F.LABEL_OPTIONAL
            field = descriptor.field.add(name=name, number=number, type=kind, label=label)
            if kind == _F.TYPE_MESSAGE:
                field.type_name = ".caffe.BlobShape"
            if packed:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    get_class = getattr(message_factory, "GetMessageClass", None)  # protobuf 4.22 and later
    if get_class is None:
        get_class = message_factory.MessageFactory(pool).GetPrototype
    return {name: get_class(pool.FindMessageTypeByName(f"caffe.{name}")) for name in _MESSAGES}


_classes = _message_classes()
BlobShape, BlobProto, Datum = _classes["BlobShape"], _classes["BlobProto"], _classes["Datum"]


def encode(image: np.ndarray, label: int) -> bytes:
    """Return the Datum of a uint8 image (channels, height, width) with a label (-1: unknown)."""
    start, end = _frame(image.shape, image.size, label, False)
    return b"".join((start, image.tobytes(), end))


def encode_file(data: bytes, shape: tuple[int, int, int], label: int) -> bytes:
    """Return the Datum of an image file; `shape` is (channels, height, width) of the decoded image."""
    start, end = _frame(shape, len(data), label, True)
    return b"".join((start, data, end))


@functools.lru_cache(maxsize=1024)
def _frame(shape: tuple[int, int, int], size: int, label: int, encoded: bool) -> tuple[bytes, bytes]:
    """Return the bytes before and after the `size` bytes of data in a serialized Datum."""
    channels, height, width = shape
    whole = Datum(channels=channels, height=height, width=width, data=bytes(size), label=label, encoded=encoded)
    end = Datum(label=label, encoded=encoded).SerializeToString()
    return whole.SerializeToString()[: -size - len(end)], end


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Return image and label of a serialized Datum, uint8 (channels, height, width).

    An encoded Datum is decoded to three channels, BGR.

    Raises:
        DatasetError: the bytes are not the Datum of a uint8 image.
    """
    datum = parse(data)
    if datum.encoded:
        image = None
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DatasetError("the image of an encoded Datum cannot be decoded: convert the data set again")
        return np.ascontiguousarray(image.transpose(2, 0, 1)), datum.label
    shape, size = (datum.channels, datum.height, datum.width), len(datum.data)
    if min(shape) < 1 or size != shape[0] * shape[1] * shape[2]:
        raise DatasetError(
            f"expected a Datum of {shape[0]} x {shape[1]} x {shape[2]} bytes, got {size}: convert the data set again"
        )
    return np.frombuffer(datum.data, np.uint8).reshape(shape).copy(), datum.label


def parse(data: bytes) -> Datum:
    """Return a serialized Datum as a message.

    Raises:
        DatasetError: the bytes are not a Datum.
    """
    try:
        return Datum.FromString(data)
    except DecodeError as error:
        raise DatasetError(f"not a Datum ({error}): convert the data set again") from error


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write the mean image (channels, height, width) as a float32 BlobProto of shape 1 x channels x height x width."""
    channels, height, width = mean.shape
    # Older tools read the four legacy fields only.
    blob = BlobProto(num=1, channels=channels, height=height, width=width, shape=BlobShape(dim=(1, *mean.shape)))
    blob.data.extend(np.asarray(mean, np.float32).ravel().tolist())
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(blob.SerializeToString())


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the mean image of a .binaryproto file, float32 (channels, height, width).

    Raises:
        DatasetError: the file is missing or not a mean image.
    """
    try:
        with open(path, "rb", opener=files.plain) as file:
            blob = BlobProto.FromString(file.read())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; tools/convert.py writes it") from error
    except DecodeError as error:
        raise DatasetError(f"{path} is not a BlobProto ({error}): tools/convert.py writes one") from error
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    values = np.array(blob.data or blob.double_data, np.float32)
    if len(shape) != 3 or min(shape) < 1 or values.size != shape[0] * shape[1] * shape[2]:
        raise DatasetError(f"{path}: expected channels x height x width, got shape {shape} and {values.size} values")
    return values.reshape(shape)
