// What the layer tests share: random blobs without kinks, a layer run forward and backward, and float64 comparison.

#ifndef TESTS_CPP_REFERENCE_HPP_
#define TESTS_CPP_REFERENCE_HPP_

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"

namespace reference {

/// Fills `values` from +-[0.1, 1]: no value is at or near the rectifiers' kink at zero.
template <typename Dtype>
void FillAwayFromZero(int count, unsigned seed, Dtype* values) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> size(0.1, 1.0);
  for (int i = 0; i < count; ++i) values[i] = static_cast<Dtype>(size(generator) * (generator() % 2 ? 1 : -1));
}

/// One layer between a bottom and a top (the same blob when in place).
template <typename Dtype>
struct OneLayer {
  caffe::Blob<Dtype> bottom, own_top;
  caffe::Blob<Dtype>* top;
  std::vector<caffe::Blob<Dtype>*> bottoms, tops;
  boost::shared_ptr<caffe::Layer<Dtype> > layer;

  OneLayer(const caffe::LayerParameter& param, const std::vector<int>& shape, bool in_place, unsigned seed = 1)
      : bottom(shape), top(in_place ? &bottom : &own_top), bottoms(1, &bottom), tops(1, top) {
    caffe::Caffe::set_mode(caffe::Caffe::CPU);
    FillAwayFromZero(bottom.count(), seed, bottom.mutable_cpu_data());
    layer = caffe::LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottoms, tops);
  }

  void Forward() { layer->Forward(bottoms, tops); }

  void Backward(const std::vector<Dtype>& dy, bool to_bottom = true) {
    std::copy(dy.begin(), dy.end(), top->mutable_cpu_diff());
    layer->Backward(tops, std::vector<bool>(1, to_bottom), bottoms);
  }
};

template <typename Dtype>
std::vector<double> ToDouble(const Dtype* values, int count) {
  return std::vector<double>(values, values + count);
}

/// Each value within a few roundings of Dtype of the float64 reference; `terms` is how many were summed.
template <typename Dtype>
void ExpectClose(const std::vector<double>& expected, const Dtype* actual, const std::string& what, int terms = 1) {
  const double epsilon = std::numeric_limits<Dtype>::epsilon();
  for (size_t i = 0; i < expected.size(); ++i) {
    const double tolerance = 4 * epsilon * (std::abs(expected[i]) + std::sqrt(static_cast<double>(terms)));
    ASSERT_NEAR(expected[i], actual[i], tolerance) << what << " " << i;
  }
}

}  // namespace reference

#endif  // TESTS_CPP_REFERENCE_HPP_
