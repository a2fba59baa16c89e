#ifndef CAFFE_CUDNN_DECONV_LAYER_HPP_
#define CAFFE_CUDNN_DECONV_LAYER_HPP_

#include <memory>
#include <vector>

#include "caffe/layers/deconv_layer.hpp"
#include "cudnn_convolution.hpp"

namespace caffe {

#ifdef USE_CUDNN
/// DeconvolutionLayer, with its maths, shapes and parameters, by cuDNN on the GPU: to the convolution that it is the
/// gradient of, its bottom is the output and its top the input. When it is made, and when the base class computes, is
/// as with CuDNNConvolutionLayer.
template <typename Dtype>
class CuDNNDeconvolutionLayer : public DeconvolutionLayer<Dtype> {
 public:
  explicit CuDNNDeconvolutionLayer(const LayerParameter& param) : DeconvolutionLayer<Dtype>(param) {}
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

#endif  // CAFFE_CUDNN_DECONV_LAYER_HPP_
