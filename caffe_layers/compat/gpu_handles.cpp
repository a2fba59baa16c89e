#ifndef CPU_ONLY

#include "gpu_handles.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "caffe/common.hpp"
#include "gpu_device.hpp"
#include "gpu_settings.hpp"

namespace caffe {

int64_t cluster_seedgen();  // of common.cpp: a random seed

struct GpuHandles::OnDevice {
  cublasHandle_t cublas = nullptr;
  bool tf32 = false;  // cuBLAS's default
  curandGenerator_t curand = nullptr;
#ifdef USE_CUDNN
  cudnnHandle_t cudnn = nullptr;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
#endif
};

GpuHandles::GpuHandles() {}

GpuHandles::~GpuHandles() {
  // The main thread ends with the process, when the libraries may be unloaded; the operating system frees everything.
  if (syscall(SYS_gettid) == getpid()) return;
  for (const auto& device : devices_) {
    if (cudaSetDevice(device.first) != cudaSuccess) return;
    const OnDevice& here = *device.second;
    if (here.cublas) cublasDestroy(here.cublas);
    if (here.curand) curandDestroyGenerator(here.curand);
#ifdef USE_CUDNN
    if (here.cudnn) cudnnDestroy(here.cudnn);
    if (here.workspace) cudaFree(here.workspace);
#endif
  }
}

GpuHandles::OnDevice& GpuHandles::Here() {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  std::unique_ptr<OnDevice>& here = devices_[device];
  if (!here) {
    CheckGpu();
    here.reset(new OnDevice);
  }
  return *here;
}

cublasHandle_t GpuHandles::Cublas() {
  OnDevice& here = Here();
  if (here.cublas == nullptr) CUBLAS_CHECK(cublasCreate(&here.cublas));
  const bool tf32 = gpu_settings::Tf32();
  if (here.tf32 != tf32) {
    CUBLAS_CHECK(cublasSetMathMode(here.cublas, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
    here.tf32 = tf32;
  }
  return here.cublas;
}

curandGenerator_t GpuHandles::Curand() {
  OnDevice& here = Here();
  if (here.curand == nullptr) {
    // Philox has no state on the device, so seeding before each iteration does not synchronise.
    CURAND_CHECK(curandCreateGenerator(&here.curand, CURAND_RNG_PSEUDO_PHILOX4_32_10));
    CURAND_CHECK(curandSetPseudoRandomGeneratorSeed(here.curand, seeded_ ? seed_ : cluster_seedgen()));
  }
  return here.curand;
}

void GpuHandles::SeedCurand(unsigned seed) {
  seeded_ = true;
  seed_ = seed;
  for (const auto& device : devices_) {
    const curandGenerator_t generator = device.second->curand;
    if (generator == nullptr) continue;
    CURAND_CHECK(curandSetPseudoRandomGeneratorSeed(generator, seed));
    CURAND_CHECK(curandSetGeneratorOffset(generator, 0));
  }
}

#ifdef USE_CUDNN

cudnnHandle_t GpuHandles::Cudnn() {
  OnDevice& here = Here();
  if (here.cudnn == nullptr) CUDNN_CHECK(cudnnCreate(&here.cudnn));
  return here.cudnn;
}

void* GpuHandles::Workspace(size_t bytes) {
  OnDevice& here = Here();
  if (bytes == 0) return nullptr;
  // Reallocated if it is too small, or if the limit has been lowered.
  if (here.workspace_bytes < bytes || here.workspace_bytes > gpu_settings::WorkspaceLimit()) {
    FreeOnGpu(here.workspace);
    here.workspace = nullptr;
    here.workspace_bytes = 0;
    if (cudaMalloc(&here.workspace, bytes) != cudaSuccess) {
      cudaGetLastError();
      here.workspace = nullptr;
      return nullptr;
    }
    here.workspace_bytes = bytes;
  }
  return here.workspace;
}

#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CPU_ONLY
