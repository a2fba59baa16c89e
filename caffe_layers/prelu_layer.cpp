#include "caffe/layers/prelu_layer.hpp"

#include <vector>

#include "caffe/filler.hpp"
#include "caffe/util/math_functions.hpp"

namespace caffe {
namespace {

// Below this many values a thread costs more than it saves.
const int kParallelCount = 1 << 15;

}  // namespace

template <typename Dtype>
void PReLULayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2) << "PReLU needs a bottom of at least 2 axes (N x C x ...)";
  const PReLUParameter& param = this->layer_param_.prelu_param();
  channel_shared_ = param.channel_shared();
  if (this->blobs_.empty()) {
    const vector<int> shape = channel_shared_ ? vector<int>() : vector<int>(1, bottom[0]->shape(1));
    this->blobs_.resize(1);
    this->blobs_[0].reset(new Blob<Dtype>(shape));
    FillerParameter filler = param.filler();
    if (!param.has_filler()) {
      filler.set_type("constant");
      filler.set_value(0.25);
    }
    shared_ptr<Filler<Dtype> >(GetFiller<Dtype>(filler))->Fill(this->blobs_[0].get());
  }
  const int slopes = channel_shared_ ? 1 : bottom[0]->shape(1);
  CHECK_EQ(this->blobs_[0]->count(), slopes) << "PReLU has one slope a channel, or one in all with channel_shared";
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void PReLULayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2) << "PReLU needs a bottom of at least 2 axes (N x C x ...)";
  if (!channel_shared_) {
    CHECK_EQ(bottom[0]->shape(1), this->blobs_[0]->count()) << "the number of channels must stay that of the slopes";
  }
  top[0]->ReshapeLike(*bottom[0]);
  if (bottom[0] == top[0]) input_.ReshapeLike(*bottom[0]);
}

template <typename Dtype>
void PReLULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const int channels = bottom[0]->shape(1);
  const int inner = bottom[0]->count(2);
  const int outer = bottom[0]->shape(0);
  const Dtype* slopes = this->blobs_[0]->cpu_data();
  if (bottom[0] == top[0]) caffe_copy(bottom[0]->count(), bottom[0]->cpu_data(), input_.mutable_cpu_data());
  const Dtype* x = bottom[0]->cpu_data();
  Dtype* y = top[0]->mutable_cpu_data();

#pragma omp parallel for collapse(2) if (bottom[0]->count() > kParallelCount)
  for (int n = 0; n < outer; ++n) {
    for (int c = 0; c < channels; ++c) {
      const Dtype slope = slopes[channel_shared_ ? 0 : c];
      const size_t begin = (static_cast<size_t>(n) * channels + c) * inner;
      const size_t end = begin + inner;
      for (size_t i = begin; i < end; ++i) y[i] = x[i] > 0 ? x[i] : slope * x[i];
    }
  }
}

template <typename Dtype>
void PReLULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  const bool to_slopes = this->param_propagate_down_[0];
  const bool to_bottom = propagate_down[0];
  if (!to_slopes && !to_bottom) return;
  const int channels = bottom[0]->shape(1);
  const int inner = bottom[0]->count(2);
  const int outer = bottom[0]->shape(0);
  const Dtype* slopes = this->blobs_[0]->cpu_data();
  const Dtype* x = (bottom[0] == top[0] ? input_ : *bottom[0]).cpu_data();
  const Dtype* dy = top[0]->cpu_diff();
  Dtype* dx = to_bottom ? bottom[0]->mutable_cpu_diff() : NULL;

  // One channel is one thread's, summed in a fixed order: the same bits whatever the number of threads.
  vector<double> slope_sums(channels, 0.);
#pragma omp parallel for if (bottom[0]->count() > kParallelCount)
  for (int c = 0; c < channels; ++c) {
    const Dtype slope = slopes[channel_shared_ ? 0 : c];
    double sum = 0;
    for (int n = 0; n < outer; ++n) {
      const size_t begin = (static_cast<size_t>(n) * channels + c) * inner;
      const size_t end = begin + inner;
      if (to_slopes) {  // before dx, which may lie where dy does
#pragma omp simd reduction(+ : sum)
        for (size_t i = begin; i < end; ++i) sum += x[i] > 0 ? Dtype(0) : x[i] * dy[i];
      }
      if (to_bottom) {
        for (size_t i = begin; i < end; ++i) dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
      }
    }
    slope_sums[c] = sum;
  }

  if (!to_slopes) return;
  Dtype* dslopes = this->blobs_[0]->mutable_cpu_diff();  // gradients of parameters add up (iter_size)
  if (channel_shared_) {
    double sum = 0;
    for (int c = 0; c < channels; ++c) sum += slope_sums[c];
    dslopes[0] += static_cast<Dtype>(sum);
  } else {
    for (int c = 0; c < channels; ++c) dslopes[c] += static_cast<Dtype>(slope_sums[c]);
  }
}

#ifdef CPU_ONLY
STUB_GPU(PReLULayer);
#endif

INSTANTIATE_CLASS(PReLULayer);
REGISTER_LAYER_CLASS(PReLU);

}  // namespace caffe
