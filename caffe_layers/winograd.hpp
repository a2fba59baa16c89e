// Convolutions of 3x3 and 5x5 kernels, stride 1, on the CPU in a fraction of the multiplications: Winograd's minimal
// filtering on 6x6 tiles (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2016).
#pragma once

#include <cstddef>

namespace caffe {

/// A batch of images and the kernels that go over it; all arrays are float32 and as Caffe's blobs have them.
struct WinogradShape {
  size_t images;
  size_t channels, height, width;  // of the input
  size_t outputs;                  // channels of the output
  size_t kernel;                   // side: 3 or 5
  size_t pad_h, pad_w;             // at most kernel - 1

  size_t out_height() const { return height + 2 * pad_h + 1 - kernel; }
  size_t out_width() const { return width + 2 * pad_w + 1 - kernel; }
};

/// Whether the functions below can compute it, and whether it is worth while: a few channels or outputs alone, or a
/// handful of tiles, are faster by other means.
bool WinogradFits(const WinogradShape& shape);

/// y = x * weights + bias.
///
/// @param x        images x channels x height x width
/// @param weights  outputs x channels x kernel x kernel
/// @param bias     outputs, or null
/// @param y        images x outputs x out_height x out_width
///
/// Sums are made in one order, so the bits do not depend on the number of threads.
void WinogradForward(const WinogradShape& shape, const float* x, const float* weights, const float* bias, float* y);

/// dx, the gradient to x, from dy, the one to y.
void WinogradBackwardData(const WinogradShape& shape, const float* dy, const float* weights, float* dx);

/// Adds the gradient to the weights to dw. Up to eight threads give the same bits; so does the same number of more.
void WinogradBackwardWeights(const WinogradShape& shape, const float* x, const float* dy, float* dw);

}  // namespace caffe
