#ifndef CAFFE_RECTIFIER_HPP_
#define CAFFE_RECTIFIER_HPP_

#include <cstddef>

namespace caffe {

/// The kernels of PReLU and LReLU (section 4.3.2 of the paper) on plain arrays:
///
///     y = x          if x > 0
///     y = a_c x      otherwise (also at 0 and for NaN), where c is the channel of x
///
/// Arrays contain outer x channels x inner values; there is one slope a per channel. One slope for all values is the
/// case outer = channels = 1. Sizes may be 0, and arrays may have any alignment that Dtype allows.
///
/// Results have the same bits in every run and with any number of threads: the sums over a channel are computed from
/// fixed pieces, which depend only on the sizes, in a fixed order. Instruction sets with another vector width round
/// differently.

/// Compute y from x.
/// @param y     may be x
/// @param kept  if not null, receives a copy of x; must be neither x nor y
template <typename Dtype>
void RectifierForward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                      Dtype* kept = nullptr);

/// Compute both gradients in one pass over x and dy.
/// @param dx       overwritten: dy if x > 0, else a_c dy; may be dy, or null
/// @param dslopes  added to: the sum of x dy over the values x <= 0 of a channel; may be null
template <typename Dtype>
void RectifierBackward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                       const Dtype* dy, Dtype* dx, Dtype* dslopes);

/// If the arrays of a call exceed this many bytes, outputs bypass the cache. The initial value is the size of the
/// last-level cache. For tests: it changes no value.
size_t& RectifierCacheBytes();

}  // namespace caffe

#endif  // CAFFE_RECTIFIER_HPP_
