// Convolutions on the CPU as matrix products, an image a thread and some rows of it at a time. Arrays are float32, as
// ConvolutionShape has them.
#pragma once

#include <cstddef>

#include "convolution_shape.hpp"

namespace caffe {

/// Whether the functions below are likely to be faster than a matrix product that all threads share: there are images
/// for all threads, or for eight of more, and the weights are not so many that a copy for each thread is too much. They
/// compute any shape that has channels and outputs, and throw std::bad_alloc, before they write, where there is no
/// memory.
bool ImageConvolutionFits(const ConvolutionShape& shape);

/// y = x * weights + bias.
///
/// @param bias  outputs, or null
void ImageConvolutionForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias,
                             float* y);

/// dx, the gradient to x, is written, from dy, the one to y.
void ImageConvolutionBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx);

/// Adds the gradient to the weights to dw. Up to eight threads give the same bits; so does the same number of more.
void ImageConvolutionBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw);

/// Adds the gradient to the bias to db (outputs): the sums of dy (images x outputs x plane) over images and positions.
void BiasGradient(size_t images, size_t outputs, size_t plane, const float* dy, float* db);

}  // namespace caffe
