#include "caffe/layers/lrelu_layer.hpp"

#include <cmath>
#include <vector>

#include "rectifier.hpp"

namespace caffe {

template <typename Dtype>
void LReLULayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ReLUParameter& param = this->layer_param_.relu_param();
  const Dtype slope = param.has_negative_slope() ? param.negative_slope() : Dtype(0.01);
  LOG_IF(FATAL, !std::isfinite(slope)) << "LReLU's negative_slope is " << slope << ", it must be a finite number";
  LOG_IF(FATAL, bottom[0] == top[0] && slope < 0)
      << "LReLU with negative_slope " << slope << " cannot work in place, because its output loses the input's sign: "
      << "give the top another name";
  slope_.Reshape(vector<int>());
  slope_.mutable_cpu_data()[0] = slope;
}

template <typename Dtype>
void LReLULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) return;  // an empty blob has no memory
  Dtype* y = top[0]->mutable_cpu_data();
  RectifierForward<Dtype>(1, 1, bottom[0]->count(), slope_.cpu_data(), bottom[0]->cpu_data(), y);
}

template <typename Dtype>
void LReLULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0] || bottom[0]->count() == 0) return;
  // In place, bottom contains y, which has the sign of x.
  RectifierBackward<Dtype>(1, 1, bottom[0]->count(), slope_.cpu_data(), bottom[0]->cpu_data(), top[0]->cpu_diff(),
                           bottom[0]->mutable_cpu_diff(), nullptr);
}

#ifdef CPU_ONLY
STUB_GPU(LReLULayer);
#endif

INSTANTIATE_CLASS(LReLULayer);
REGISTER_LAYER_CLASS(LReLU);

}  // namespace caffe
