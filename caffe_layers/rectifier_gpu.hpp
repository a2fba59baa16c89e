#ifndef CAFFE_RECTIFIER_GPU_HPP_
#define CAFFE_RECTIFIER_GPU_HPP_

#include <cstddef>

typedef struct CUstream_st* cudaStream_t;  // as in CUDA's headers, which a build without CUDA lacks

namespace caffe {

/// The kernels of rectifier.hpp on the GPU: the same formulas, arrays of outer x channels x inner values and one slope
/// per channel, all in device memory. Sizes may be 0, and arrays may have any alignment that Dtype allows. Arrays with
/// the same offset from a multiple of 16 bytes are accessed 16 bytes at a time, others value by value.
///
/// The functions add their work to the stream and return; launch errors can be read with cudaPeekAtLastError.
///
/// y, dx and kept have the same bits as on the CPU. The sums in dslopes have the same bits in every run if the arrays
/// have the same offset from a multiple of 16 bytes: they are computed from fixed pieces, which depend on the sizes and
/// that offset, in a fixed order without atomics.

/// Compute y from x.
/// @param y     may be x
/// @param kept  if not null, receives a copy of x; must be neither x nor y
template <typename Dtype>
void RectifierForwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                         Dtype* kept, cudaStream_t stream);

/// The workspace in bytes that RectifierBackwardGpu needs to compute dslopes.
template <typename Dtype>
size_t RectifierWorkspaceBytes(size_t outer, size_t channels, size_t inner);

/// Compute both gradients in one pass over x and dy.
/// @param dx         overwritten: dy if x > 0, else a_c dy; may be dy, or null
/// @param dslopes    added to: the sum of x dy over the values x <= 0 of a channel; may be null
/// @param workspace  RectifierWorkspaceBytes(outer, channels, inner) bytes, overwritten; unused if dslopes is null
template <typename Dtype>
void RectifierBackwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                          const Dtype* dy, Dtype* dx, Dtype* dslopes, Dtype* workspace, cudaStream_t stream);

}  // namespace caffe

#endif  // CAFFE_RECTIFIER_GPU_HPP_
