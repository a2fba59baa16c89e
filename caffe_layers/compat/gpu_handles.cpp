#ifndef CPU_ONLY

#include "gpu_handles.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "caffe/common.hpp"
#include "gpu_device.hpp"
#include "gpu_settings.hpp"

namespace caffe {

int64_t cluster_seedgen();  // of common.cpp: a number by chance

struct GpuHandles::OnDevice {
  cublasHandle_t cublas = NULL;
  bool tf32 = false;  // cuBLAS's own default
  curandGenerator_t curand = NULL;
#ifdef USE_CUDNN
  cudnnHandle_t cudnn = NULL;
  void* workspace = NULL;
  size_t workspace_bytes = 0;
#endif
};

GpuHandles::GpuHandles() {}

GpuHandles::~GpuHandles() {
  // The main thread ends with the process, when the libraries may be gone already; the process's end frees all.
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
  if (here.cublas == NULL) CUBLAS_CHECK(cublasCreate(&here.cublas));
  const bool tf32 = gpu_settings::Tf32();
  if (here.tf32 != tf32) {
    CUBLAS_CHECK(cublasSetMathMode(here.cublas, tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
    here.tf32 = tf32;
  }
  return here.cublas;
}

curandGenerator_t GpuHandles::Curand() {
  OnDevice& here = Here();
  if (here.curand == NULL) {
    // Philox needs no state on the device: a training loop that seeds before each iteration does not wait for it.
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
    if (generator == NULL) continue;
    CURAND_CHECK(curandSetPseudoRandomGeneratorSeed(generator, seed));
    CURAND_CHECK(curandSetGeneratorOffset(generator, 0));
  }
}

#ifdef USE_CUDNN

cudnnHandle_t GpuHandles::Cudnn() {
  OnDevice& here = Here();
  if (here.cudnn == NULL) CUDNN_CHECK(cudnnCreate(&here.cudnn));
  return here.cudnn;
}

void* GpuHandles::Workspace(size_t bytes) {
  OnDevice& here = Here();
  if (bytes == 0) return NULL;
  // Made anew where it is too small, and where the limit has been lowered since.
  if (here.workspace_bytes < bytes || here.workspace_bytes > gpu_settings::WorkspaceLimit()) {
    FreeOnGpu(here.workspace);
    here.workspace = NULL;
    here.workspace_bytes = 0;
    if (cudaMalloc(&here.workspace, bytes) != cudaSuccess) {
      cudaGetLastError();
      here.workspace = NULL;
      return NULL;
    }
    here.workspace_bytes = bytes;
  }
  return here.workspace;
}

#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CPU_ONLY
