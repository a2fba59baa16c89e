#ifndef CAFFE_RECTIFIER_GPU_HPP_
#define CAFFE_RECTIFIER_GPU_HPP_

#include <cstddef>

typedef struct CUstream_st* cudaStream_t;  // as CUDA's headers have it, which a build without CUDA lacks

namespace caffe {

/// The kernels of rectifier.hpp on the device: the same formulas, arrays outer x channels x inner and slopes one a
/// channel, all of them in the device's memory. Any size, none included, and any alignment of a Dtype; arrays that lie
/// alike to 16 bytes are read and written 16 bytes at a time, others value by value.
///
/// The calls put their work into the stream and return; errors of the launch are left to cudaPeekAtLastError.
///
/// y, dx and kept are those of the CPU's kernels to the bit. The sums in dslopes are the same bits in every run for
/// arrays that lie alike to 16 bytes: they are made of fixed pieces that depend on the sizes, and on how far the
/// arrays lie past 16 bytes, added in a fixed order, without atomics.

/// y from x.
/// @param y     may be x
/// @param kept  where not null, x's values are copied there; neither x nor y
template <typename Dtype>
void RectifierForwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                         Dtype* kept, cudaStream_t stream);

/// Bytes of device memory that RectifierBackwardGpu needs beside its arrays when it sums dslopes.
template <typename Dtype>
size_t RectifierWorkspaceBytes(size_t outer, size_t channels, size_t inner);

/// Both gradients in one pass over x and dy.
/// @param dx         written: dy where x > 0, else a_c dy; may be dy; null where it is not wanted
/// @param dslopes    added to: the sum of x dy over the x of a channel that are not above 0; null where not wanted
/// @param workspace  RectifierWorkspaceBytes(outer, channels, inner) of any content, overwritten; unused, and may be
///                   null, where dslopes is
template <typename Dtype>
void RectifierBackwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                          const Dtype* dy, Dtype* dx, Dtype* dslopes, Dtype* workspace, cudaStream_t stream);

}  // namespace caffe

#endif  // CAFFE_RECTIFIER_GPU_HPP_
