#ifdef USE_CUDNN

#include "caffe/layers/cudnn_conv_layer.hpp"

namespace caffe {

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  ConvolutionLayer<Dtype>::LayerSetUp(bottom, top);
  const LayerParameter& param = this->layer_param_;
  convolution_.reset();
  if (this->num_spatial_axes_ != 2) {
    LOG_IF(FATAL, param.convolution_param().engine() == ConvolutionParameter_Engine_CUDNN)
        << "engine: CUDNN convolves along 2 axes, and its bottom has " << this->num_spatial_axes_
        << ": leave the engine out, or write engine: CAFFE";
    return;
  }
  convolution_.reset(new cudnn::Convolution<Dtype>("layer " + param.name() + " (" + param.type() + ")"));
}

template <typename Dtype>
void CuDNNConvolutionLayer<Dtype>::Describe(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int axis = this->channel_axis_;
  const int *kernel = this->kernel_shape_.cpu_data(), *pad = this->pad_.cpu_data();
  const int *stride = this->stride_.cpu_data(), *dilation = this->dilation_.cpu_data();
  cudnn::ConvolutionSizes sizes;
  sizes.num = this->num_;
  sizes.channels = this->channels_;
  sizes.height = bottom[0]->shape(axis + 1);
  sizes.width = bottom[0]->shape(axis + 2);
  sizes.outputs = this->num_output_;
  sizes.out_height = top[0]->shape(axis + 1);
  sizes.out_width = top[0]->shape(axis + 2);
  sizes.kernel_h = kernel[0];
  sizes.kernel_w = kernel[1];
  sizes.pad_h = pad[0];
  sizes.pad_w = pad[1];
  sizes.stride_h = stride[0];
  sizes.stride_w = stride[1];
  sizes.dilation_h = dilation[0];
  sizes.dilation_w = dilation[1];
  sizes.groups = this->group_;
  convolution_->SetSizes(sizes);
  if (this->bias_term_) {
    bias_.SetSizes(this->num_, this->num_output_, top[0]->shape(axis + 1), top[0]->shape(axis + 2));
  }
}

INSTANTIATE_CLASS(CuDNNConvolutionLayer);

}  // namespace caffe

#endif  // USE_CUDNN
