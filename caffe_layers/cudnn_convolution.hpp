// A 2-D convolution and its gradients on the GPU, by cuDNN 8 or 9: what the Convolution and Deconvolution layers share.

#ifndef CAFFE_CUDNN_CONVOLUTION_HPP_
#define CAFFE_CUDNN_CONVOLUTION_HPP_
#ifdef USE_CUDNN

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "convolution_shape.hpp"

namespace caffe {
namespace cudnn {

/// One convolution. It belongs to no device and keeps no handle: each call computes on the current device of its
/// thread, with the handle and the workspace that all layers of the thread share there (GpuHandles), in the default
/// stream.
///
/// The algorithm of each of the three is the first of those that cuDNN names for these sizes, best first, that
/// gpu_settings allow and that then succeeds; cuDNN is asked once for each combination of sizes, device and settings in
/// a thread. In float32, products are those of float32 numbers unless gpu_settings::Tf32.
template <typename Dtype>
class Convolution {
 public:
  /// @param what begins the warnings, "layer NAME (TYPE)"
  explicit Convolution(const std::string& what);
  ~Convolution();
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  /// To be called before the others. Describes the sizes to cuDNN, which takes no device; no query, and nothing at all
  /// where they are those of before.
  void SetShape(const ConvolutionShape& shape);

  /// y = x * w. All pointers here are to memory of the device.
  /// @return false where no algorithm does it: it is said in the log, and y is the caller's to compute
  bool Forward(const Dtype* x, const Dtype* w, Dtype* y);

  /// dx = the gradient to x. Returns as Forward.
  bool BackwardData(const Dtype* w, const Dtype* dy, Dtype* dx);

  /// dw += the gradient to w. Returns as Forward.
  bool BackwardFilter(const Dtype* x, const Dtype* dy, Dtype* dw);

 private:
  template <typename Call>
  bool Run(int pass, const Call& call);

  const std::string what_;
  ConvolutionShape shape_;
  cudnnTensorDescriptor_t x_ = NULL, y_ = NULL;
  cudnnFilterDescriptor_t w_ = NULL;
  cudnnConvolutionDescriptor_t convolution_ = NULL;
};

/// The convolution of a layer (Convolution or Deconvolution) whose bottom has so many spatial axes: null where they are
/// not two, so that Caffe's own engine computes it; with engine: CUDNN that is an error.
template <typename Dtype>
std::unique_ptr<Convolution<Dtype>> ConvolutionFor(const LayerParameter& param, int axes);

/// A bias for each channel of a tensor of num x channels x height x width.
template <typename Dtype>
class ChannelBias {
 public:
  ChannelBias() {}
  ~ChannelBias();
  ChannelBias(const ChannelBias&) = delete;
  ChannelBias& operator=(const ChannelBias&) = delete;

  /// To be called before the others.
  void SetSizes(int num, int channels, int height, int width);

  /// Adds the bias (of `channels` values) to y.
  void Add(const Dtype* bias, Dtype* y);

  /// dbias += the sums of dy.
  void Backward(const Dtype* dy, Dtype* dbias);

 private:
  bool empty_ = true;
  cudnnTensorDescriptor_t bias_ = NULL, y_ = NULL;
};

/// How often this thread has asked cuDNN for the algorithms of a convolution: the tests want to know.
int64_t AlgorithmQueries();

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_CUDNN_CONVOLUTION_HPP_
