// The SGD update against its formula in float64.

#include "sgd_update.hpp"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

template <typename Dtype>
class SGDUpdateTest : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(SGDUpdateTest, Dtypes);

TYPED_TEST(SGDUpdateTest, IsTheFormulaWithAnyNumberOfThreads) {
  typedef std::vector<TypeParam> Values;
  const int threads = omp_get_max_threads();
  const TypeParam scale = 0.5, rate = 0.1, momentum = 0.9;
  for (const size_t count : {1, 31, 1000, 70001}) {
    for (const bool l1 : {false, true}) {
      for (const TypeParam decay : {TypeParam(0), TypeParam(0.03)}) {
        SCOPED_TRACE(testing::Message() << count << (l1 ? " values, L1, decay " : " values, L2, decay ") << decay);
        std::mt19937 generator(2);
        std::normal_distribution<TypeParam> normal;
        Values gradient(count), history(count), weight(count);
        for (Values* values : {&gradient, &history, &weight}) {
          for (TypeParam& value : *values) value = normal(generator);
        }
        weight[count / 2] = 0;
        for (const int some : {1, 2, 3}) {
          omp_set_num_threads(some);
          Values g = gradient, h = history, w = weight;
          caffe::SGDUpdate<TypeParam>(count, scale, decay, l1, rate, momentum, g.data(), h.data(), w.data());
          for (size_t i = 0; i < count; ++i) {
            const double sign = (weight[i] > 0) - (weight[i] < 0), before = weight[i];
            const double whole = static_cast<double>(scale) * gradient[i] + decay * (l1 ? sign : before);
            const double expected = rate * whole + static_cast<double>(momentum) * history[i];
            const double rounding = 8 * std::numeric_limits<TypeParam>::epsilon() * (1 + std::abs(expected));
            ASSERT_NEAR(expected, h[i], rounding) << "history " << i;
            ASSERT_NEAR(before - expected, w[i], rounding * (1 + std::abs(before))) << "weight " << i;
            ASSERT_EQ(h[i], g[i]) << "gradient " << i;
          }
        }
      }
    }
  }
  omp_set_num_threads(threads);
}

}  // namespace
