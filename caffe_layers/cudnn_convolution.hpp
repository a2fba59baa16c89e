// A 2-D convolution and its gradients by cuDNN 8 or 9, for the Convolution and Deconvolution layers.

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

/// A convolution. It is not bound to a device and owns no handle: each call computes on the thread's current device, in
/// the default stream, with the handle and workspace that the layers of the thread share (GpuHandles).
///
/// For each pass, the algorithm is the first in cuDNN's ranking that gpu_settings allow and that succeeds. cuDNN is
/// queried once per thread for each combination of sizes, device and settings. In float32, factors of products are not
/// rounded to TF32 unless gpu_settings::Tf32 is set.
template <typename Dtype>
class Convolution {
 public:
  /// @param what the start of warnings, "layer NAME (TYPE)"
  explicit Convolution(const std::string& what);
  ~Convolution();
  Convolution(const Convolution&) = delete;
  Convolution& operator=(const Convolution&) = delete;

  /// Describe the sizes to cuDNN. Must be called before the passes; needs no device and does nothing if the sizes have
  /// not changed.
  void SetShape(const ConvolutionShape& shape);

  /// y = x * w. All pointers are to device memory.
  /// @return false if no algorithm succeeds; this is logged, and the caller must compute y
  bool Forward(const Dtype* x, const Dtype* w, Dtype* y);

  /// dx = the gradient with respect to x. Returns as Forward.
  bool BackwardData(const Dtype* w, const Dtype* dy, Dtype* dx);

  /// dw += the gradient with respect to w. Returns as Forward.
  bool BackwardFilter(const Dtype* x, const Dtype* dy, Dtype* dw);

 private:
  template <typename Call>
  bool Run(int pass, const Call& call);

  const std::string what_;
  ConvolutionShape shape_;
  cudnnTensorDescriptor_t x_ = nullptr, y_ = nullptr;
  cudnnFilterDescriptor_t w_ = nullptr;
  cudnnConvolutionDescriptor_t convolution_ = nullptr;
};

/// The convolution of a Convolution or Deconvolution layer whose bottom has `axes` spatial axes. Null if that is not 2,
/// in which case Caffe's own engine computes it; with engine: CUDNN this is an error.
template <typename Dtype>
std::unique_ptr<Convolution<Dtype>> ConvolutionFor(const LayerParameter& param, int axes);

/// A bias per channel of a tensor of num x channels x height x width.
template <typename Dtype>
class ChannelBias {
 public:
  ChannelBias() {}
  ~ChannelBias();
  ChannelBias(const ChannelBias&) = delete;
  ChannelBias& operator=(const ChannelBias&) = delete;

  /// Must be called before Add and Backward.
  void SetSizes(int num, int channels, int height, int width);

  /// Add the bias (`channels` values) to y.
  void Add(const Dtype* bias, Dtype* y);

  /// dbias += the sums of dy.
  void Backward(const Dtype* dy, Dtype* dbias);

 private:
  bool empty_ = true;
  cudnnTensorDescriptor_t bias_ = nullptr, y_ = nullptr;
};

/// The number of algorithm queries by this thread, for tests.
int64_t AlgorithmQueries();

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_CUDNN_CONVOLUTION_HPP_
