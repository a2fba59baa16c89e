#ifndef CAFFE_CUDNN_DECONV_LAYER_HPP_
#define CAFFE_CUDNN_DECONV_LAYER_HPP_

#include <memory>
#include <vector>

#include "caffe/layers/deconv_layer.hpp"
#include "cudnn_convolution.hpp"

namespace caffe {

#ifdef USE_CUDNN
/// DeconvolutionLayer by cuDNN on the GPU, with the same maths, shapes and parameters. It computes the gradient of a
/// convolution: bottom is that convolution's output, top its input. The conditions of CuDNNConvolutionLayer apply.
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
  /// Describe the blobs' sizes to cuDNN. Only called in GPU passes, so that a CPU process does not load cuDNN.
  void Describe();

  std::unique_ptr<cudnn::Convolution<Dtype>> convolution_;  // null if the base class computes
  cudnn::ChannelBias<Dtype> bias_;
};
#endif  // USE_CUDNN

}  // namespace caffe

#endif  // CAFFE_CUDNN_DECONV_LAYER_HPP_
