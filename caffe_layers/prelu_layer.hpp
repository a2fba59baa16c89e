#ifndef CAFFE_PRELU_LAYER_HPP_
#define CAFFE_PRELU_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/neuron_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/syncedmem.hpp"

namespace caffe {

/// Parametric rectifier with a learned slope for negative inputs (section 4.3.2 of the paper):
///
///     y = x          if x > 0
///     y = a_c x      otherwise, where c is the channel of x
///
/// Bottom and top are (N x C x ...), with two or more axes, and may be the same blob.
/// The parameter blob contains the slopes a: (C), or a single value if they are shared.
///
/// prelu_param:
///   filler          initial slopes (default: constant 0.25)
///   channel_shared  one slope for all channels (default: false)
///
/// Gradients: dx = dy if x > 0, else a_c dy; da_c = the sum of x dy over the values x <= 0 of channel c. At x = 0 the
/// gradient is that of the negative side. Slopes with lr_mult 0 cost nothing in the backward pass. An empty batch gives
/// an empty top and adds nothing to the gradients.
///
/// Replaces upstream's layer of the same class, type name and header (include/caffe/layers/prelu_layer.hpp).
template <typename Dtype>
class PReLULayer : public NeuronLayer<Dtype> {
 public:
  explicit PReLULayer(const LayerParameter& param) : NeuronLayer<Dtype>(param) {}

  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  const char* type() const override { return "PReLU"; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;

  bool channel_shared_;
  int outer_, channels_, inner_;        // arguments of the kernels; a shared slope means a single channel
  Blob<Dtype> input_;                   // copy of the bottom if the top overwrites it
  shared_ptr<SyncedMemory> workspace_;  // of the GPU kernels
};

}  // namespace caffe

#endif  // CAFFE_PRELU_LAYER_HPP_
