// Runs a layer forward and backward, and compares its gradients with differences of its outputs.

#ifndef TESTS_CPP_REFERENCE_HPP_
#define TESTS_CPP_REFERENCE_HPP_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "caffe/caffe.hpp"
#include "values.hpp"

namespace reference {

/// The device of OneLayer's layers: the GPU if the program was started with --gpu (main.cpp).
inline caffe::Caffe::Brew mode = caffe::Caffe::CPU;

/// One layer between a bottom and a top (the same blob if in place).
template <typename Dtype>
struct OneLayer {
  caffe::Blob<Dtype> bottom, own_top;
  caffe::Blob<Dtype>* top;
  std::vector<caffe::Blob<Dtype>*> bottoms, tops;
  boost::shared_ptr<caffe::Layer<Dtype>> layer;

  OneLayer(const caffe::LayerParameter& param, const std::vector<int>& shape, bool in_place, unsigned seed = 1)
      : bottom(shape), top(in_place ? &bottom : &own_top), bottoms(1, &bottom), tops(1, top) {
    caffe::Caffe::set_mode(mode);
    if (bottom.count() > 0) FillAwayFromZero(bottom.count(), seed, bottom.mutable_cpu_data());
    layer = caffe::LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottoms, tops);
  }

  void Forward() { layer->Forward(bottoms, tops); }

  void Backward(const std::vector<Dtype>& dy, bool to_bottom = true) {
    if (!dy.empty()) std::copy(dy.begin(), dy.end(), top->mutable_cpu_diff());
    layer->Backward(tops, std::vector<bool>(1, to_bottom), bottoms);
  }
};

/// Compare the layer's gradients with differences of its outputs, also in place.
///
/// The layer must be linear in each value within a step of it, as rectifiers are away from their kink; the step may
/// then be large, and only rounding errors remain.
template <typename Dtype>
void ExpectGradientsOfDifferences(OneLayer<Dtype>* run) {
  const double step = 0.0625;  // values of FillAwayFromZero stay nonzero
  const int count = run->bottom.count();
  const std::vector<Dtype> x(run->bottom.cpu_data(), run->bottom.cpu_data() + count);
  std::vector<Dtype> dy(count);
  FillAwayFromZero(count, 5, dy.data());
  const auto forward = [&](const std::vector<Dtype>& input) {
    std::copy(input.begin(), input.end(),
              run->bottom.mutable_cpu_data());  // in place, forward overwrote it
    run->Forward();
    return ToDouble(run->top->cpu_data(), count);
  };
  // The slope of sum(dy * y) between two outputs whose inputs differ by `width` in one value.
  const auto difference = [&](const std::vector<double>& at_low, const std::vector<double>& at_high, double width) {
    double sum = 0;
    for (int j = 0; j < count; ++j) sum += dy[j] * (at_high[j] - at_low[j]);
    return sum / width;
  };
  const auto tolerance = [&](double terms) {
    return 4 * std::numeric_limits<Dtype>::epsilon() * std::sqrt(terms) / step;
  };

  for (const auto& blob : run->layer->blobs()) std::fill_n(blob->mutable_cpu_diff(), blob->count(), Dtype(0));
  forward(x);
  run->Backward(dy);
  const std::vector<double> dx = ToDouble(run->bottom.cpu_diff(), count);
  for (int i = 0; i < count; ++i) {
    std::vector<Dtype> low(x), high(x);
    low[i] -= static_cast<Dtype>(step);
    high[i] += static_cast<Dtype>(step);
    const double width = static_cast<double>(high[i]) - low[i];
    ASSERT_NEAR(difference(forward(low), forward(high), width), dx[i], tolerance(1)) << "dx " << i;
  }
  for (const auto& blob : run->layer->blobs()) {
    const std::vector<double> gradient = ToDouble(blob->cpu_diff(), blob->count());
    for (int i = 0; i < blob->count(); ++i) {
      const Dtype value = blob->cpu_data()[i];
      const Dtype low = value - static_cast<Dtype>(step), high = value + static_cast<Dtype>(step);
      blob->mutable_cpu_data()[i] = low;
      const std::vector<double> at_low = forward(x);
      blob->mutable_cpu_data()[i] = high;
      const std::vector<double> at_high = forward(x);
      blob->mutable_cpu_data()[i] = value;
      const double width = static_cast<double>(high) - low;
      ASSERT_NEAR(difference(at_low, at_high, width), gradient[i], tolerance(count)) << "parameter " << i;
    }
  }
}

}  // namespace reference

#endif  // TESTS_CPP_REFERENCE_HPP_
