"""The bytes of Datum and BlobProto, written by hand."""

import numpy as np
import pytest

from tiny_imagenet.data import datum
from tiny_imagenet.errors import DatasetError


def varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


@pytest.mark.parametrize("label", [0, 199, -1])
def test_bytes_of_a_datum(label):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    wire = b"\x08\x02\x10\x03\x18\x04\x22\x18" + image.tobytes() + b"\x28" + varint(label)
    assert datum.Datum.FromString(wire).label == label
    encoded = datum.encode(image, label)
    assert encoded == wire + b"\x38\x00"
    for data in (wire, encoded):
        decoded, found = datum.decode(data)
        np.testing.assert_array_equal(decoded, image)
        assert found == label


@pytest.mark.parametrize("data", [b"\xff\xff", b"", b"\x08\x03\x10\x40\x18\x40\x22\x01a", b"\x22\x01a\x38\x01"])
def test_other_bytes_are_refused(data):
    with pytest.raises(DatasetError):
        datum.decode(data)


def test_bytes_of_a_mean(tmp_path):
    mean = np.linspace(-1, 200, 24).astype(np.float32).reshape(2, 3, 4)
    datum.write_mean(tmp_path / "m", mean)
    wire = (
        b"\x08\x01\x10\x02\x18\x03\x20\x04\x2a\x60" + mean.astype("<f4").tobytes() + b"\x3a\x06\x0a\x04\x01\x02\x03\x04"
    )
    assert (tmp_path / "m").read_bytes() == wire
    np.testing.assert_array_equal(datum.read_mean(tmp_path / "m"), mean)
    (tmp_path / "legacy").write_bytes(wire[:-8])
    np.testing.assert_array_equal(datum.read_mean(tmp_path / "legacy"), mean)
    (tmp_path / "bad").write_bytes(wire[:-1])
    (tmp_path / "short").write_bytes(wire[:8])
    for name in ("bad", "short", "none"):
        with pytest.raises(DatasetError, match=str(tmp_path / name)):
            datum.read_mean(tmp_path / name)
