#ifndef CAFFE_LRELU_LAYER_HPP_
#define CAFFE_LRELU_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/neuron_layer.hpp"
#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// Leaky rectifier (section 4.3.2 of the paper):
///
///     y = x          if x > 0
///     y = slope x    otherwise
///
/// Bottom and top have any shape and may be the same blob. There are no parameter blobs.
///
/// relu_param:
///   negative_slope  the slope (default: 0.01 as in section 5.3.2 of the paper; 0 in a stock ReLU)
///
/// Gradient: dx = dy if x > 0, else slope dy. In place, the sign of x is read from y, which is valid for slopes of at
/// least 0. A negative slope in place is an error, because y would be positive for both signs of x.
template <typename Dtype>
class LReLULayer : public NeuronLayer<Dtype> {
 public:
  explicit LReLULayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}

  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  const char* type() const override { return "LReLU"; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

  Blob<Dtype> slope_;  // one value, in the memory of the device that computes
};

}  // namespace caffe

#endif  // CAFFE_LRELU_LAYER_HPP_
