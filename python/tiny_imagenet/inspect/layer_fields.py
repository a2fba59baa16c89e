"""The parameter field of each layer type, such as convolution_param of a Deconvolution."""

from __future__ import annotations

from caffe.proto import caffe_pb2
from google.protobuf.message import Message

READERS = ("Data", "CropData", "ImageData", "WindowData", "MemoryData")  # they read transform_param too
DATA = (*READERS, "HDF5Data")

_BY_NAME = {name.replace("_", ""): name for name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name}
# Types that use the field of another type; the rest use the field of their name, if there is one.
_OTHERS = {
    "Deconvolution": "convolution_param",
    "Im2col": "convolution_param",
    "LReLU": "relu_param",
    "LSTM": "recurrent_param",
    "RNN": "recurrent_param",
    "SoftmaxWithLoss": "softmax_param",
}
_ALSO = {"InfogainLoss": "softmax_param", **dict.fromkeys(READERS, "transform_param")}


def name(layer_type: str) -> str:
    """Return the name of a type's parameter field, or ""."""
    return _OTHERS.get(layer_type) or _BY_NAME.get(f"{layer_type.lower()}param", "")


def of(layer: caffe_pb2.LayerParameter) -> Message:
    """Return the parameters of a layer; an empty message if its type has none."""
    field = name(layer.type)
    return getattr(layer, field) if field else caffe_pb2.ParamSpec()


def unread(layer: caffe_pb2.LayerParameter) -> list[str]:
    """Return the names of the parameter fields that are set and that the layer's type does not read."""
    read = {name(layer.type), _ALSO.get(layer.type), "loss_param"}
    return [field.name for field, _ in layer.ListFields() if field.name.endswith("_param") and field.name not in read]


def has(layer_or_message: Message, path: str) -> bool:
    """Whether a message type has the field `path`, such as convolution_param.kernel_size."""
    descriptor = layer_or_message.DESCRIPTOR
    for part in path.split("."):
        field = descriptor.fields_by_name.get(part) if descriptor else None
        if field is None:
            return False
        descriptor = field.message_type
    return True
