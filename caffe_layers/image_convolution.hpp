// Convolutions on the CPU as matrix products, with one image per thread and some of its rows at a time. Arrays are
// float32, in the layout of ConvolutionShape.
#ifndef CAFFE_IMAGE_CONVOLUTION_HPP_
#define CAFFE_IMAGE_CONVOLUTION_HPP_

#include <cstddef>

#include "convolution_shape.hpp"

namespace caffe {

/// Whether the functions below are likely to be faster than one matrix product by all threads: there are images for all
/// threads (or for eight), and the weights are few enough for a copy per thread. The functions compute any shape that
/// has channels and outputs. If memory is insufficient, they throw std::bad_alloc before writing.
bool ImageConvolutionFits(const ConvolutionShape& shape);

/// y = x * weights + bias.
///
/// @param bias  outputs, or null
void ImageConvolutionForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias,
                             float* y);

/// Write dx, the gradient with respect to x, given dy.
void ImageConvolutionBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx);

/// Add the gradient with respect to the weights to dw. The bits do not depend on the number of threads up to eight;
/// above, they are reproducible for the same number.
void ImageConvolutionBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw);

/// Add the gradient with respect to the bias to db (outputs): the sums of dy (images x outputs x plane) over images and
/// positions.
void BiasGradient(size_t images, size_t outputs, size_t plane, const float* dy, float* db);

}  // namespace caffe

#endif  // CAFFE_IMAGE_CONVOLUTION_HPP_
