// Convolutions on the CPU as matrix products, an image a thread and some rows of it at a time.
#pragma once

#include <cstddef>

#include "convolution_shape.hpp"

namespace caffe {

/// All arrays are float32. Whether the functions below are likely to be faster than a matrix product that all threads
/// share: there are images for all threads, and the weights are not so many that a copy for each thread is too much.
bool ImageConvolutionFits(const ConvolutionShape& shape);

/// y = x * weights + bias (bias may be null).
void ImageConvolutionForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias,
                             float* y);

/// dx, the gradient to x, from dy, the one to y.
void ImageConvolutionBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx);

/// Adds the gradient to the weights to dw. Up to eight threads give the same bits; so does the same number of more.
void ImageConvolutionBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw);

/// Adds the gradient to the bias to db: the sums of dy over images and positions (`plane` of them).
void BiasGradient(size_t images, size_t outputs, size_t plane, const float* dy, float* db);

}  // namespace caffe
