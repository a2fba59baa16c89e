#include "caffe/layers/prelu_layer.hpp"

#include <vector>

#include "caffe/filler.hpp"
#include "rectifier.hpp"

namespace caffe {

template <typename Dtype>
void PReLULayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2) << "PReLU needs a bottom of at least 2 axes (N x C x ...)";
  LOG_IF(FATAL, bottom[0]->shape(1) == 0) << "PReLU needs channels, but its bottom is " << bottom[0]->shape_string();
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
    shared_ptr<Filler<Dtype>>(GetFiller<Dtype>(filler))->Fill(this->blobs_[0].get());
  }
  const int slopes = channel_shared_ ? 1 : bottom[0]->shape(1);
  CHECK_EQ(this->blobs_[0]->count(), slopes) << "PReLU needs one slope per channel, or a single one with channel_shared";
  this->param_propagate_down_.resize(this->blobs_.size(), true);
}

template <typename Dtype>
void PReLULayer<Dtype>::Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CHECK_GE(bottom[0]->num_axes(), 2) << "PReLU needs a bottom of at least 2 axes (N x C x ...)";
  if (!channel_shared_) {
    CHECK_EQ(bottom[0]->shape(1), this->blobs_[0]->count()) << "the number of channels must equal the number of slopes";
  }
  channels_ = channel_shared_ ? 1 : bottom[0]->shape(1);
  outer_ = channel_shared_ ? 1 : bottom[0]->shape(0);
  inner_ = channel_shared_ ? bottom[0]->count() : bottom[0]->count(2);
  top[0]->ReshapeLike(*bottom[0]);
  if (bottom[0] == top[0]) input_.ReshapeLike(*bottom[0]);
}

template <typename Dtype>
void PReLULayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  if (bottom[0]->count() == 0) return;  // an empty blob has no memory
  Dtype* y = top[0]->mutable_cpu_data();
  RectifierForward<Dtype>(outer_, channels_, inner_, this->blobs_[0]->cpu_data(), bottom[0]->cpu_data(), y,
                          bottom[0] == top[0] ? input_.mutable_cpu_data() : nullptr);
}

template <typename Dtype>
void PReLULayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                     const vector<Blob<Dtype>*>& bottom) {
  if (bottom[0]->count() == 0) return;
  const Blob<Dtype>& input = bottom[0] == top[0] ? input_ : *bottom[0];
  RectifierBackward<Dtype>(outer_, channels_, inner_, this->blobs_[0]->cpu_data(), input.cpu_data(), top[0]->cpu_diff(),
                           propagate_down[0] ? bottom[0]->mutable_cpu_diff() : nullptr,
                           this->param_propagate_down_[0] ? this->blobs_[0]->mutable_cpu_diff() : nullptr);
}

#ifdef CPU_ONLY
STUB_GPU(PReLULayer);
#endif

INSTANTIATE_CLASS(PReLULayer);
REGISTER_LAYER_CLASS(PReLU);

}  // namespace caffe
