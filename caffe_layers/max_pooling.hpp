// Max pooling on the CPU.
#ifndef CAFFE_MAX_POOLING_HPP_
#define CAFFE_MAX_POOLING_HPP_

#include <cstddef>
#include <cstdint>

namespace caffe {

/// Planes (images x channels) and the windows over each; windows are cut off at the plane's edges.
struct PoolingShape {
  size_t planes, height, width, out_height, out_width;
  size_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

const uint8_t kNoWinner = 255;

/// Windows must have fewer than 255 values.
///
/// y: the largest value of each window, or NaN if it contains one. winners: the position in the window (row * kernel_w
/// + column) of the first such value, or kNoWinner if no value is above -FLT_MAX; y is then -FLT_MAX.
///
/// @param x                planes x height x width
/// @param y, winners       planes x out_height x out_width
template <typename Dtype>
void MaxPoolingForward(const PoolingShape& shape, const Dtype* x, Dtype* y, uint8_t* winners);

/// dx: for each value, the sum of dy over the windows that it won, in the order of the windows. Winners outside the
/// plane, which a forward pass of this shape never produces, are ignored.
///
/// @param winners, dy      planes x out_height x out_width
/// @param dx               planes x height x width, overwritten
template <typename Dtype>
void MaxPoolingBackward(const PoolingShape& shape, const uint8_t* winners, const Dtype* dy, Dtype* dx);

}  // namespace caffe

#endif  // CAFFE_MAX_POOLING_HPP_
