// The availability of a GPU.

#ifndef CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_
#define CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_

#include <string>

namespace caffe {

/// The reason why this process cannot compute on a GPU, in one sentence: built without CUDA, no driver, a driver that
/// is too old, or no device. Empty if it can.
std::string WhyNoGpu();

/// Throws caffe::Error with that sentence, or if a gpu_settings variable of the environment is invalid.
void CheckGpu();

/// Make this thread compute on the GPU with this number, from 0. Throws caffe::Error as CheckGpu does, or if the GPU
/// does not exist or cannot be used.
void UseGpu(int device);

#ifndef CPU_ONLY
/// The description of a cudaError_t, with advice if the cause is known. Clears the error, because a non-fatal one such
/// as insufficient memory would be reported again by the next kernel check.
std::string CudaProblem(int error);

/// Free device memory. Errors are logged, because destructors must not throw; at the end of the process they are
/// ignored.
void FreeOnGpu(void* memory);

/// The same for memory of cudaMallocHost.
void FreePinned(void* memory);
#endif

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_
