#ifndef CAFFE_CUDNN_CONV_LAYER_HPP_
#define CAFFE_CUDNN_CONV_LAYER_HPP_

#include <memory>
#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "cudnn_convolution.hpp"

namespace caffe {

#ifdef USE_CUDNN
/// ConvolutionLayer, with its maths, shapes and parameters, by cuDNN on the GPU: the layer that type: "Convolution"
/// makes in a build with cuDNN unless it says engine: CAFFE. Groups and dilation are cuDNN's too.
///
/// In CPU mode it is ConvolutionLayer. So it is, on either, where the bottom has other than two spatial axes; engine:
/// CUDNN is then refused. Where cuDNN has no algorithm within the workspace limit, or no deterministic one where
/// gpu_settings asks for those, Caffe's own engine computes that pass, and a warning says so.
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
  /// Tells cuDNN the blobs' sizes. Only the GPU's passes do: one that computes on the CPU does not load cuDNN.
  void Describe();

  std::unique_ptr<cudnn::Convolution<Dtype>> convolution_;  // null where the base class computes
  cudnn::ChannelBias<Dtype> bias_;
};
#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CAFFE_CUDNN_CONV_LAYER_HPP_
