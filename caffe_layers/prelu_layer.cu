#include "caffe/layers/prelu_layer.hpp"

#include <vector>

#include "rectifier_gpu.hpp"

namespace caffe {

template <typename Dtype>
void PReLULayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) return;
  Dtype* y = top[0]->mutable_gpu_data();
  RectifierForwardGpu<Dtype>(outer_, channels_, inner_, this->blobs_[0]->gpu_data(), bottom[0]->gpu_data(), y,
                             bottom[0] == top[0] ? input_.mutable_gpu_data() : nullptr, cudaStreamDefault);
  CUDA_POST_KERNEL_CHECK;
}

template <typename Dtype>
void PReLULayer<Dtype>::Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (bottom[0]->count() == 0) return;
  const Blob<Dtype>& input = bottom[0] == top[0] ? input_ : *bottom[0];
  Dtype *dslopes = nullptr, *workspace = nullptr;
  if (this->param_propagate_down_[0]) {
    dslopes = this->blobs_[0]->mutable_gpu_diff();
    const size_t bytes = RectifierWorkspaceBytes<Dtype>(outer_, channels_, inner_);
    if (workspace_ == nullptr || workspace_->size() < bytes) workspace_.reset(new SyncedMemory(bytes));
    workspace = static_cast<Dtype*>(workspace_->mutable_gpu_data());
  }
  RectifierBackwardGpu<Dtype>(outer_, channels_, inner_, this->blobs_[0]->gpu_data(), input.gpu_data(),
                              top[0]->gpu_diff(), propagate_down[0] ? bottom[0]->mutable_gpu_diff() : nullptr, dslopes,
                              workspace, cudaStreamDefault);
  CUDA_POST_KERNEL_CHECK;
}

INSTANTIATE_LAYER_GPU_FUNCS(PReLULayer);

}  // namespace caffe
