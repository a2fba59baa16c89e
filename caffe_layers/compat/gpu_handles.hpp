// The library handles and the cuDNN workspace of a thread on its GPUs.

#ifndef CAFFE_LAYERS_COMPAT_GPU_HANDLES_HPP_
#define CAFFE_LAYERS_COMPAT_GPU_HANDLES_HPP_
#ifndef CPU_ONLY

#include <cublas_v2.h>
#include <curand.h>
#ifdef USE_CUDNN
#include <cudnn.h>
#endif

#include <cstddef>
#include <map>
#include <memory>

namespace caffe {

/// The handles of a thread, a member of its Caffe object. Each is created at its first use, so that CPU computation
/// needs no GPU and takes no GPU memory. Handles belong to the current device of the thread. All functions throw
/// caffe::Error if a library fails or no GPU is available (WhyNoGpu).
class GpuHandles {
 public:
  GpuHandles();
  ~GpuHandles();
  GpuHandles(const GpuHandles&) = delete;
  GpuHandles& operator=(const GpuHandles&) = delete;

  /// With the math mode of gpu_settings::Tf32.
  cublasHandle_t Cublas();

  /// Seeded by SeedCurand, else randomly.
  curandGenerator_t Curand();

  /// Seed the existing generators and those created later.
  void SeedCurand(unsigned seed);

#ifdef USE_CUDNN
  cudnnHandle_t Cudnn();

  /// Device memory of at least `bytes` for one cuDNN call; null if it cannot be allocated. The next call reuses it,
  /// because the calls of a thread run in order.
  void* Workspace(size_t bytes);
#endif

 private:
  struct OnDevice;
  OnDevice& Here();

  std::map<int, std::unique_ptr<OnDevice>> devices_;
  bool seeded_ = false;
  unsigned seed_ = 0;
};

}  // namespace caffe

#endif  // CPU_ONLY
#endif  // CAFFE_LAYERS_COMPAT_GPU_HANDLES_HPP_
