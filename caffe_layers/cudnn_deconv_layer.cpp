#ifdef USE_CUDNN

#include "caffe/layers/cudnn_deconv_layer.hpp"

namespace caffe {

template <typename Dtype>
void CuDNNDeconvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  DeconvolutionLayer<Dtype>::LayerSetUp(bottom, top);
  convolution_ = cudnn::ConvolutionFor<Dtype>(this->layer_param_, this->num_spatial_axes_);
}

template <typename Dtype>
void CuDNNDeconvolutionLayer<Dtype>::Describe() {
  // The top is the input of the corresponding convolution (conv_input_shape_), the bottom its output.
  const int out[] = {this->channels_, this->input_shape(1), this->input_shape(2)};
  convolution_->SetShape(ShapeOf(this->num_, this->conv_input_shape_.cpu_data(), out, this->kernel_shape_.cpu_data(),
                                 this->pad_.cpu_data(), this->stride_.cpu_data(), this->dilation_.cpu_data(),
                                 this->group_));
  if (this->bias_term_) {
    bias_.SetSizes(this->num_, this->num_output_, this->output_shape_[0], this->output_shape_[1]);
  }
}

INSTANTIATE_CLASS(CuDNNDeconvolutionLayer);

}  // namespace caffe

#endif  // USE_CUDNN
