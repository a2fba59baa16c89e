// The rectifier kernels against their formula, for each instruction set. Does not need Caffe; tests/arm64.sh also runs
// it.

#include "rectifier.hpp"

#include <vector>

#include "values.hpp"
#include "vector_units.hpp"

namespace {

template <typename Dtype>
struct Rectified {
  std::vector<Dtype> y, kept, dx, dslopes;
  bool operator==(const Rectified& other) const {
    return y == other.y && kept == other.kept && dx == other.dx && dslopes == other.dslopes;
  }
};

/// Both passes on arrays that start `offset` values into their memory, whose other values must not change.
template <typename Dtype>
Rectified<Dtype> Rectify(size_t channels, size_t inner, const std::vector<Dtype>& slopes, const std::vector<Dtype>& x,
                         const std::vector<Dtype>& dy, size_t offset) {
  const size_t count = x.size(), guard = 32;
  const auto placed = [&](const std::vector<Dtype>& values) {
    std::vector<Dtype> memory(count + guard, 7);
    std::copy(values.begin(), values.end(), memory.begin() + offset);
    return memory;
  };
  const auto taken = [&](const std::vector<Dtype>& memory) {
    for (size_t i = 0; i < offset; ++i) EXPECT_EQ(7, memory[i]);
    for (size_t i = offset + count; i < memory.size(); ++i) EXPECT_EQ(7, memory[i]);
    return std::vector<Dtype>(memory.begin() + offset, memory.begin() + offset + count);
  };
  const std::vector<Dtype> px = placed(x), pdy = placed(dy);
  std::vector<Dtype> y = placed({}), dx = placed({}), kept = placed({}), in_place = px, dslopes(channels);
  const size_t outer = count / channels / inner;
  caffe::RectifierForward(outer, channels, inner, slopes.data(), px.data() + offset, y.data() + offset);
  caffe::RectifierForward(outer, channels, inner, slopes.data(), in_place.data() + offset, in_place.data() + offset,
                          kept.data() + offset);
  EXPECT_EQ(y, in_place);
  caffe::RectifierBackward(outer, channels, inner, slopes.data(), px.data() + offset, pdy.data() + offset,
                           dx.data() + offset, dslopes.data());
  return {taken(y), taken(kept), taken(dx), dslopes};
}

template <typename Dtype>
class RectifierVectorUnits : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(RectifierVectorUnits, Dtypes);

TYPED_TEST(RectifierVectorUnits, TheFormulaAndTheSameBitsWhereverArraysLieAndAroundTheCache) {
  const size_t cache = caffe::RectifierCacheBytes();
  reference::OnEachVectorUnit([cache] {
    for (const size_t inner : {1, 2, 3, 49, 61, 64, 67, 131, 4097}) {
      for (const size_t channels : {1, 3, 17}) {
        SCOPED_TRACE(testing::Message() << channels << " channels of " << inner);
        const size_t count = 5 * channels * inner;
        std::vector<TypeParam> x(count), dy(count), slopes(channels);
        reference::FillAwayFromZero(count, 1, x.data());
        reference::FillAwayFromZero(count, 2, dy.data());
        reference::FillAwayFromZero(channels, 3, slopes.data());
        std::vector<double> y(count), dx(count);
        std::vector<long double> sums(channels);
        for (size_t i = 0; i < count; ++i) {
          const size_t c = i / inner % channels;
          y[i] = x[i] > 0 ? x[i] : slopes[c] * static_cast<double>(x[i]);
          dx[i] = x[i] > 0 ? dy[i] : slopes[c] * static_cast<double>(dy[i]);
          if (x[i] <= 0) sums[c] += static_cast<long double>(x[i]) * dy[i];
        }
        const Rectified<TypeParam> made = Rectify(channels, inner, slopes, x, dy, 0);
        reference::ExpectClose(y, made.y.data(), "y");
        reference::ExpectClose(dx, made.dx.data(), "dx");
        reference::ExpectClose({sums.begin(), sums.end()}, made.dslopes.data(), "dslopes", count / channels);
        EXPECT_EQ(x, made.kept);
        for (const size_t bytes : {cache, size_t(0)}) {
          caffe::RectifierCacheBytes() = bytes;
          for (size_t offset = 0; offset < 16; ++offset) {
            EXPECT_TRUE(made == Rectify(channels, inner, slopes, x, dy, offset)) << "offset " << offset;
          }
        }
        caffe::RectifierCacheBytes() = cache;
      }
    }
  });
}

}  // namespace
