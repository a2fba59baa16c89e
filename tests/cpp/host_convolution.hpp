// Reference convolution and its gradients on the host, value by value in float64.

#ifndef TESTS_CPP_HOST_CONVOLUTION_HPP_
#define TESTS_CPP_HOST_CONVOLUTION_HPP_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace host {

/// The sizes of y = x * w: x is num x channels x height x width, y num x outputs x out_height() x out_width().
struct Sizes {
  int num, channels, height, width, outputs;
  int kernel_h, kernel_w, pad_h, pad_w, stride_h, stride_w, dilation_h, dilation_w, groups;

  int out_height() const { return (height + 2 * pad_h - dilation_h * (kernel_h - 1) - 1) / stride_h + 1; }
  int out_width() const { return (width + 2 * pad_w - dilation_w * (kernel_w - 1) - 1) / stride_w + 1; }
  size_t x_count() const { return static_cast<size_t>(num) * channels * height * width; }
  size_t y_count() const { return static_cast<size_t>(num) * outputs * out_height() * out_width(); }
  size_t w_count() const { return static_cast<size_t>(outputs) * (channels / groups) * kernel_h * kernel_w; }
};

/// Call visit(index in x, index in w, index in y) for each product of the convolution.
template <typename Visit>
void ForEachProduct(const Sizes& s, const Visit& visit) {
  const int in = s.channels / s.groups, out = s.outputs / s.groups;
  for (int n = 0; n < s.num; ++n) {
    for (int o = 0; o < s.outputs; ++o) {
      for (int c = 0; c < in; ++c) {
        const int channel = o / out * in + c;
        for (int row = 0; row < s.out_height(); ++row) {
          for (int column = 0; column < s.out_width(); ++column) {
            const int y = ((n * s.outputs + o) * s.out_height() + row) * s.out_width() + column;
            for (int kh = 0; kh < s.kernel_h; ++kh) {
              for (int kw = 0; kw < s.kernel_w; ++kw) {
                const int h = row * s.stride_h - s.pad_h + kh * s.dilation_h;
                const int w = column * s.stride_w - s.pad_w + kw * s.dilation_w;
                if (h < 0 || h >= s.height || w < 0 || w >= s.width) continue;
                visit(((n * s.channels + channel) * s.height + h) * s.width + w,
                      ((o * in + c) * s.kernel_h + kh) * s.kernel_w + kw, y);
              }
            }
          }
        }
      }
    }
  }
}

/// Sums of products, and of their absolute values, which bound the rounding errors.
struct Sums {
  std::vector<double> value, size;
  explicit Sums(size_t count) : value(count), size(count) {}
  void Add(size_t i, double term) {
    value[i] += term;
    size[i] += std::abs(term);
  }
};

typedef std::vector<double> Values;

inline Sums Forward(const Sizes& s, const Values& x, const Values& w) {
  Sums y(s.y_count());
  ForEachProduct(s, [&](int i, int j, int k) { y.Add(k, x[i] * w[j]); });
  return y;
}

inline Sums BackwardData(const Sizes& s, const Values& w, const Values& dy) {
  Sums dx(s.x_count());
  ForEachProduct(s, [&](int i, int j, int k) { dx.Add(i, w[j] * dy[k]); });
  return dx;
}

inline Sums BackwardFilter(const Sizes& s, const Values& x, const Values& dy) {
  Sums dw(s.w_count());
  ForEachProduct(s, [&](int i, int j, int k) { dw.Add(j, x[i] * dy[k]); });
  return dw;
}

/// Add a bias per channel to channels x area values, repeatedly.
inline void AddBias(int channels, int area, const Values& bias, Sums* y) {
  for (size_t i = 0; i < y->value.size(); ++i) y->Add(i, bias[i / area % channels]);
}

inline Sums BackwardBias(int channels, int area, const Values& dy) {
  Sums db(channels);
  for (size_t i = 0; i < dy.size(); ++i) db.Add(i / area % channels, dy[i]);
  return db;
}

/// Check that the largest difference is at most 1e-4 of the largest value.
inline void ExpectNear(const std::vector<double>& expected, const std::vector<float>& made, const char* what) {
  ASSERT_EQ(expected.size(), made.size()) << what;
  double most = 0, size = 0;
  for (size_t i = 0; i < made.size(); ++i) {
    ASSERT_TRUE(std::isfinite(made[i])) << what << " value " << i;
    most = std::max(most, std::abs(expected[i] - made[i]));
    size = std::max(size, std::abs(expected[i]));
  }
  EXPECT_LE(most, 1e-4 * size) << what;
}

}  // namespace host

#endif  // TESTS_CPP_HOST_CONVOLUTION_HPP_
