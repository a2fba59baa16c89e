"""Caffe's Datum and BlobProto messages without Caffe: what stands in an LMDB record and in a .binaryproto file.

The messages are built here, in a descriptor pool of their own, with upstream's field numbers and types, so that
the bytes are the same as Caffe's and importing pycaffe beside this module does no harm.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import cv2
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tiny_imagenet import files
from tiny_imagenet.data import image_files
from tiny_imagenet.errors import DatasetError

_F = descriptor_pb2.FieldDescriptorProto

# message: (field, number, type, "" | "repeated" | "packed", default)
_MESSAGES = {
    "BlobShape": [("dim", 1, _F.TYPE_INT64, "packed", "")],
    "BlobProto": [
        ("num", 1, _F.TYPE_INT32, "", "0"),
        ("channels", 2, _F.TYPE_INT32, "", "0"),
        ("height", 3, _F.TYPE_INT32, "", "0"),
        ("width", 4, _F.TYPE_INT32, "", "0"),
        ("data", 5, _F.TYPE_FLOAT, "packed", ""),
        ("diff", 6, _F.TYPE_FLOAT, "packed", ""),
        ("shape", 7, _F.TYPE_MESSAGE, "", ""),
        ("double_data", 8, _F.TYPE_DOUBLE, "packed", ""),
        ("double_diff", 9, _F.TYPE_DOUBLE, "packed", ""),
    ],
    "Datum": [
        ("channels", 1, _F.TYPE_INT32, "", ""),
        ("height", 2, _F.TYPE_INT32, "", ""),
        ("width", 3, _F.TYPE_INT32, "", ""),
        ("data", 4, _F.TYPE_BYTES, "", ""),
        ("label", 5, _F.TYPE_INT32, "", ""),
        ("float_data", 6, _F.TYPE_FLOAT, "repeated", ""),
        ("encoded", 7, _F.TYPE_BOOL, "", "false"),
    ],
}


def _message_classes() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="tiny_imagenet/datum.proto", package="caffe", syntax="proto2")
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, number, kind, repeat, default in fields:
            label = _F.LABEL_REPEATED if repeat else _F.LABEL_OPTIONAL
            field = descriptor.field.add(name=name, number=number, type=kind, label=label)
            if kind == _F.TYPE_MESSAGE:
                field.type_name = ".caffe.BlobShape"
            if repeat == "packed":
                field.options.packed = True
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    get_class = getattr(message_factory, "GetMessageClass", None)  # protobuf 4.22 and later
    if get_class is None:
        get_class = message_factory.MessageFactory(pool).GetPrototype
    return {name: get_class(pool.FindMessageTypeByName(f"caffe.{name}")) for name in _MESSAGES}


_classes = _message_classes()
BlobShape, BlobProto, Datum = _classes["BlobShape"], _classes["BlobProto"], _classes["Datum"]


def encode(image: np.ndarray, label: int) -> bytes:
    """A Datum of the uint8 image (channels, height, width) and the label (-1: unknown)."""
    start, end = frame(image.shape, image.size, label, False)
    return start + image.tobytes() + end


def encode_file(data: bytes, shape: tuple[int, int, int], label: int) -> bytes:
    """A Datum that holds an image file's bytes; `shape` is that of the decoded image (channels, height, width)."""
    start, end = frame(shape, len(data), label, True)
    return start + data + end


@functools.lru_cache(maxsize=1024)
def frame(shape: tuple[int, int, int], size: int, label: int, encoded: bool) -> tuple[bytes, bytes]:
    """What stands before and after the `size` bytes of data in a serialized Datum."""
    channels, height, width = shape
    whole = Datum(channels=channels, height=height, width=width, data=bytes(size), label=label, encoded=encoded)
    end = Datum(label=label, encoded=encoded).SerializeToString()
    return whole.SerializeToString()[: -size - len(end)], end


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """The image of a serialized Datum, uint8 (channels, height, width), and its label.

    An encoded Datum is decoded to three channels, BGR.

    Raises:
        DatasetError: the bytes are no Datum of a uint8 image.
    """
    datum = _parse(data)
    if datum.encoded:
        return np.ascontiguousarray(_decode_file(datum.data).transpose(2, 0, 1)), datum.label
    return np.frombuffer(datum.data, np.uint8).reshape(_raw_shape(datum)).copy(), datum.label


def inspect(data: bytes) -> tuple[tuple[int, int, int], int]:
    """The shape (channels, height, width) and label that `decode` would give, without a copy of a raw image.

    Raises:
        DatasetError: as `decode`.
    """
    datum = _parse(data)
    if datum.encoded:
        height, width, channels = _decode_file(datum.data).shape
        return (channels, height, width), datum.label
    return _raw_shape(datum), datum.label


def is_encoded(data: bytes) -> bool:
    """Whether a serialized Datum holds an image file's bytes. DatasetError where it is no Datum."""
    return bool(_parse(data).encoded)


def _parse(data: bytes) -> Any:
    try:
        return Datum.FromString(data)
    except DecodeError as error:
        raise DatasetError(f"not a Datum: {error}; convert the data set again") from error


def _decode_file(data: bytes) -> np.ndarray:
    image, header = None, image_files.header(data)
    # Caffe decodes more kinds of files; of those that we write, none makes us take gigabytes.
    if data and (max(header[:2]) <= image_files.LARGEST if header else not image_files.is_known(data)):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError("the encoded image of a Datum cannot be decoded: convert the data set again")
    return image


def _raw_shape(datum: Any) -> tuple[int, int, int]:
    shape = datum.channels, datum.height, datum.width
    size = len(datum.data)
    if min(shape) < 1 or size != shape[0] * shape[1] * shape[2]:
        raise DatasetError(
            f"a Datum of channels, height, width {shape} has {size} bytes of data: "
            "only uint8 images are allowed; convert the data set again"
        )
    return shape


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write the mean image (channels, height, width) as a float32 BlobProto of shape 1 x channels x height x width."""
    channels, height, width = mean.shape
    # The four older fields too: tools of Caffe's time look at nothing else.
    blob = BlobProto(num=1, channels=channels, height=height, width=width, shape=BlobShape(dim=(1, *mean.shape)))
    blob.data.extend(np.asarray(mean, np.float32).ravel().tolist())
    with files.atomic_file(path) as temporary:
        temporary.write_bytes(blob.SerializeToString())


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """The mean image of a .binaryproto file, float32 (channels, height, width).

    Raises:
        DatasetError: the file is missing or no mean image.
    """
    blob = BlobProto()
    try:
        with open(path, "rb", opener=files.plain) as file:
            blob.ParseFromString(file.read())
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}; tools/convert.py writes it") from error
    except DecodeError as error:
        raise DatasetError(f"{path} is not a BlobProto ({error}): tools/convert.py writes one") from error
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    values = np.array(blob.data or blob.double_data, np.float32)
    if len(shape) != 3 or min(shape) < 1 or values.size != shape[0] * shape[1] * shape[2]:
        raise DatasetError(
            f"{path} has shape {shape} and {values.size} values: a mean image is channels x height x width"
        )
    return values.reshape(shape)
