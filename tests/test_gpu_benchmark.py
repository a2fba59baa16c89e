"""How much of a GPU's memory is in use, by a driver made for the test: no GPU."""

import os
import subprocess
import sys

import pytest

from benchmarks import gpu_memory, net_benchmark
from tiny_imagenet.errors import GpuError

DRIVER = r"""
#include <string.h>
int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int* device, int number) { *device = 40 + number; return number == 2 ? 101 : 0; }
int cuDeviceGetName(char* name, int size, int device) { return size < 8 || !strcpy(name, "Model 7") || device < 40; }
int cuDeviceGetPCIBusId(char* bus, int size, int device) {
  strcpy(bus, "0000:41:00.0");
  return size < 20 || device < 40;
}
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** handle) {
  *handle = (void*)0x123456789abcdefL;
  return strcmp(bus, "0000:41:00.0");
}
int nvmlDeviceGetMemoryInfo(void* handle, unsigned long long* memory) {
  static unsigned long long used = 1ull << 33;
  memory[0] = 1ull << 36;
  memory[2] = used;
  memory[1] = memory[0] - memory[2];
  if (used < (1ull << 33) + 5000) used += 1000;
  return handle != (void*)0x123456789abcdefL;
}
"""


def test_the_drivers_memory(tmp_path):
    (tmp_path / "driver.c").write_text(DRIVER)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        command = ["cc", "-shared", "-fPIC", "-w", "-o", tmp_path / name, tmp_path / "driver.c"]
        subprocess.run(command, check=True)
    code = (
        "import time\n"
        "from benchmarks import gpu_memory\n"
        "memory = gpu_memory.Memory(1)\n"
        "with gpu_memory.Peak(memory) as peak:\n"
        "    while peak.bytes < 5000:\n"
        "        time.sleep(0.01)\n"
        "print(memory.name, memory.used() > 2**33, peak.bytes)\n"
        "try:\n"
        "    gpu_memory.Memory(2)\n"
        "except gpu_memory.GpuError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    first, second = done.stdout.splitlines()
    assert first == "Model 7 True 5000"
    assert second == "GPU 2 cannot be asked: cuDeviceGet gave error 101; nvidia-smi -L lists those there are"


def test_without_a_driver(monkeypatch):
    def none(name):
        raise OSError("not found")

    monkeypatch.setattr(gpu_memory.ctypes, "CDLL", none)
    with pytest.raises(GpuError, match=r"there is no NVIDIA driver \(libcuda.so.1\)"):
        gpu_memory.Memory(0)
    memory, problem = net_benchmark._memory(0)
    assert memory is None and "no NVIDIA driver" in problem["memory"]
