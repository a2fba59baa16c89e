// Upstream's ReLU (include/caffe/layers/relu_layer.hpp) with the vectorised, multi-threaded kernels of LReLU.

#include "caffe/layers/relu_layer.hpp"

#include <vector>

#include "rectifier.hpp"

namespace caffe {

template <typename Dtype>
void ReLULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) return;  // an empty blob has no memory
  const Dtype slope = this->layer_param_.relu_param().negative_slope();
  Dtype* y = top[0]->mutable_cpu_data();
  RectifierForward<Dtype>(1, 1, bottom[0]->count(), &slope, bottom[0]->cpu_data(), y);
}

template <typename Dtype>
void ReLULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                    const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0] || bottom[0]->count() == 0) return;
  const Dtype slope = this->layer_param_.relu_param().negative_slope();
  // In place, bottom contains y, which has the sign of x if the slope is not negative.
  RectifierBackward<Dtype>(1, 1, bottom[0]->count(), &slope, bottom[0]->cpu_data(), top[0]->cpu_diff(),
                           bottom[0]->mutable_cpu_diff(), nullptr);
}

#ifdef CPU_ONLY
STUB_GPU(ReLULayer);
#endif

INSTANTIATE_CLASS(ReLULayer);

}  // namespace caffe
