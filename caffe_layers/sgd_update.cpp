#include "sgd_update.hpp"

namespace caffe {
namespace {

const size_t kParallelCount = 1 << 15;  // up to this many values a second thread does not pay

template <typename Dtype>
Dtype Sign(Dtype value) {
  return static_cast<Dtype>((value > 0) - (value < 0));
}

}  // namespace

// Memory bandwidth is the limit, so the compiler's own vectorisation is sufficient.
template <typename Dtype>
void SGDUpdate(size_t count, Dtype scale, Dtype decay, bool l1, Dtype rate, Dtype momentum, Dtype* gradient,
               Dtype* history, Dtype* weight) {
  if (l1) {
#pragma omp parallel for simd schedule(static) if (count > kParallelCount)
    for (size_t i = 0; i < count; ++i) {
      const Dtype g = scale * gradient[i] + decay * Sign(weight[i]);
      history[i] = rate * g + momentum * history[i];
      weight[i] -= gradient[i] = history[i];
    }
  } else {
#pragma omp parallel for simd schedule(static) if (count > kParallelCount)
    for (size_t i = 0; i < count; ++i) {
      const Dtype g = scale * gradient[i] + decay * weight[i];
      history[i] = rate * g + momentum * history[i];
      weight[i] -= gradient[i] = history[i];
    }
  }
}

template void SGDUpdate(size_t, float, float, bool, float, float, float*, float*, float*);
template void SGDUpdate(size_t, double, double, bool, double, double, double*, double*, double*);

}  // namespace caffe
