"""What tests/fuzz.py mutates: small nets of every layer type but Python's, solvers, weights, states and their data.

Every one of them runs as it stands. Files are named without folders, so that a mutated name stays in the run's own.
"""

import ctypes
import re
from pathlib import Path

import numpy as np

IMAGE = 8  # pixels a side


def layer(kind, bottom="", top="", text="", name=None):
    """A layer of a prototxt; its name is that of its first top."""
    tops = top.split()
    words = [f'name: "{name or (tops[0] if tops else kind)}" type: "{kind}"']
    words += [f'bottom: "{blob}"' for blob in bottom.split()] + [f'top: "{blob}"' for blob in tops]
    return f"layer {{ {' '.join(words)} {text} }}\n"


def dummy(top, *shapes, filler='type: "gaussian"'):
    """A source of blobs: a shape and a filler each."""
    fillers = filler if isinstance(filler, tuple) else (filler,) * len(shapes)
    text = " ".join(f"shape {{ {' '.join(f'dim: {n}' for n in shape)} }}" for shape in shapes)
    text += " " + " ".join(f"data_filler {{ {one} }}" for one in fillers)
    return layer("DummyData", "", top, f"dummy_data_param {{ {text} }}")


ONE = 'type: "constant" value: 1'
XAVIER = 'weight_filler { type: "xavier" }'
X = dummy("x", (2, 3, 6, 6))
# An image and a label: what a loss takes.
X_LABEL = dummy("x label", (2, 3, 6, 6), (2,), filler=('type: "gaussian"', ONE))
FC = layer("InnerProduct", "x", "fc", f"inner_product_param {{ num_output: 4 {XAVIER} }}")
PLACE = layer("Input", "", "x", "input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } }")
BACKWARD = "force_backward: true\n"


def chain(*kinds):
    """Layers one after the other, the last ones in place."""
    text = PLACE + FC
    before = "fc"
    for i, (kind, parameters) in enumerate(kinds):
        text += layer(kind, before, before if i % 2 else kind, parameters, name=f"{kind}{i}")
        before = before if i % 2 else kind
    return BACKWARD + text


def loss(kind, *more, labels="label", parameters=""):
    return BACKWARD + X_LABEL + FC + "".join(more) + layer(kind, f"fc {labels}", "loss", parameters)


def sequence(kind):
    """A recurrent layer over four steps of two streams."""
    return (
        BACKWARD
        + dummy("seq cont", (4, 2, 3), (4, 2), filler=('type: "gaussian"', ONE))
        + layer(
            kind, "seq cont", "h", f'recurrent_param {{ num_output: 3 {XAVIER} bias_filler {{ type: "constant" }} }}'
        )
        + layer("InnerProduct", "h", "fc", f"inner_product_param {{ num_output: 2 axis: 2 {XAVIER} }}")
        + layer("Reduction", "fc", "sum", "loss_weight: 1")
    )


def nets():
    """Prototxts by name."""

    def conv(text):
        return f"convolution_param {{ num_output: 4 kernel_size: 3 {text} {XAVIER} }}"

    found = {
        "neurons1": chain(("AbsVal", ""), ("BNLL", ""), ("Clip", "clip_param { min: -1 max: 1 }"), ("ReLU", "")),
        "neurons2": chain(
            ("ELU", "elu_param { alpha: 0.5 }"),
            ("Dropout", "dropout_param { dropout_ratio: 0.4 }"),
            ("Exp", "exp_param { base: 2 scale: 0.1 shift: 1 }"),
            ("LReLU", "relu_param { negative_slope: 0.1 }"),
        ),
        "neurons3": chain(
            ("Sigmoid", ""),
            ("Power", "power_param { power: 2 scale: 0.5 shift: 1 }"),
            ("Log", "log_param { base: 10 scale: 1 shift: 5 }"),
            ("TanH", ""),
        ),
        "neurons4": chain(
            ("PReLU", 'prelu_param { filler { type: "uniform" min: 0.1 max: 0.3 } }'),
            ("PReLU", "prelu_param { channel_shared: true } param { lr_mult: 2 }"),
            ("Swish", "swish_param { beta: 2 }"),
        ),
        "threshold": X + layer("Threshold", "x", "y", "threshold_param { threshold: 0.5 }") + layer("Silence", "y"),
        "argmax": X
        + layer("ArgMax", "x", "a", "argmax_param { top_k: 2 axis: 1 }")
        + layer("ArgMax", "x", "b", "argmax_param { out_max_val: true top_k: 3 }"),
        "convolution": BACKWARD
        + PLACE
        + layer("Convolution", "x", "c1", conv("pad: 1 stride: 2 dilation: 1"))
        + layer(
            "Convolution",
            "c1",
            "c2",
            "convolution_param { num_output: 4 kernel_h: 2 kernel_w: 1 stride_h: 1 stride_w: 1 pad_h: 1 pad_w: 0"
            ' group: 2 weight_filler { type: "msra" } bias_filler { type: "constant" value: 0.1 } }',
        )
        + layer("Convolution", "c2", "c3", conv("force_nd_im2col: true pad: 1 axis: 1")),
        "deconvolution": BACKWARD
        + PLACE
        + layer(
            "Deconvolution",
            "x",
            "d",
            "convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: false"
            ' weight_filler { type: "bilinear" } }',
        )
        + layer("Im2col", "d", "i", "convolution_param { kernel_size: 3 stride: 2 dilation: 2 pad: 1 }"),
        "pooling": BACKWARD
        + PLACE
        + layer("Pooling", "x", "p1 mask", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }")
        + layer("Pooling", "p1", "p2", "pooling_param { pool: AVE kernel_h: 2 kernel_w: 2 pad_h: 1 pad_w: 1 }")
        + layer("Pooling", "p2", "p3", "pooling_param { pool: MAX kernel_size: 2 stride: 2 round_mode: FLOOR }")
        + layer("Pooling", "p2", "p4", "pooling_param { pool: AVE global_pooling: true }"),
        "spp": BACKWARD
        + PLACE
        + layer("SPP", "x", "s", "spp_param { pyramid_height: 2 pool: MAX }")
        + layer("SPP", "x", "t", "spp_param { pyramid_height: 1 pool: AVE }"),
        "lrn": BACKWARD
        + PLACE
        + layer("LRN", "x", "n1", "lrn_param { local_size: 3 alpha: 0.1 beta: 0.7 k: 2 }")
        + layer("LRN", "n1", "n2", "lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }")
        + layer("MVN", "n2", "m", "mvn_param { across_channels: true }")
        + layer("MVN", "m", "m2", "mvn_param { normalize_variance: false eps: 0.001 }"),
        "batchnorm": BACKWARD
        + PLACE
        + layer("BatchNorm", "x", "b", "batch_norm_param { moving_average_fraction: 0.9 eps: 0.001 }")
        + layer("Scale", "b", "b", 'scale_param { bias_term: true axis: 1 filler { type: "gaussian" std: 0.1 } }', "s")
        + layer("Bias", "b", "c", 'bias_param { axis: 1 num_axes: 2 filler { type: "constant" value: 1 } }')
        + layer("BatchNorm", "c", "c", "batch_norm_param { use_global_stats: true }", "b2"),
        "scales": BACKWARD
        + dummy("x y z", (2, 3, 4), (3,), (2, 3))
        + layer("Scale", "x y", "s", "scale_param { axis: 1 }")
        + layer("Bias", "s z", "t", "bias_param { axis: 0 }")
        + layer("Scale", "t", "u", "scale_param { axis: 0 num_axes: -1 bias_term: true }"),
        "shapes": BACKWARD
        + PLACE
        + layer("Flatten", "x", "f", "flatten_param { axis: 1 end_axis: 2 }")
        + layer("Reshape", "f", "r", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } axis: 0 num_axes: 2 }")
        + layer("Tile", "r", "t", "tile_param { axis: 1 tiles: 2 }")
        + layer("Slice", "t", "s1 s2", "slice_param { axis: 1 slice_point: 5 }")
        + layer("Concat", "s1 s2", "c", "concat_param { axis: 1 }")
        + layer("Reduction", "c", "sum", "reduction_param { operation: MEAN axis: 1 coeff: 2 }"),
        "reductions": BACKWARD
        + PLACE
        + layer("Reduction", "x", "a", "reduction_param { operation: ASUM axis: 2 }")
        + layer("Reduction", "x", "s", "reduction_param { operation: SUMSQ axis: -1 }")
        + layer("Split", "a", "a1 a2")
        + layer("Eltwise", "a1 a2", "e", "eltwise_param { operation: PROD }"),
        "eltwise": BACKWARD
        + dummy("x y", (2, 3), (2, 3))
        + layer("Eltwise", "x y", "e", "eltwise_param { operation: SUM coeff: 1 coeff: -1 }")
        + layer("Eltwise", "e x", "m", "eltwise_param { operation: MAX }")
        + layer("Eltwise", "m y e", "p", "eltwise_param { operation: PROD stable_prod_grad: false }"),
        "crop": BACKWARD
        + dummy("x y", (2, 3, 6, 6), (2, 3, 4, 3))
        + layer("Crop", "x y", "c", "crop_param { axis: 2 offset: 1 offset: 2 }"),
        "embed": dummy("i", (5,), filler='type: "uniform" min: 0 max: 3')
        + layer("Embed", "i", "e", f"embed_param {{ num_output: 3 input_dim: 4 {XAVIER} }}")
        + layer("Reduction", "e", "sum", "loss_weight: 1"),
        "filter": dummy(
            "x keep index", (4, 3), (4,), (3,), filler=('type: "gaussian"', ONE, 'type: "uniform" max: 1.5')
        )
        + FC
        + layer("Filter", "fc keep", "f")
        + layer("BatchReindex", "f index", "r")
        + layer("Reduction", "r", "sum", "loss_weight: 1"),
        "parameter": layer("Parameter", "", "p", "parameter_param { shape { dim: 2 dim: 3 } } param { lr_mult: 1 }")
        + layer("Reduction", "p", "sum", "loss_weight: 0.5"),
        "lstm": sequence("LSTM"),
        "rnn": sequence("RNN"),
        "lstm_unit": BACKWARD
        + dummy("c g cont", (1, 2, 3), (1, 2, 12), (1, 2), filler=('type: "gaussian"', 'type: "gaussian"', ONE))
        + layer("LSTMUnit", "c g cont", "c1 h1"),
        "hinge": loss("HingeLoss", parameters="hinge_loss_param { norm: L2 }"),
        "logistic": loss("MultinomialLogisticLoss")
        .replace('"fc" bottom: "label"', '"p" bottom: "label"')
        .replace(
            'layer { name: "loss"', layer("Softmax", "fc", "p", "softmax_param { axis: 1 }") + 'layer { name: "loss"'
        ),
        "infogain": loss("InfogainLoss", parameters='infogain_loss_param { source: "infogain.binaryproto" axis: 1 }'),
        "infogain3": loss(
            "InfogainLoss", dummy("h", (1, 1, 4, 4)), labels="label h", parameters="loss_param { ignore_label: 3 }"
        ).replace(BACKWARD, ""),
        "euclidean": loss("EuclideanLoss", dummy("t", (2, 4)), labels="t", parameters="loss_weight: 2"),
        "cross_entropy": loss("SigmoidCrossEntropyLoss", dummy("t", (2, 4)), labels="t"),
        "contrastive": BACKWARD
        + dummy("a b same", (3, 4), (3, 4), (3,), filler=('type: "gaussian"', 'type: "gaussian"', ONE))
        + layer("ContrastiveLoss", "a b same", "loss", "contrastive_loss_param { margin: 0.5 legacy_version: true }"),
        "softmax_loss": BACKWARD
        + X_LABEL
        + layer("Convolution", "x", "c", conv("pad: 1"))
        + layer("Pooling", "c", "p", "pooling_param { pool: AVE global_pooling: true }")
        + layer("ReLU", "p", "p", "relu_param { negative_slope: 0.1 }", name="relu")
        + layer("InnerProduct", "p", "fc", f"inner_product_param {{ num_output: 5 transpose: true {XAVIER} }}")
        + layer("SoftmaxWithLoss", "fc label", "loss", "loss_param { ignore_label: 2 normalization: FULL }"),
        "accuracy": X_LABEL
        + FC
        + layer("Accuracy", "fc label", "top1 each", "accuracy_param { top_k: 1 ignore_label: 3 }")
        + layer("SoftmaxWithLoss", "fc label", "loss"),
        "shared": BACKWARD
        + PLACE
        + layer(
            "InnerProduct",
            "x",
            "a",
            f'inner_product_param {{ num_output: 4 {XAVIER} }} param {{ name: "w" lr_mult: 1 }} param {{ name: "b" }}',
        )
        + layer(
            "InnerProduct",
            "x",
            "b",
            f'inner_product_param {{ num_output: 4 {XAVIER} }} param {{ name: "w" share_mode: PERMISSIVE }}'
            ' param { name: "b" decay_mult: 0 }',
        )
        + layer("EuclideanLoss", "a b", "loss", "propagate_down: true propagate_down: false"),
        "given_blobs": BACKWARD
        + PLACE.replace("dim: 3 dim: 6 dim: 6", "dim: 2")
        + layer(
            "InnerProduct",
            "x",
            "fc",
            "inner_product_param { num_output: 2 } blobs { shape { dim: 2 dim: 2 } data: 1 data: 2 data: 3 data: 4 }"
            " blobs { shape { dim: 2 } data: 1 data: -1 }",
        ),
        "memory_data": layer(
            "MemoryData", "", "x label", "memory_data_param { batch_size: 2 channels: 1 height: 3 width: 3 }"
        )
        + FC
        + layer("SoftmaxWithLoss", "fc label", "loss"),
        "data": layer(
            "Data",
            "",
            "x label",
            'data_param { source: "lmdb" batch_size: 3 backend: LMDB prefetch: 2 }'
            " transform_param { crop_size: 6 mirror: true scale: 0.01 mean_value: 10 mean_value: 11 mean_value: 12 }",
        )
        + FC
        + layer("SoftmaxWithLoss", "fc label", "loss"),
        "data_mean": layer(
            "Data",
            "",
            "x",
            'data_param { source: "lmdb" batch_size: 2 backend: LMDB }'
            ' transform_param { mean_file: "mean.binaryproto" }',
        )
        + layer("Data", "", "y", 'data_param { source: "encoded_lmdb" batch_size: 2 backend: LMDB }'),
        "crop_data": layer(
            "CropData",
            "",
            "x label",
            'crop_data_param { source: "lmdb" batch_size: 2 seed: 3 prefetch: 2 threads: 1 draw: TEN_CROP }'
            ' transform_param { crop_size: 5 mirror: true mean_file: "mean.binaryproto" }',
        )
        + FC
        + layer("SoftmaxWithLoss", "fc label", "loss"),
        "image_data": layer(
            "ImageData",
            "",
            "x label",
            'image_data_param { source: "images.txt" batch_size: 2 shuffle: true new_height: 7 new_width: 6 }'
            " transform_param { crop_size: 5 }",
        )
        + FC,
        "window_data": layer(
            "WindowData",
            "",
            "x label",
            'window_data_param { source: "windows.txt" batch_size: 4 fg_threshold: 0.5 bg_threshold: 0.4'
            ' fg_fraction: 0.5 context_pad: 1 crop_mode: "square" } transform_param { crop_size: 6 mirror: true }',
        )
        + layer(
            "WindowData",
            "",
            "y label2",
            'window_data_param { source: "windows.txt" batch_size: 2 cache_images: true }'
            ' transform_param { crop_size: 5 mean_file: "mean.binaryproto" }',
        ),
        "hdf5_data": layer("HDF5Data", "", "data label", 'hdf5_data_param { source: "hdf5.txt" batch_size: 3 }')
        + layer("HDF5Output", "data label", "", 'hdf5_output_param { file_name: "written.h5" }', "out"),
        "phases": "state { stage: 'a' }\n"
        + X
        + layer("ReLU", "x", "y", "include { phase: TRAIN } include { phase: TEST stage: 'a' not_stage: 'b' }")
        + layer("TanH", "x", "z", "exclude { min_level: 1 max_level: 3 }"),
        "inputs": 'input: "x" input_shape { dim: 2 dim: 3 }\n' + FC,
        "input_dims": 'input: "x" input: "y" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3'
        " input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 3\n" + layer("Eltwise", "x y", "e"),
        "v1": """
layers { name: "x" type: DUMMY_DATA top: "x" top: "label" dummy_data_param { num: 2 num: 2 channels: 3 channels: 1
  height: 6 height: 1 width: 6 width: 1 data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layers { name: "conv" type: CONVOLUTION bottom: "x" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  param: "w" param: "b" convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "pool" type: POOLING bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "pool" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" top: "loss" loss_weight: 1 }
""",
        "v0": """
input: "x" input_dim: 1 input_dim: 3 input_dim: 6 input_dim: 6 force_backward: true
layers { layer { name: "pad1" type: "padding" pad: 1 } bottom: "x" top: "padded" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 stride: 1 group: 1 biasterm: true
  weight_filler { type: "gaussian" std: 0.1 } bias_filler { type: "constant" } blobs_lr: 1 blobs_lr: 2 }
  bottom: "padded" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "pool" type: "pool" pool: MAX kernelsize: 2 stride: 2 } bottom: "conv" top: "pool" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.75 } bottom: "pool" top: "norm" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.5 } bottom: "norm" top: "norm" }
layers { layer { name: "ip" type: "innerproduct" num_output: 3 weight_filler { type: "xavier" } }
  bottom: "norm" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
""",
    }
    return {name: f'name: "{name}"\n{text}' for name, text in found.items()}


TRAINED = (
    dummy("x label", (2, 3, 4, 4), (2,), filler=('type: "gaussian"', ONE))
    + layer("Convolution", "x", "conv", f"convolution_param {{ num_output: 2 kernel_size: 2 {XAVIER} }}")
    + layer("BatchNorm", "conv", "conv", name="bn")
    + layer("Scale", "conv", "conv", "scale_param { bias_term: true }", name="scale")
    + layer("PReLU", "conv", "conv", name="prelu")
    + layer("InnerProduct", "conv", "fc", f"inner_product_param {{ num_output: 3 {XAVIER} }} param {{ lr_mult: 2 }}")
    + layer("SoftmaxWithLoss", "fc label", "loss")
)
TEST_NET = layer("Accuracy", "fc label", "accuracy", "include { phase: TEST }")

KINDS = {  # a solver's type: what it needs beside
    "SGD": 'momentum: 0.9 lr_policy: "step" stepsize: 1 gamma: 0.5 weight_decay: 0.01',
    "Nesterov": 'momentum: 0.9 lr_policy: "multistep" stepvalue: 1 stepvalue: 3 gamma: 0.5 clip_gradients: 1',
    "AdaGrad": 'lr_policy: "inv" gamma: 0.1 power: 0.5 regularization_type: "L1" weight_decay: 0.1',
    "RMSProp": 'rms_decay: 0.9 lr_policy: "exp" gamma: 0.9 iter_size: 2',
    "AdaDelta": 'momentum: 0.9 delta: 0.0001 lr_policy: "poly" power: 1',
    "Adam": 'momentum: 0.9 momentum2: 0.99 lr_policy: "sigmoid" gamma: 0.1 stepsize: 2 average_loss: 2',
}


def solvers():
    """Solver prototxts by name, with their nets within; all snapshot."""
    found = {}
    for i, (kind, text) in enumerate(KINDS.items()):
        test = "test_iter: 2 test_interval: 2 test_compute_loss: true" if i % 2 else "display: 1 debug_info: false"
        form = "snapshot_format: HDF5 snapshot_diff: true" if i % 3 == 2 else "snapshot: 1"
        found[kind] = (
            f'type: "{kind}" base_lr: 0.01 max_iter: 4 random_seed: 1 snapshot_prefix: "snap" {text} {test} {form}\n'
            f'net_param {{ name: "trained" {TRAINED}{TEST_NET} }}\n'
        )
    found["files"] = (
        'train_net: "trained.prototxt" test_net: "trained.prototxt" test_iter: 1 test_interval: 1\n'
        'solver_type: NESTEROV base_lr: 0.1 lr_policy: "fixed" weights: "trained.caffemodel"\n'
        'snapshot_prefix: "snap" solver_mode: CPU '
        "train_state { level: 1 } test_state { stage: 'deploy' }\n"
    )
    return found


def layer_types():
    """The layer types of the nets, those of the older formats by their newer names left out."""
    text = "".join([*nets().values(), *solvers().values()])
    return set(re.findall(r'layer \{ name: "[^"]*" type: "(\w+)"', text))


class Hdf5:
    """Enough of HDF5's C interface, in the library that caffe has loaded, to write any dataset."""

    def __init__(self):
        maps = Path("/proc/self/maps").read_text()
        names = {name: re.search(rf"/\S*/{name}[^/\s]*\.so\S*", maps).group() for name in ("libhdf5_\\w*hl", "libhdf5")}
        self.high, self.low = (ctypes.CDLL(name) for name in names.values())
        for function in (self.low.H5Fcreate, self.low.H5Gcreate2):
            function.restype = ctypes.c_int64
        self.low.H5Fget_obj_count.restype = ctypes.c_ssize_t

    def open_objects(self):
        every = 0x1F
        return self.low.H5Fget_obj_count(ctypes.c_int64(every), ctypes.c_uint(every))

    def write(self, path, tree):
        """`tree`: names to arrays (float32, int32), bytes (a text) or further trees."""
        file = ctypes.c_int64(self.low.H5Fcreate(str(path).encode(), 2, ctypes.c_int64(0), ctypes.c_int64(0)))
        self._fill(file, tree)
        self.low.H5Fclose(file)

    def _fill(self, parent, tree):
        for name, value in tree.items():
            key = name.encode()
            if isinstance(value, dict):
                zero = ctypes.c_int64(0)
                group = ctypes.c_int64(self.low.H5Gcreate2(parent, key, zero, zero, zero))
                if group.value >= 0:
                    self._fill(group, value)
                    self.low.H5Gclose(group)
            elif isinstance(value, bytes):
                self.high.H5LTmake_dataset_string(parent, key, value)
            else:
                value = np.ascontiguousarray(value)
                dims = (ctypes.c_uint64 * max(1, value.ndim))(*value.shape)
                make = self.high.H5LTmake_dataset_int if value.dtype == np.int32 else self.high.H5LTmake_dataset_float
                make(parent, key, value.ndim, dims, value.ctypes.data_as(ctypes.c_void_p))


def blobs(net):
    """The tree that net.save_hdf5 writes."""
    return {
        "data": {
            name: {str(i): blob.data.copy() for i, blob in enumerate(net.layer_dict[name].blobs)}
            for name in net._layer_names
        }
    }


def write_files(folder):
    """The files that the nets and solvers name, into `folder`."""
    import cv2
    import lmdb
    from caffe.proto import caffe_pb2

    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, size=(6, 3, IMAGE, IMAGE), dtype=np.uint8)
    for name, encoded, count in (("lmdb", False, 6), ("encoded_lmdb", True, 6), ("empty_lmdb", False, 0)):
        with lmdb.open(str(folder / name), map_size=1 << 20) as environment, environment.begin(write=True) as txn:
            for i in range(count):
                picture = np.ascontiguousarray(images[i].transpose(1, 2, 0))
                data = cv2.imencode(".png", picture)[1].tobytes() if encoded else images[i].tobytes()
                datum = caffe_pb2.Datum(channels=3, height=IMAGE, width=IMAGE, data=data, label=i % 3, encoded=encoded)
                txn.put(b"%08d" % i, datum.SerializeToString())
    for i in range(4):
        cv2.imwrite(str(folder / f"image{i}.png"), images[i].transpose(1, 2, 0))
    (folder / "images.txt").write_text("".join(f"image{i}.png {i % 3}\n" for i in range(4)))
    windows = "1 0.9 1 1 5 6\n2 0.6 0 0 7 7\n0 0.1 2 2 6 4\n"
    window_file = "".join(f"# {i}\nimage{i}.png\n3\n{IMAGE}\n{IMAGE}\n3\n{windows}" for i in range(4))
    (folder / "windows.txt").write_text(window_file)
    (folder / "windows_odd.txt").write_text(window_file.replace("# 3", "# 70").replace("1 1 5 6", "1 1 -5 60000"))
    (folder / "windows_short.txt").write_text(window_file[:-30])
    (folder / "windows_empty.txt").write_text("# 0\nimage0.png\n3\n8\n8\n0\n")
    (folder / "empty.txt").write_text("")
    for name, shape in (("mean", (1, 3, IMAGE, IMAGE)), ("infogain", (1, 1, 4, 4)), ("small_mean", (1, 3, 2, 2))):
        values = np.ones(shape, np.float32)
        blob = caffe_pb2.BlobProto(num=1, channels=shape[1], height=shape[2], width=shape[3], data=values.ravel())
        (folder / f"{name}.binaryproto").write_bytes(blob.SerializeToString())
    (folder / "hdf5.txt").write_text("data1.h5\ndata2.h5\n")
    (folder / "trained.prototxt").write_text(TRAINED)
