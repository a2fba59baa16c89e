// The update step of stochastic gradient descent on the CPU.
#pragma once

#include <cstddef>

namespace caffe {

/// In one pass over a parameter, with g = scale * gradient + decay * weight (l1: decay * the weight's sign):
///
///     history  = rate * g + momentum * history
///     weight   = weight - history
///     gradient = history, as upstream leaves it
///
/// All three arrays have `count` values.
template <typename Dtype>
void SGDUpdate(size_t count, Dtype scale, Dtype decay, bool l1, Dtype rate, Dtype momentum, Dtype* gradient,
               Dtype* history, Dtype* weight);

}  // namespace caffe
