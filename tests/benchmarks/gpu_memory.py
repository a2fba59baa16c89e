"""How much of a GPU's memory is in use, as its driver says: of all programs together, without being one of them."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from tiny_imagenet.errors import GpuError

EVERY = 0.01  # seconds from one look at the memory to the next


class Memory:
    """A GPU by its number, as CUDA counts: CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER hold.

    Attributes:
        name: what it is called.

    Raises:
        GpuError: there is no driver, or no such GPU.
    """

    def __init__(self, number: int):
        cuda, self._nvml = _library("libcuda.so.1"), _library("libnvidia-ml.so.1")
        device = ctypes.c_int()
        _check(cuda.cuInit(0), "cuInit", number)
        _check(cuda.cuDeviceGet(ctypes.byref(device), number), "cuDeviceGet", number)
        name, bus = ctypes.create_string_buffer(256), ctypes.create_string_buffer(64)
        _check(cuda.cuDeviceGetName(name, len(name), device), "cuDeviceGetName", number)
        _check(cuda.cuDeviceGetPCIBusId(bus, len(bus), device), "cuDeviceGetPCIBusId", number)
        self.name = name.value.decode(errors="replace")
        self._handle = ctypes.c_void_p()
        _check(self._nvml.nvmlInit_v2(), "nvmlInit", number)
        found = self._nvml.nvmlDeviceGetHandleByPciBusId_v2(bus, ctypes.byref(self._handle))
        _check(found, "nvmlDeviceGetHandleByPciBusId", number)
        self._number = number

    def used(self) -> int:
        """Bytes in use.

        Raises:
            GpuError: the driver does not say.
        """
        memory = (ctypes.c_ulonglong * 3)()  # total, free, used
        _check(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, memory), "nvmlDeviceGetMemoryInfo", self._number)
        return memory[2]


class Peak:
    """While it is entered, watches how much memory of a GPU is in use.

    Attributes:
        bytes: the most that came to what was in use at the start.
    """

    def __init__(self, memory: Memory):
        self._memory = memory
        self._ended = threading.Event()
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._before = self._memory.used()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            self.bytes = max(self.bytes, self._memory.used() - self._before)


def _library(name: str) -> Any:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise GpuError(f"there is no NVIDIA driver ({name}): {error}") from error


def _check(error: int, call: str, number: int) -> None:
    if error:
        raise GpuError(f"GPU {number} cannot be asked: {call} gave error {error}; nvidia-smi -L lists those there are")
