// Settings of GPU computation, per process. They apply to all threads and layers from the next pass.

#ifndef CAFFE_GPU_SETTINGS_HPP_
#define CAFFE_GPU_SETTINGS_HPP_

#include <cstddef>
#include <cstdint>

namespace caffe {

/// The environment sets the initial values:
///
///   CAFFE_TF32                  0 or 1 (default: 0)
///   CAFFE_CUDNN_WORKSPACE_MB    MiB, a whole number from 0 (default: 512)
///   CAFFE_CUDNN_DETERMINISTIC   0 or 1 (default: 0)
///
/// An empty value means the default. With any other value, each function below and Caffe's first use of a GPU throw
/// caffe::Error, which names the variable and the allowed values.
///
/// In a build without CUDA, the functions return false and 0, turning a setting off does nothing, and turning it on
/// throws caffe::Error.
namespace gpu_settings {

/// Whether the factors of float32 products may be rounded to TF32 (10 bits of mantissa instead of 23), which GPUs since
/// Ampere multiply many times faster. Applies to cuBLAS (inner products, Caffe's own convolutions) and cuDNN. float64
/// is never rounded.
bool Tf32();
void SetTf32(bool on);

/// The device memory in bytes that a cuDNN convolution may use in addition to its blobs. The layers of a thread share
/// one workspace per GPU, as large as the largest algorithm chosen; with 0, only algorithms without a workspace are
/// chosen.
size_t WorkspaceLimit();
/// @param bytes 0 or more; throws caffe::Error otherwise
void SetWorkspaceLimit(int64_t bytes);

/// Whether only reproducible algorithms are used: for cuDNN's convolutions and max pooling (engine: CUDNN; read when
/// the layer is created), and for Embed's gradient. Otherwise the order of summation in gradients may change from run
/// to run.
bool Deterministic();
void SetDeterministic(bool on);

/// A number that changes with each change of a setting; earlier choices are then discarded.
unsigned Generation();

}  // namespace gpu_settings
}  // namespace caffe

#endif  // CAFFE_GPU_SETTINGS_HPP_
