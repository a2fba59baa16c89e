// How Caffe computes on the GPU: three settings of the process. Each holds for all threads and layers, from their next
// pass on.

#ifndef CAFFE_GPU_SETTINGS_HPP_
#define CAFFE_GPU_SETTINGS_HPP_

#include <cstddef>
#include <cstdint>

namespace caffe {

/// What stands in the environment holds until a setter is called:
///
///   CAFFE_TF32                  0 or 1 (default: 0)
///   CAFFE_CUDNN_WORKSPACE_MB    MiB, a whole number from 0 (default: 512)
///   CAFFE_CUDNN_DETERMINISTIC   0 or 1 (default: 0)
///
/// An empty value is the default. Any other makes each function here throw caffe::Error, which names it and what is
/// allowed, and so does Caffe's first use of a GPU.
///
/// A build without CUDA has none of them: the functions answer false and 0, turning off does nothing, and turning on
/// throws caffe::Error.
namespace gpu_settings {

/// Whether products of float32 values may round their factors to TF32, 10 bits of mantissa in place of 23, which GPUs
/// since Ampere multiply many times faster. Of cuBLAS (inner products, Caffe's own convolutions) and of cuDNN. float64
/// is never rounded.
bool Tf32();
void SetTf32(bool on);

/// How many bytes of the GPU's memory a convolution of cuDNN's may take beside its blobs. All layers of a thread share
/// one such workspace on each GPU, as large as the largest algorithm chosen within this limit; with 0 only algorithms
/// that need none are chosen.
size_t WorkspaceLimit();
/// @param bytes 0 or more; throws caffe::Error for less
void SetWorkspaceLimit(int64_t bytes);

/// Whether only what gives the same bits in every run is used: of cuDNN's algorithms for convolutions, of its max
/// poolings (engine: CUDNN; as it is when the layer is made), and for Embed's gradient. Without, a gradient may be
/// summed in an order of its own each time, and training ends a little differently.
bool Deterministic();
void SetDeterministic(bool on);

/// Another number after each change of a setting: what was chosen under an earlier one is chosen anew.
unsigned Generation();

}  // namespace gpu_settings
}  // namespace caffe

#endif  // CAFFE_GPU_SETTINGS_HPP_
