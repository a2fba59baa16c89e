"""Our nets in upstream Caffe's layer types, for programs that know no others (Netron, OpenCV, stock Caffe)."""

from __future__ import annotations

from caffe.proto import caffe_pb2

from tiny_imagenet.errors import NetError
from tiny_imagenet.inspect.normalize import LRELU_SLOPE


def export(net: caffe_pb2.NetParameter) -> caffe_pb2.NetParameter:
    """Return the net without layer types and fields of ours: LReLU becomes ReLU, CropData becomes Data.

    PReLU is upstream's too. A .caffemodel fits unchanged, because its weights are matched by layer name. The seed and
    the draw of CropData are lost, so that training crops differ.

    Raises:
        NetError: an LReLU works in place with a negative slope, for which ReLU computes a different gradient.
    """
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    for layer in result.layer:
        if layer.type == "LReLU":
            layer.type = "ReLU"
            if not layer.relu_param.HasField("negative_slope"):
                layer.relu_param.negative_slope = LRELU_SLOPE
            if layer.relu_param.negative_slope < 0 and list(layer.bottom) == list(layer.top):
                raise NetError(f"layer {layer.name}: ReLU does not work in place with a negative slope")
        elif layer.type == "CropData":
            layer.type = "Data"
            layer.data_param.source = layer.crop_data_param.source
            layer.data_param.batch_size = layer.crop_data_param.batch_size
            layer.data_param.backend = caffe_pb2.DataParameter.LMDB
        for field, _ in layer.ListFields():
            if field.number >= 1000:  # from caffe_layers/layers.proto
                layer.ClearField(field.name)
    return result
