// The sizes of a 2-D convolution, for all algorithms.
#ifndef CAFFE_CONVOLUTION_SHAPE_HPP_
#define CAFFE_CONVOLUTION_SHAPE_HPP_

#include <array>
#include <cstddef>

namespace caffe {

/// A batch of images and a cross-correlation kernel (not mirrored). Arrays have the layout of Caffe's blobs:
///
///   x        images x channels x height x width
///   weights  outputs x channels / groups x kernel_h x kernel_w
///   y        images x outputs x out_height x out_width
struct ConvolutionShape {
  size_t images;
  size_t channels, height, width;
  size_t outputs, out_height, out_width;
  size_t kernel_h, kernel_w, pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w;
  size_t groups;  // of channels and of outputs; output group g reads only input group g

  /// All sizes, for comparisons.
  std::array<size_t, 16> All() const {
    return {{images, channels, height, width, outputs, out_height, out_width, kernel_h, kernel_w, pad_h, pad_w,
             stride_h, stride_w, dilation_h, dilation_w, groups}};
  }
};

/// The shape of a layer's convolution. in, out: channels, height and width; the others: a value per spatial axis.
inline ConvolutionShape ShapeOf(int images, const int* in, const int* out, const int* kernel, const int* pad,
                                const int* stride, const int* dilation, int groups) {
  const auto size = [](int value) { return static_cast<size_t>(value); };
  return {size(images),    size(in[0]),       size(in[1]),       size(in[2]),  size(out[0]), size(out[1]),
          size(out[2]),    size(kernel[0]),   size(kernel[1]),   size(pad[0]), size(pad[1]), size(stride[0]),
          size(stride[1]), size(dilation[0]), size(dilation[1]), size(groups)};
}

}  // namespace caffe

#endif  // CAFFE_CONVOLUTION_SHAPE_HPP_
