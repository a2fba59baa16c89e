"""Caffe in Python: the names of upstream's python/caffe/__init__.py and additions.

    import caffe

    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="weights.caffemodel")
    scores = net.forward(data=images)["prob"]
    solver = caffe.get_solver("solver.prototxt")
    solver.step(100)

Added: CaffeError (a RuntimeError, where upstream ends the process), log_level, Solver, SolverParameter and Blob,
LmdbRecords and crop_image (images as CropData reads and crops them), and for the GPU set_tf32, set_workspace_limit and
set_deterministic, each with a function that returns the setting.
"""

import os
import typing

# Threads that wait by spinning make training many times slower on a busy machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from ._lazy import lazy_module

if typing.TYPE_CHECKING:
    from . import io
else:
    io = lazy_module("caffe.io")  # scikit-image takes longer to import than everything else

from .pycaffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    Net,
    RMSPropSolver,
    SGDSolver,
    Timer,
)
from ._caffe import (
    Blob,
    CaffeError,
    Layer,
    LmdbRecords,
    Solver,
    SolverParameter,
    __version__,
    crop_image,
    deterministic,
    get_solver,
    has_nccl,
    init_log,
    layer_type_list,
    log,
    log_level,
    set_deterministic,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    set_tf32,
    set_workspace_limit,
    solver_count,
    solver_rank,
    tf32,
    workspace_limit,
)
from .proto.caffe_pb2 import TEST, TRAIN
from . import kernels
from .classifier import Classifier
from .detector import Detector
from .net_spec import NetSpec, layers, params, to_proto

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "CaffeError",
    "Classifier",
    "Detector",
    "Layer",
    "LmdbRecords",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "SolverParameter",
    "Timer",
    "__version__",
    "crop_image",
    "deterministic",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "kernels",
    "layer_type_list",
    "layers",
    "log",
    "log_level",
    "params",
    "set_deterministic",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "set_tf32",
    "set_workspace_limit",
    "solver_count",
    "solver_rank",
    "tf32",
    "to_proto",
    "workspace_limit",
]
