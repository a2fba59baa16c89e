// Convolutions of 3x3 and 5x5 kernels, stride 1, on the CPU in a fraction of the multiplications: Winograd's minimal
// filtering on 6x6 tiles (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Arrays are
// float32, as ConvolutionShape has them.
#pragma once

#include "convolution_shape.hpp"

namespace caffe {

/// Whether the functions below can compute it (a kernel of 3x3 or 5x5 with pads smaller than itself, stride and
/// dilation 1, no groups), and whether it is worth while: a few channels or outputs alone, or a handful of tiles, are
/// faster by other means. What they can compute they do, or throw std::bad_alloc where there is no memory.
bool WinogradFits(const ConvolutionShape& shape);

/// y = x * weights + bias.
///
/// @param bias  outputs, or null
///
/// Sums are made in one order, so the bits do not depend on the number of threads.
void WinogradForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias, float* y);

/// dx, the gradient to x, is written, from dy, the one to y. The bits do not depend on the number of threads, either.
void WinogradBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx);

/// Adds the gradient to the weights to dw. Up to eight threads give the same bits; so does the same number of more.
void WinogradBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw);

}  // namespace caffe
