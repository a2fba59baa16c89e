#include "caffe/layers/lrelu_layer.hpp"

#include <vector>

#include "rectifier_gpu.hpp"

namespace caffe {

template <typename Dtype>
void LReLULayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) return;
  Dtype* y = top[0]->mutable_gpu_data();
  RectifierForwardGpu<Dtype>(1, 1, bottom[0]->count(), slope_.gpu_data(), bottom[0]->gpu_data(), y, nullptr,
                             cudaStreamDefault);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void LReLULayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0] || bottom[0]->count() == 0) return;
  RectifierBackwardGpu<Dtype>(1, 1, bottom[0]->count(), slope_.gpu_data(), bottom[0]->gpu_data(), top[0]->gpu_diff(),
                              bottom[0]->mutable_gpu_diff(), nullptr, nullptr, cudaStreamDefault);
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(LReLULayer);

}  // namespace caffe
