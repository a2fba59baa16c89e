"""Our nets in upstream's own layer types, for programs that know no others (Netron, OpenCV, stock Caffe)."""

from __future__ import annotations

from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect.canonical import LRELU_SLOPE

OURS = {"LReLU", "CropData"}


def export(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """The same net without a type or a field of ours: LReLU becomes ReLU with its slope, CropData becomes Data.

    PReLU stays, it is upstream's too. Weights fit as they are: a .caffemodel is read by layer name. What cannot be said
    in stock types: the seed and the draw of CropData, so that Data's crops are others.

    Raises:
        NetError: an LReLU whose slope ReLU would compute another gradient with.
    """
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    for layer in result.layer:
        if layer.type == "LReLU":
            layer.type = "ReLU"
            if not layer.relu_param.HasField("negative_slope"):
                layer.relu_param.negative_slope = LRELU_SLOPE
            if layer.relu_param.negative_slope < 0 and list(layer.bottom) == list(layer.top):
                raise NetError(f"layer {layer.name}: ReLU cannot compute in place with a negative slope")
        elif layer.type == "CropData":
            layer.type = "Data"
            layer.data_param.source = layer.crop_data_param.source
            layer.data_param.batch_size = layer.crop_data_param.batch_size
            layer.data_param.backend = caffe_pb2.DataParameter.LMDB
        for field, _ in layer.ListFields():
            if field.number >= 1000:  # those of caffe_layers/layers.proto
                layer.ClearField(field.name)
    return result
