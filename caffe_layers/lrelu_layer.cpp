#include "caffe/layers/lrelu_layer.hpp"

#include <cmath>
#include <vector>

namespace caffe {
namespace {

// Below this many values a thread costs more than it saves.
const int kParallelCount = 1 << 15;

}  // namespace

template <typename Dtype>
void LReLULayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ReLUParameter& param = this->layer_param_.relu_param();
  slope_ = param.has_negative_slope() ? param.negative_slope() : Dtype(0.01);
  CHECK(std::isfinite(slope_)) << "LReLU's negative_slope is " << slope_ << ", it must be a finite number";
  CHECK(bottom[0] != top[0] || slope_ >= 0)
      << "LReLU with negative_slope " << slope_ << " cannot work in place: its output does not tell the input's sign; "
      << "give the top another name than the bottom";
}

template <typename Dtype>
void LReLULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int count = bottom[0]->count();
  const Dtype slope = slope_;
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();
#pragma omp parallel for simd if (parallel : count > kParallelCount)
  for (int i = 0; i < count; ++i) y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

template <typename Dtype>
void LReLULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (!propagate_down[0]) return;
  const int count = bottom[0]->count();
  const Dtype slope = slope_;
  const Dtype* x = bottom[0]->cpu_data();  // in place this is y, which has x's sign
  const Dtype* dy = top[0]->cpu_diff();
  Dtype* dx = bottom[0]->mutable_cpu_diff();
#pragma omp parallel for simd if (parallel : count > kParallelCount)
  for (int i = 0; i < count; ++i) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
}

#ifdef CPU_ONLY
STUB_GPU(LReLULayer);
#endif

INSTANTIATE_CLASS(LReLULayer);
REGISTER_LAYER_CLASS(LReLU);

}  // namespace caffe
