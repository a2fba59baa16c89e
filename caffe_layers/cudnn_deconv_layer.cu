#ifdef USE_CUDNN

#include "caffe/layers/cudnn_deconv_layer.hpp"

namespace caffe {

template <typename Dtype>
void CuDNNDeconvolutionLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (!convolution_) return DeconvolutionLayer<Dtype>::Forward_gpu(bottom, top);
  Describe();
  const Dtype* const weights = this->blobs_[0]->gpu_data();
  for (size_t i = 0; i < bottom.size(); ++i) {
    const Dtype* const x = bottom[i]->gpu_data();
    Dtype* const y = top[i]->mutable_gpu_data();
    if (!convolution_->BackwardData(weights, x, y)) {
      for (int n = 0; n < this->num_; ++n) {
        this->backward_gpu_gemm(x + n * this->bottom_dim_, weights, y + n * this->top_dim_);
      }
    }
    if (this->bias_term_) bias_.Add(this->blobs_[1]->gpu_data(), y);
  }
}

template <typename Dtype>
void CuDNNDeconvolutionLayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                                  const vector<Blob<Dtype>*>& bottom) {
  if (!convolution_) return DeconvolutionLayer<Dtype>::Backward_gpu(top, propagate_down, bottom);
  Describe();
  for (size_t i = 0; i < top.size(); ++i) {
    const Dtype* const dy = top[i]->gpu_diff();
    if (this->bias_term_ && this->param_propagate_down_[1]) bias_.Backward(dy, this->blobs_[1]->mutable_gpu_diff());
    if (this->param_propagate_down_[0]) {
      const Dtype* const x = bottom[i]->gpu_data();
      Dtype* const dweights = this->blobs_[0]->mutable_gpu_diff();
      if (!convolution_->BackwardFilter(dy, x, dweights)) {
        for (int n = 0; n < this->num_; ++n) {
          this->weight_gpu_gemm(dy + n * this->top_dim_, x + n * this->bottom_dim_, dweights);
        }
      }
    }
    if (propagate_down[i]) {
      const Dtype* const weights = this->blobs_[0]->gpu_data();
      Dtype* const dx = bottom[i]->mutable_gpu_diff();
      if (!convolution_->Forward(dy, weights, dx)) {
        for (int n = 0; n < this->num_; ++n) {
          this->forward_gpu_gemm(dy + n * this->top_dim_, weights, dx + n * this->bottom_dim_);
        }
      }
    }
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(CuDNNDeconvolutionLayer);

}  // namespace caffe

#endif  // USE_CUDNN
