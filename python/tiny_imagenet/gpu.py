"""The GPUs that Caffe can use, and the one that this thread computes on.

They are queried through the CUDA runtime that Caffe is linked with, so that CUDA_VISIBLE_DEVICES and the driver's
version count as they do for Caffe. A query allocates no GPU memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import caffe

from tiny_imagenet.errors import GpuError

BUILD = "build it with tools/setup.sh --gpu"
CPU = "or use --gpu none to compute on the CPU"
_NAME = 256  # bytes of the name, the first field of cudaDeviceProp in every version


def names() -> list[str]:
    """Return the names of the GPUs, in the order of their numbers.

    Raises:
        GpuError: none can be used.
    """
    runtime = _runtime()
    if runtime is None:
        raise GpuError(f"this build of Caffe has no GPU support: {BUILD}, {CPU}")
    count = ctypes.c_int(0)
    if runtime.cudaGetDeviceCount(ctypes.byref(count)) or not count.value:
        raise GpuError(f"{_problem()}: install a driver, {CPU}")
    return [_name(runtime, number) for number in range(count.value)]


def versions() -> dict[str, str]:
    """Return the versions of the CUDA runtime and, if Caffe has it, of cuDNN; {} in a build without GPU support."""
    runtime, found = _runtime(), {}
    if runtime is not None:
        number = ctypes.c_int(0)
        if not runtime.cudaRuntimeGetVersion(ctypes.byref(number)):
            found["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
        if hasattr(runtime, "cudnnGetVersion"):
            runtime.cudnnGetVersion.restype = ctypes.c_size_t
            found["cudnn"] = _dotted(runtime.cudnnGetVersion())
    return found


def _dotted(cudnn: int) -> str:
    """8904 is 8.9.4, 91300 is 9.13.0."""
    major = 10000 if cudnn >= 90000 else 1000
    return f"{cudnn // major}.{cudnn % major // 100}.{cudnn % 100}"


def choose(given: Sequence[int] | str) -> tuple[int, ...]:
    """Return the numbers of GPUs, given as numbers or "all".

    Raises:
        GpuError: one is missing or cannot be used, or several are given and this build has no NCCL.
    """
    if not given:
        return ()
    wanted = "all GPUs" if given == "all" else f"GPU {', '.join(map(str, given))}"
    try:
        there = names()
    except GpuError as error:
        raise GpuError(f"{wanted}: {error}") from error
    numbers = tuple(range(len(there))) if given == "all" else tuple(map(int, given))
    for number in numbers:
        if not 0 <= number < len(there):
            has = ", ".join(f"{n} ({name})" for n, name in enumerate(there))
            raise GpuError(f"GPU {number} is missing: expected one of {has}")
    if len(numbers) > 1 and not caffe.has_nccl():
        raise GpuError(
            f"{wanted}: this build of Caffe has no NCCL, which several GPUs need: name one GPU, or install NCCL "
            "(libnccl-dev) and run tools/setup.sh --gpu"
        )
    return numbers


def take(device: int | None) -> None:
    """Select the GPU of this thread's Caffe before anything allocates memory on another; computation stays on the CPU.

    Raises:
        GpuError: it cannot be used.
    """
    if device is not None:
        _call(device, caffe.set_device, device)
    caffe.set_mode_cpu()


def compute_on(device: int | None, tf32: bool | None = None, deterministic: bool | None = None) -> None:
    """Build and compute on a GPU in this thread from here on; None is the CPU.

    Args:
        device: number of the GPU.
        tf32: whether products may round their factors to TF32; None keeps the setting.
        deterministic: whether to use only algorithms with reproducible results; None keeps the setting.

    Raises:
        GpuError: it cannot be used, or this build lacks a setting.
    """
    if device is None:
        caffe.set_mode_cpu()
        return
    _call(device, caffe.set_device, device)
    _call(device, caffe.set_mode_gpu)
    if tf32 is not None:
        _call(device, _setting("set_tf32"), tf32)
    if deterministic is not None:
        _call(device, _setting("set_deterministic"), deterministic)


def settings() -> dict[str, bool]:
    """Return the defaults of tf32 and deterministic (from CAFFE_TF32 and CAFFE_CUDNN_DETERMINISTIC).

    Raises:
        GpuError: a variable has an invalid value.
    """
    try:
        return {name: bool(getattr(caffe, name, bool)()) for name in ("tf32", "deterministic")}
    except caffe.CaffeError as error:
        raise GpuError(str(error)) from error


def _setting(name: str) -> Any:
    if not hasattr(caffe, name):
        raise GpuError(f"the installed Caffe has no {name}(): {BUILD}")
    return getattr(caffe, name)


def _call(device: int, function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except caffe.CaffeError as error:
        names()  # explains it better if there is no GPU at all
        raise GpuError(f"GPU {device} cannot be used: {error}") from error


def _runtime() -> Any:
    """The CUDA runtime that Caffe is linked with; None in a build without GPU support."""
    library = ctypes.CDLL(caffe._caffe.__file__)
    return library if hasattr(library, "cudaGetDeviceCount") else None


def _problem() -> str:
    """Caffe's reason for not finding a GPU."""
    try:
        caffe.set_mode_gpu()
    except caffe.CaffeError as error:
        return str(error)
    caffe.set_mode_cpu()
    return "CUDA finds no GPU"


def _name(runtime: Any, number: int) -> str:
    properties = ctypes.create_string_buffer(1 << 14)  # larger than the struct of any version
    if runtime.cudaGetDeviceProperties(properties, number):
        return "?"
    return properties.raw[:_NAME].split(b"\0")[0].decode(errors="replace")
