// Random values without kinks, and comparison with float64, for tests that do not need Caffe.

#ifndef TESTS_CPP_VALUES_HPP_
#define TESTS_CPP_VALUES_HPP_

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace reference {

/// Fill `values` from +-[0.1, 1], away from the rectifiers' kink at zero.
template <typename Dtype>
void FillAwayFromZero(int count, unsigned seed, Dtype* values) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> size(0.1, 1.0);
  for (int i = 0; i < count; ++i) values[i] = static_cast<Dtype>(size(generator) * (generator() % 2 ? 1 : -1));
}

template <typename Dtype>
std::vector<double> ToDouble(const Dtype* values, int count) {
  return std::vector<double>(values, values + count);
}

/// Check that each value is within a few roundings of Dtype of the float64 reference; `terms` values were added.
template <typename Dtype>
void ExpectClose(const std::vector<double>& expected, const Dtype* actual, const std::string& what, int terms = 1) {
  const double epsilon = std::numeric_limits<Dtype>::epsilon();
  for (size_t i = 0; i < expected.size(); ++i) {
    const double tolerance = 4 * epsilon * (std::abs(expected[i]) + std::sqrt(static_cast<double>(terms)));
    ASSERT_NEAR(expected[i], actual[i], tolerance) << what << " " << i;
  }
}

}  // namespace reference

#endif  // TESTS_CPP_VALUES_HPP_
