// Max pooling on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caffe {

/// Planes (images x channels of them) and the windows that go over each; a window is cut off at the plane's edges.
struct PoolingShape {
  size_t planes, height, width, out_height, out_width;
  size_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
};

const uint8_t kNoWinner = 255;

/// Windows have fewer than 255 values.
///
/// y: the largest value of each window, or a NaN that is in it. winners: where in its window that is (row * kernel_w +
/// column, the first of equals), or kNoWinner where no value is above -FLT_MAX; y is then -FLT_MAX.
///
/// @param x                planes x height x width
/// @param y, winners       planes x out_height x out_width
template <typename Dtype>
void MaxPoolingForward(const PoolingShape& shape, const Dtype* x, Dtype* y, uint8_t* winners);

/// dx: of each value the sum of dy over the windows that it won, in the windows' order. Winners that lie outside of the
/// plane, which no forward pass of this shape leaves, get nothing.
///
/// @param winners, dy      planes x out_height x out_width
/// @param dx               planes x height x width, written
template <typename Dtype>
void MaxPoolingBackward(const PoolingShape& shape, const uint8_t* winners, const Dtype* dy, Dtype* dx);

}  // namespace caffe
