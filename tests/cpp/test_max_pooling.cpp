// Max pooling against its definition, for each instruction set.

#include "max_pooling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "vector_units.hpp"

namespace {

using caffe::PoolingShape;

struct Results {
  std::vector<float> y, dx;
  std::vector<uint8_t> winners;
};

/// Few distinct values, so that windows contain ties; some are NaN or infinite.
std::vector<float> Values(size_t count, bool odd_ones) {
  std::mt19937 generator(5);
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(generator() % 9) - 4;
    if (odd_ones && generator() % 16 == 0) value = std::numeric_limits<float>::quiet_NaN();
    if (odd_ones && generator() % 4 == 0) value = -std::numeric_limits<float>::infinity();
  }
  return values;
}

/// The first of the largest values of a window gets its gradient, NaN is larger than all values before it, and values
/// that are not above -FLT_MAX win nothing.
Results Definition(const PoolingShape& s, const std::vector<float>& x, const std::vector<float>& dy) {
  Results r{{}, std::vector<float>(x.size()), {}};
  for (size_t p = 0; p < s.planes; ++p) {
    for (size_t row = 0; row < s.out_height; ++row) {
      for (size_t column = 0; column < s.out_width; ++column) {
        float best = -std::numeric_limits<float>::max();
        uint8_t winner = caffe::kNoWinner;
        size_t at = 0;
        for (size_t k = 0; k < s.kernel_h * s.kernel_w; ++k) {
          const size_t i = row * s.stride_h + k / s.kernel_w, j = column * s.stride_w + k % s.kernel_w;
          if (i < s.pad_h || j < s.pad_w || i >= s.height + s.pad_h || j >= s.width + s.pad_w) continue;
          const size_t from = (p * s.height + i - s.pad_h) * s.width + j - s.pad_w;
          if (!(x[from] > best) && !std::isnan(x[from])) continue;
          best = x[from];
          winner = static_cast<uint8_t>(k);
          at = from;
        }
        if (winner != caffe::kNoWinner) r.dx[at] += dy[r.y.size()];
        r.y.push_back(best);
        r.winners.push_back(winner);
      }
    }
  }
  return r;
}

Results Ours(const PoolingShape& s, const std::vector<float>& x, const std::vector<float>& dy) {
  Results r{std::vector<float>(dy.size()), std::vector<float>(x.size(), 7), std::vector<uint8_t>(dy.size())};
  caffe::MaxPoolingForward(s, x.data(), r.y.data(), r.winners.data());
  caffe::MaxPoolingBackward(s, r.winners.data(), dy.data(), r.dx.data());
  return r;
}

void ExpectSame(const std::vector<float>& expected, const std::vector<float>& made, const char* what) {
  for (size_t i = 0; i < made.size(); ++i) {
    ASSERT_TRUE(expected[i] == made[i] || (std::isnan(expected[i]) && std::isnan(made[i])))
        << what << " value " << i << ": " << made[i] << ", not " << expected[i];
  }
}

void Compare(const PoolingShape& s) {
  SCOPED_TRACE(testing::Message() << s.planes << "x" << s.height << "x" << s.width << ", kernel " << s.kernel_h);
  std::mt19937 generator(6);
  std::normal_distribution<float> normal;
  std::vector<float> dy(s.planes * s.out_height * s.out_width);
  for (float& value : dy) value = normal(generator);
  for (const bool odd_ones : {false, true}) {
    const std::vector<float> x = Values(s.planes * s.height * s.width, odd_ones);
    const Results expected = Definition(s, x, dy);
    reference::OnEachVectorUnit([&] {
      const Results made = Ours(s, x, dy);
      ExpectSame(expected.y, made.y, "y");
      ExpectSame(expected.dx, made.dx, "dx");
      EXPECT_EQ(expected.winners, made.winners);
    });
  }
}

TEST(MaxPooling, WindowsOfTwoOfEachWidth) {
  for (size_t width = 1; width <= 70; ++width) {
    Compare({3, 5, width, 3, (width + 1) / 2, 2, 2, 2, 2, 0, 0});
    Compare({2, 4, width, 2, (width + 1) / 2, 2, 2, 2, 2, 0, 0});
    Compare({2, 5, width, 2, width / 2, 2, 2, 2, 2, 0, 0});  // round_mode: FLOOR omits the last row and column
  }
}

TEST(MaxPooling, OtherWindows) {
  Compare({2, 13, 11, 6, 5, 3, 3, 2, 2, 0, 0});  // overlapping
  Compare({2, 12, 12, 7, 7, 3, 3, 2, 2, 1, 1});  // padded
  Compare({2, 9, 10, 3, 5, 3, 2, 3, 2, 0, 0});   // not square
  Compare({600, 8, 8, 4, 4, 2, 2, 2, 2, 0, 0});  // several threads
  Compare({2, 9, 8, 3, 3, 3, 3, 3, 3, 1, 1});    // the last window starts at the edge
}

/// The first backward pass may come before the first forward pass, or after one with another shape.
TEST(MaxPooling, WinnersOutsideOfThePlaneGetNothing) {
  const PoolingShape s = {1, 6, 5, 4, 4, 3, 3, 2, 2, 2, 2};
  const std::vector<float> dy(16, 1);
  for (const int winner : {0, 2, 6, 8, 9, 254}) {
    std::vector<float> memory(3 * 30, 7);
    const std::vector<uint8_t> winners(16, static_cast<uint8_t>(winner));
    caffe::MaxPoolingBackward(s, winners.data(), dy.data(), memory.data() + 30);
    for (size_t i = 0; i < memory.size(); ++i) {
      if (i >= 30 && i < 60) continue;
      ASSERT_EQ(7, memory[i]) << "winner " << winner << ", value " << static_cast<int>(i) - 30;
    }
  }
}

}  // namespace
