// What a thread keeps on its GPUs: the handles of CUDA's libraries and cuDNN's workspace.

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

/// One thread's, a member of its Caffe object. Each is made when it is first asked for, and so by none that computes on
/// the CPU: a machine without a GPU is not asked for one, and a machine with one has no memory of it taken. They belong
/// to the device that is current in the thread; another device has others. All functions throw caffe::Error where a
/// library fails, and where there is no GPU with WhyNoGpu's sentence.
class GpuHandles {
 public:
  GpuHandles();
  ~GpuHandles();
  GpuHandles(const GpuHandles&) = delete;
  GpuHandles& operator=(const GpuHandles&) = delete;

  /// With the math mode that gpu_settings::Tf32 asks for.
  cublasHandle_t Cublas();

  /// Seeded as SeedCurand last said, else by chance.
  curandGenerator_t Curand();

  /// Seeds the generators that are there and those that are yet to be made.
  void SeedCurand(unsigned seed);

#ifdef USE_CUDNN
  cudnnHandle_t Cudnn();

  /// Memory of the device for one call of cuDNN's, `bytes` or more; null where there is not as much. The next call gets
  /// the same again: what the device computes in one thread it computes in turn.
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
