#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include <memory>
#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "cudnn_convolution.hpp"

namespace caffe {

#ifdef USE_CUDNN
/// ConvolutionLayer by cuDNN on the GPU, with the same maths, shapes and parameters, including groups and dilation. In
/// a build with cuDNN it is created for type: "Convolution" unless the layer sets engine: CAFFE.
///
/// In CPU mode, and if the bottom does not have two spatial axes, it computes as ConvolutionLayer; engine: CUDNN is an
/// error in the second case. If cuDNN has no algorithm within the workspace limit, or no deterministic one when
/// gpu_settings require it, Caffe's own engine computes that pass and a warning is logged.
template <typename Dtype>
class CuDNNConvolutionLayer : public ConvolutionLayer<Dtype> {
 public:
  explicit CuDNNConvolutionLayer(const LayerParameter& param) : ConvolutionLayer<Dtype>(param) {}
  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;

 protected:
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

 private:
  /// Describe the blobs' sizes to cuDNN. Only called in GPU passes, so that a CPU process does not load cuDNN.
  void Describe();

  std::unique_ptr<cudnn::Convolution<Dtype>> convolution_;  // null if the base class computes
  cudnn::ChannelBias<Dtype> bias_;
};
#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CAFFE_CUDNN_CONV_LAYER_HPP_
