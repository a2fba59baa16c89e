// The rectifier kernels on the GPU against the formula, value by value, and a float64 sum. Needs only the CUDA runtime.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "device.hpp"
#include "rectifier_gpu.hpp"

namespace {

using device::Array;

struct Sizes {
  size_t outer, channels, inner;
  size_t count() const { return outer * channels * inner; }
};

std::ostream& operator<<(std::ostream& out, const Sizes& s) {
  return out << s.outer << " x " << s.channels << " x " << s.inner;
}

const Sizes kSmall[] = {{1, 1, 1},    {1, 2, 1},    {3, 1, 1},     {2, 3, 4},    {7, 11, 13},
                        {5, 1, 3},    {17, 3, 1},   {1, 13, 6},    {2, 5, 511},  {2, 5, 512},
                        {3, 5, 513},  {2, 7, 2053}, {1, 1, 65537}, {19, 10, 49}, {41, 64, 3},
                        {9, 4096, 1}, {4099, 2, 5}, {6, 16, 196},  {2, 3, 6007}, {11, 1021, 7}};
// More than 2^16 values along each axis, and more pieces than blocks.
const Sizes kLarge[] = {{70001, 3, 1},   {70001, 1, 2},   {70001, 2, 17},  {2, 70001, 1},
                        {2, 70001, 3},   {1, 3, 70001},   {3, 1, 70001},   {1, 1, 9000001},
                        {1, 1500007, 3}, {20001, 2, 513}, {1, 70001, 512}, {70003, 5, 33}};

/// Values of both signs, including zeros.
template <typename T>
std::vector<T> Values(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<T> values(count);
  for (T& value : values) {
    const int n = static_cast<int>(generator() % 20001) - 10000;
    value = n % 50 == 0 ? T(0) : static_cast<T>(n) / T(4096);
  }
  return values;
}

template <typename T>
struct Inputs {
  Sizes sizes;
  std::vector<T> slopes, x, dy, dslopes;

  explicit Inputs(const Sizes& s)
      : sizes(s),
        slopes(Values<T>(s.channels, 1)),
        x(Values<T>(s.count(), 2)),
        dy(Values<T>(s.count(), 3)),
        dslopes(Values<T>(s.channels, 4)) {}

  size_t channel(size_t i) const { return i / sizes.inner % sizes.channels; }
};

/// Equal to the bit, or both NaN (any NaN).
template <typename T>
bool Same(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <typename T>
void ExpectSame(const std::vector<T>& expected, const std::vector<T>& actual, const char* what) {
  ASSERT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(Same(expected[i], actual[i])) << what << " " << i << ": " << actual[i] << ", not " << expected[i];
  }
}

/// `factor` if x is above 0, else slope times factor.
template <typename T>
std::vector<T> Rectified(const Inputs<T>& in, const std::vector<T>& factor) {
  std::vector<T> out(factor.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = in.x[i] > 0 ? factor[i] : in.slopes[in.channel(i)] * factor[i];
  return out;
}

template <typename T>
void ExpectSums(const Inputs<T>& in, const std::vector<T>& actual) {
  std::vector<double> sums(in.dslopes.begin(), in.dslopes.end()), sizes(sums.size());
  for (size_t i = 0; i < in.x.size(); ++i) {
    if (in.x[i] > 0) continue;
    const double term = static_cast<double>(in.x[i]) * in.dy[i];
    sums[in.channel(i)] += term;
    sizes[in.channel(i)] += std::abs(term);
  }
  for (size_t c = 0; c < sums.size(); ++c) {
    if (!std::isfinite(sums[c])) {
      ASSERT_TRUE(Same(static_cast<T>(sums[c]), actual[c])) << "dslopes " << c << ": " << actual[c];
      continue;
    }
    // A value passes through about 30 additions in T; the others are in double.
    const double tolerance = std::numeric_limits<T>::epsilon() * (32 * sizes[c] + 2 * std::abs(in.dslopes[c]));
    ASSERT_NEAR(sums[c], actual[c], tolerance) << "dslopes " << c;
  }
}

/// Offsets of the arrays from multiples of 16 bytes, in values.
struct Offsets {
  size_t x, y;
};
const Offsets kOffsets[] = {{0, 0}, {1, 1}, {3, 3}, {1, 0}, {0, 1}};

template <typename T>
void CheckForward(const Inputs<T>& in, Offsets offsets, bool in_place, bool keep) {
  const Sizes& s = in.sizes;
  Array<T> slopes(in.slopes), x(in.x, offsets.x), y(s.count(), offsets.y), kept(s.count(), offsets.x);
  caffe::RectifierForwardGpu<T>(s.outer, s.channels, s.inner, slopes.get(), x.get(), in_place ? x.get() : y.get(),
                                keep ? kept.get() : nullptr, nullptr);
  device::Check(cudaGetLastError());
  ExpectSame(Rectified(in, in.x), in_place ? x.Read() : y.Read(), "y");
  if (keep) ExpectSame(in.x, kept.Read(), "kept");
  if (!in_place) ExpectSame(in.x, x.Read(), "x");
}

template <typename T>
void CheckBackward(const Inputs<T>& in, Offsets offsets, bool in_place, bool to_bottom, bool to_slopes) {
  const Sizes& s = in.sizes;
  Array<T> slopes(in.slopes), x(in.x, offsets.x), dy(in.dy, offsets.y), dx(s.count(), offsets.y), dslopes(in.dslopes);
  Array<T> workspace(caffe::RectifierWorkspaceBytes<T>(s.outer, s.channels, s.inner) / sizeof(T));
  T* to = !to_bottom ? nullptr : in_place ? dy.get() : dx.get();
  caffe::RectifierBackwardGpu<T>(s.outer, s.channels, s.inner, slopes.get(), x.get(), dy.get(), to,
                                 to_slopes ? dslopes.get() : nullptr, to_slopes ? workspace.get() : nullptr, nullptr);
  device::Check(cudaGetLastError());
  if (to_bottom) ExpectSame(Rectified(in, in.dy), in_place ? dy.Read() : dx.Read(), "dx");
  if (!to_bottom || !in_place) ExpectSame(in.dy, dy.Read(), "dy");
  ExpectSame(in.x, x.Read(), "x");
  workspace.Read();
  if (to_slopes) {
    ExpectSums(in, dslopes.Read());
  } else {
    ExpectSame(in.dslopes, dslopes.Read(), "dslopes");
  }
}

template <typename T>
class RectifierCudaTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string problem = device::Problem();
    if (!problem.empty()) GTEST_SKIP() << problem;
  }
};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(RectifierCudaTest, Dtypes);

TYPED_TEST(RectifierCudaTest, ForwardIsTheFormulaAtAnySizeAndAlignment) {
  for (const Sizes& sizes : kSmall) {
    const Inputs<TypeParam> in(sizes);
    for (const Offsets offsets : kOffsets) {
      for (const bool in_place : {false, true}) {
        for (const bool keep : {false, true}) {
          SCOPED_TRACE(testing::Message() << sizes << " offsets " << offsets.x << " " << offsets.y
                                          << (in_place ? " in place" : "") << (keep ? " kept" : ""));
          CheckForward(in, offsets, in_place, keep);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(RectifierCudaTest, BackwardIsTheFormulaAtAnySizeAndAlignment) {
  for (const Sizes& sizes : kSmall) {
    const Inputs<TypeParam> in(sizes);
    for (const Offsets offsets : kOffsets) {
      for (const int wanted : {1, 2, 3}) {
        for (const bool in_place : {false, true}) {
          SCOPED_TRACE(testing::Message() << sizes << " offsets " << offsets.x << " " << offsets.y << " wanted "
                                          << wanted << (in_place ? " in place" : ""));
          CheckBackward(in, offsets, in_place, wanted & 1, wanted & 2);
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TYPED_TEST(RectifierCudaTest, LargeSizes) {
  for (const Sizes& sizes : kLarge) {
    const Inputs<TypeParam> in(sizes);
    for (const size_t offset : {0, 1}) {
      SCOPED_TRACE(testing::Message() << sizes << " offset " << offset);
      CheckForward(in, {offset, offset}, false, true);
      if (testing::Test::HasFatalFailure()) return;
      CheckBackward(in, {offset, offset}, false, true, true);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(RectifierCudaTest, NansAndInfinitiesGoWhereTheFormulaTakesThem) {
  const TypeParam infinity = std::numeric_limits<TypeParam>::infinity();
  const TypeParam tiny = std::numeric_limits<TypeParam>::denorm_min();
  const TypeParam special[] = {
      std::numeric_limits<TypeParam>::quiet_NaN(), infinity, -infinity, tiny, -tiny, TypeParam(0), -TypeParam(0)};
  for (const Sizes& sizes : std::vector<Sizes>{{3, 11, 5}, {3, 11, 700}, {1, 1, 3001}}) {
    for (const TypeParam value : special) {
      for (const bool in_dy : {false, true}) {
        SCOPED_TRACE(testing::Message() << sizes << " " << value << (in_dy ? " in dy" : " in x"));
        Inputs<TypeParam> in(sizes);
        (in_dy ? in.dy : in.x)[0] = value;
        (in_dy ? in.dy : in.x)[sizes.count() / 2] = value;
        (in_dy ? in.dy : in.x)[sizes.count() - 1] = value;
        CheckForward(in, {0, 0}, false, true);
        CheckBackward(in, {1, 1}, false, true, true);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(RectifierCudaTest, SumsAreTheSameBitsInEveryRun) {
  for (const Sizes& sizes : std::vector<Sizes>{{50, 64, 49}, {50, 16, 900}, {1, 1, 1000003}, {501, 128, 1}}) {
    const Inputs<TypeParam> in(sizes);
    Array<TypeParam> slopes(in.slopes), x(in.x), dy(in.dy), dx(sizes.count()), dslopes(sizes.channels);
    const size_t bytes = caffe::RectifierWorkspaceBytes<TypeParam>(sizes.outer, sizes.channels, sizes.inner);
    Array<TypeParam> workspace(bytes / sizeof(TypeParam));
    cudaStream_t stream;
    device::Check(cudaStreamCreate(&stream));
    std::vector<TypeParam> first;
    for (int run = 0; run < 20; ++run) {
      dslopes.Write(in.dslopes);
      device::Check(cudaMemset(workspace.get(), run, bytes));
      caffe::RectifierBackwardGpu<TypeParam>(sizes.outer, sizes.channels, sizes.inner, slopes.get(), x.get(), dy.get(),
                                             dx.get(), dslopes.get(), workspace.get(), run % 2 == 0 ? nullptr : stream);
      const std::vector<TypeParam> sums = dslopes.Read();
      if (run == 0) first = sums;
      ASSERT_EQ(0, std::memcmp(first.data(), sums.data(), sums.size() * sizeof(TypeParam))) << sizes << " run " << run;
    }
    device::Check(cudaStreamDestroy(stream));
  }
}

TYPED_TEST(RectifierCudaTest, SizesOfZeroDoNothing) {
  for (const Sizes& sizes : std::vector<Sizes>{{0, 3, 4}, {3, 0, 4}, {3, 4, 0}, {0, 0, 0}}) {
    EXPECT_EQ(0u, caffe::RectifierWorkspaceBytes<TypeParam>(sizes.outer, sizes.channels, sizes.inner));
    caffe::RectifierForwardGpu<TypeParam>(sizes.outer, sizes.channels, sizes.inner, nullptr, nullptr, nullptr, nullptr,
                                          nullptr);
    Array<TypeParam> dslopes(std::vector<TypeParam>(4, 42));
    caffe::RectifierBackwardGpu<TypeParam>(sizes.outer, sizes.channels, sizes.inner, nullptr, nullptr, nullptr, nullptr,
                                           dslopes.get(), nullptr, nullptr);
    EXPECT_EQ(cudaSuccess, cudaGetLastError());
    ExpectSame(std::vector<TypeParam>(4, 42), dslopes.Read(), "dslopes");
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
