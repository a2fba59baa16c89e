"""The GPUs that Caffe can use here, and the one that this thread computes on.

What there is, is asked of the CUDA runtime that Caffe itself is linked with, so that its answer is what Caffe will
find: CUDA_VISIBLE_DEVICES holds, and a driver that is too old shows. Asking takes no memory of a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import caffe

from tiny_imagenet.errors import GpuError

BUILD = "tools/setup.sh --gpu builds it for a GPU"
CPU = "--gpu none computes on the CPU"
_NAME = 256  # bytes that cudaDeviceProp begins with, in every version


def names() -> list[str]:
    """What the GPUs are called, by their numbers.

    Raises:
        GpuError: none can be used; the message says why and what to do.
    """
    runtime = _runtime()
    if runtime is None:
        raise GpuError(f"this build of Caffe is for the CPU alone: {BUILD}; {CPU}")
    count = ctypes.c_int(0)
    if runtime.cudaGetDeviceCount(ctypes.byref(count)) or not count.value:
        raise GpuError(f"{_problem()}; {CPU}")
    return [_name(runtime, number) for number in range(count.value)]


def versions() -> dict[str, str]:
    """Of the CUDA runtime, and of cuDNN where Caffe has it; empty in a build for the CPU alone."""
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
    """The numbers of the GPUs that `given` means: numbers, each of which must be there, or "all".

    Raises:
        GpuError: one is not there or cannot be used, or they are several and this build has no NCCL.
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
            raise GpuError(f"there is no GPU {number} here: there {'is' if len(there) == 1 else 'are'} {has}")
    if len(numbers) > 1 and not caffe.has_nccl():
        raise GpuError(
            f"{wanted}: this build of Caffe has no NCCL, without which GPUs do not train together: name one of them, "
            "or install NCCL (libnccl-dev) and run tools/setup.sh --gpu"
        )
    return numbers


def take(device: int | None) -> None:
    """Let this thread's Caffe work with a GPU from here on, before anything else takes another; it computes on the CPU.

    Raises:
        GpuError: it cannot be used.
    """
    if device is not None:
        _call(device, caffe.set_device, device)
    caffe.set_mode_cpu()


def compute_on(device: int | None, tf32: bool | None = None, deterministic: bool | None = None) -> None:
    """Let what is built and computed in this thread from here on be on a GPU; None is the CPU.

    Args:
        device: its number.
        tf32: whether products may round their factors to TF32; None leaves that as it is.
        deterministic: whether only what gives the same bits in every run may be used; None leaves that as it is.

    Raises:
        GpuError: it cannot be used, or this build cannot do that.
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
    """What holds where nobody says otherwise (CAFFE_TF32, CAFFE_CUDNN_DETERMINISTIC): tf32 and deterministic.

    Raises:
        GpuError: a variable's value cannot be read.
    """
    try:
        return {name: bool(getattr(caffe, name, bool)()) for name in ("tf32", "deterministic")}
    except caffe.CaffeError as error:
        raise GpuError(str(error)) from error


def _setting(name: str) -> Any:
    if not hasattr(caffe, name):
        raise GpuError(f"the Caffe that is installed has no {name}(): build it anew with tools/setup.sh --gpu")
    return getattr(caffe, name)


def _call(device: int, function: Any, *arguments: Any) -> None:
    try:
        function(*arguments)
    except caffe.CaffeError as error:
        names()  # says it better, where there is no GPU at all
        raise GpuError(f"GPU {device} cannot be used: {error}") from error


def _runtime() -> Any:
    """The CUDA runtime that Caffe is linked with; None in a build for the CPU alone."""
    library = ctypes.CDLL(caffe._caffe.__file__)
    return library if hasattr(library, "cudaGetDeviceCount") else None


def _problem() -> str:
    """Why there is no GPU, in Caffe's words."""
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
