// Whether there is a GPU to compute on, and in words why not.

#ifndef CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_
#define CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_

#include <string>

namespace caffe {

/// Why this process cannot compute on a GPU, in one sentence: built without CUDA, no driver, a driver that is too old,
/// no device. Empty where it can.
std::string WhyNoGpu();

/// Throws caffe::Error with that sentence, or for a gpu_settings variable of the environment that cannot be read.
void CheckGpu();

/// Makes the GPU of this number, from 0, the one that this thread computes on. Throws caffe::Error as CheckGpu does,
/// and where there is none of that number or it cannot be used.
void UseGpu(int device);

#ifndef CPU_ONLY
/// A failed call's error (a cudaError_t) in words, with what to do about it where that is known. Clears it: what is no
/// fault of the device, memory that was not there say, would else be found again by the next check of a kernel.
std::string CudaProblem(int error);

/// Frees memory of the device. What goes wrong is a line in the log: destructors do so, which must not throw. A process
/// that ends has nothing to say.
void FreeOnGpu(void* memory);

/// The same for memory that cudaMallocHost gave.
void FreePinned(void* memory);
#endif

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_GPU_DEVICE_HPP_
