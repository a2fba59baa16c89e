#ifdef USE_CUDNN

#include "caffe/layers/cudnn_conv_layer.hpp"

namespace caffe {

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionLayer<Dtype>::LayerSetUp(bottom, top);
  convolution_ = cudnn::ConvolutionFor<Dtype>(this->layer_param_, this->num_spatial_axes_);
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Describe() {
  convolution_->SetShape(this->shape());
  if (this->bias_term_) {
    bias_.SetSizes(this->num_, this->num_output_, this->output_shape_[0], this->output_shape_[1]);
  }
}

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe

#endif  // USE_CUDNN
