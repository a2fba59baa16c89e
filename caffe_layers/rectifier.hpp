#ifndef CAFFE_RECTIFIER_HPP_
#define CAFFE_RECTIFIER_HPP_

#include <cstddef>

namespace caffe {

/// The kernels of PReLU and LReLU (section 4.3.2 of the paper) on plain arrays:
///
///     y = x          where x > 0
///     y = a_c x      elsewhere (at 0 and for NaN too), c being the channel of x
///
/// Arrays hold outer x channels x inner values, slopes a has one value a channel. One slope for all is the case
/// outer = channels = 1. Any size, none included, and any alignment of a Dtype.
///
/// The results are the same bits in every run and with any number of threads: the sums over a channel are made of fixed
/// pieces that depend on the sizes alone, added in a fixed order. Processors with other vector widths round
/// differently.

/// y from x.
/// @param y     may be x
/// @param kept  where not null, x's values are copied there; neither x nor y
template <typename Dtype>
void RectifierForward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                      Dtype* kept = nullptr);

/// Both gradients in one pass over x and dy.
/// @param dx       written: dy where x > 0, else a_c dy; may be dy; null where it is not wanted
/// @param dslopes  added to: the sum of x dy over the x of a channel that are not above 0; null where it is not wanted
template <typename Dtype>
void RectifierBackward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                       const Dtype* dy, Dtype* dx, Dtype* dslopes);

/// Arrays that take more bytes than this together are written around the cache; at first what the processor's last one
/// holds. For tests: it changes no value.
size_t& RectifierCacheBytes();

}  // namespace caffe

#endif  // CAFFE_RECTIFIER_HPP_
