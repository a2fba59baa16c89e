// Convolutions with 3x3 and 5x5 kernels and stride 1 on the CPU with fewer multiplications: Winograd's minimal
// filtering on 6x6 tiles (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Arrays are
// float32, in the layout of ConvolutionShape.
#ifndef CAFFE_WINOGRAD_HPP_
#define CAFFE_WINOGRAD_HPP_

#include "convolution_shape.hpp"

namespace caffe {

/// Whether the functions below support the convolution (3x3 or 5x5 kernel, padding smaller than the kernel, stride and
/// dilation 1, one group) and are likely to be the fastest: not for few channels or outputs, or few tiles. If memory is
/// insufficient, the functions throw std::bad_alloc.
bool WinogradFits(const ConvolutionShape& shape);

/// y = x * weights + bias.
///
/// @param bias  outputs, or null
///
/// The bits do not depend on the number of threads.
void WinogradForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias, float* y);

/// Write dx, the gradient with respect to x, given dy. The bits do not depend on the number of threads.
void WinogradBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx);

/// Add the gradient with respect to the weights to dw. The bits do not depend on the number of threads up to eight;
/// above, they are reproducible for the same number.
void WinogradBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw);

}  // namespace caffe

#endif  // CAFFE_WINOGRAD_HPP_
