// The update step of stochastic gradient descent on the CPU.
#ifndef CAFFE_SGD_UPDATE_HPP_
#define CAFFE_SGD_UPDATE_HPP_

#include <cstddef>

namespace caffe {

/// In one pass over a parameter, with g = scale * gradient + decay * weight (with l1: decay * sign(weight)):
///
///     history  = rate * g + momentum * history
///     weight   = weight - history
///     gradient = history, as in upstream
///
/// All three arrays have `count` values.
template <typename Dtype>
void SGDUpdate(size_t count, Dtype scale, Dtype decay, bool l1, Dtype rate, Dtype momentum, Dtype* gradient,
               Dtype* history, Dtype* weight);

}  // namespace caffe

#endif  // CAFFE_SGD_UPDATE_HPP_
