#include "gpu_device.hpp"

#include <glog/logging.h>

#include "gpu_settings.hpp"

#ifndef CPU_ONLY
#include <cuda_runtime.h>

#include <cstdlib>
#endif

namespace caffe {

#ifdef CPU_ONLY

std::string WhyNoGpu() {
  return "this build of Caffe has no GPU support: it was built without CUDA (cmake -DCPU_ONLY=OFF)";
}

#else

namespace {

/// 13000 means 13.0.
std::string Version(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

/// The environment variable that hides devices, if it is set.
std::string Hidden() {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible == nullptr ? "" : std::string(" (CUDA_VISIBLE_DEVICES is \"") + visible + "\")";
}

/// Log `error`, except at the end of the process, when the runtime may have been unloaded.
void LogProblem(cudaError_t error) {
  if (error == cudaErrorCudartUnloading) return;
  LOG_IF(ERROR, error != cudaSuccess) << CudaProblem(error);
}

}  // namespace

std::string WhyNoGpu() {
  int devices = 0, driver = 0, runtime = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return "";
  cudaGetLastError();
  cudaDriverGetVersion(&driver);  // 0 without a driver
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "there is no NVIDIA driver on this machine: GPUs cannot be used";
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it is for CUDA up to " + Version(driver) +
           ", and this build of Caffe is for " + Version(runtime);
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) return "the NVIDIA driver finds no GPU" + Hidden();
  return std::string("GPUs cannot be used: ") + cudaGetErrorString(error);
}

std::string CudaProblem(int number) {
  const cudaError_t error = static_cast<cudaError_t>(number);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver || error == cudaErrorNoDevice) {
    const std::string why = WhyNoGpu();
    if (!why.empty()) return why;
  }
  std::string text = std::string("CUDA: ") + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) {
    int device = 0;
    size_t free = 0, all = 0;
    if (cudaGetDevice(&device) == cudaSuccess && cudaMemGetInfo(&free, &all) == cudaSuccess) {
      text += ": of the " + std::to_string(all >> 20) + " MiB of GPU " + std::to_string(device) + " " +
              std::to_string(free >> 20) + " are free; a smaller batch takes less";
    }
  } else if (error == cudaErrorNoKernelImageForDevice) {
    text += ": this build has no code for this kind of GPU (cmake -DCMAKE_CUDA_ARCHITECTURES=... names others)";
  }
  return text;
}

void FreeOnGpu(void* memory) { LogProblem(cudaFree(memory)); }

void FreePinned(void* memory) { LogProblem(cudaFreeHost(memory)); }

#endif  // CPU_ONLY

void CheckGpu() {
  gpu_settings::Tf32();  // reads the environment
  const std::string why = WhyNoGpu();
  LOG_IF(FATAL, !why.empty()) << why;
}

void UseGpu(int device) {
  CheckGpu();
#ifndef CPU_ONLY
  int devices = 0;
  cudaGetDeviceCount(&devices);
  LOG_IF(FATAL, device < 0 || device >= devices)
      << "GPU " << device << " does not exist: it must be 0 to " << devices - 1 << Hidden();
  const cudaError_t error = cudaSetDevice(device);
  LOG_IF(FATAL, error != cudaSuccess) << "GPU " << device << " cannot be used: " << CudaProblem(error);
#endif
}

}  // namespace caffe
