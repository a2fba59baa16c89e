// The convolutions of the CPU engine against float64 sums, for each instruction set. Does not need Caffe;
// tests/arm64.sh also runs it.

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "host_convolution.hpp"
#include "image_convolution.hpp"
#include "vector_units.hpp"
#include "winograd.hpp"

namespace {

using caffe::ConvolutionShape;
using host::Sizes;

struct Arrays {
  std::vector<float> x, weights, bias, dy;

  explicit Arrays(const Sizes& s) {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>* values, size_t count) {
      values->resize(count);
      for (float& value : *values) value = normal(generator);
    };
    fill(&x, s.x_count());
    fill(&weights, s.w_count());
    fill(&bias, s.outputs);
    fill(&dy, s.y_count());
  }
};

template <typename T>
struct Results {
  std::vector<T> y, dx, dw, db;
  explicit Results(const Arrays& a) : y(a.dy.size()), dx(a.x.size()), dw(a.weights.size(), 1), db(a.bias.size(), 1) {}
  bool operator==(const Results& o) const { return y == o.y && dx == o.dx && dw == o.dw && db == o.db; }
};

/// The definition; gradients are added to ones.
Results<double> Reference(const Sizes& s, const Arrays& a) {
  Results<double> r(a);
  host::ForEachProduct(s, [&](int x, int w, int y) {
    r.y[y] += static_cast<double>(a.x[x]) * a.weights[w];
    r.dx[x] += static_cast<double>(a.dy[y]) * a.weights[w];
    r.dw[w] += static_cast<double>(a.dy[y]) * a.x[x];
  });
  for (size_t i = 0; i < r.y.size(); ++i) {
    const size_t k = i / (s.out_height() * s.out_width()) % s.outputs;
    r.y[i] += a.bias[k];
    r.db[k] += a.dy[i];
  }
  return r;
}

ConvolutionShape ShapeOf(const Sizes& s) {
  const int in[] = {s.channels, s.height, s.width}, out[] = {s.outputs, s.out_height(), s.out_width()};
  const int kernel[] = {s.kernel_h, s.kernel_w}, pad[] = {s.pad_h, s.pad_w}, stride[] = {s.stride_h, s.stride_w};
  const int dilation[] = {s.dilation_h, s.dilation_w};
  return caffe::ShapeOf(s.num, in, out, kernel, pad, stride, dilation, s.groups);
}

Results<float> ByWinograd(const Sizes& sizes, const Arrays& a) {
  const ConvolutionShape s = ShapeOf(sizes);
  Results<float> r(a);
  caffe::WinogradForward(s, a.x.data(), a.weights.data(), a.bias.data(), r.y.data());
  caffe::WinogradBackwardData(s, a.dy.data(), a.weights.data(), r.dx.data());
  caffe::WinogradBackwardWeights(s, a.x.data(), a.dy.data(), r.dw.data());
  caffe::BiasGradient(s.images, s.outputs, s.out_height * s.out_width, a.dy.data(), r.db.data());
  return r;
}

Results<float> ByImages(const Sizes& sizes, const Arrays& a) {
  const ConvolutionShape s = ShapeOf(sizes);
  Results<float> r(a);
  caffe::ImageConvolutionForward(s, a.x.data(), a.weights.data(), a.bias.data(), r.y.data());
  caffe::ImageConvolutionBackwardData(s, a.dy.data(), a.weights.data(), r.dx.data());
  caffe::ImageConvolutionBackwardWeights(s, a.x.data(), a.dy.data(), r.dw.data());
  caffe::BiasGradient(s.images, s.outputs, s.out_height * s.out_width, a.dy.data(), r.db.data());
  return r;
}

void ExpectNear(const Results<double>& expected, const Results<float>& made) {
  host::ExpectNear(expected.y, made.y, "y");
  host::ExpectNear(expected.dx, made.dx, "dx");
  host::ExpectNear(expected.dw, made.dw, "dw");
  host::ExpectNear(expected.db, made.db, "db");
}

//                     num  c  h   w  out kh kw ph pw sh sw dh dw groups
const Sizes kWinogradSizes[] = {{2, 16, 8, 8, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                {3, 17, 7, 9, 33, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                {2, 20, 13, 11, 40, 5, 5, 2, 2, 1, 1, 1, 1, 1},
                                {2, 16, 6, 6, 16, 5, 5, 0, 1, 1, 1, 1, 1, 1},
                                {1, 40, 9, 3, 20, 3, 3, 2, 0, 1, 1, 1, 1, 1},
                                {1, 3, 5, 5, 2, 3, 3, 0, 0, 1, 1, 1, 1, 1},
                                {2, 64, 29, 28, 70, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                {1, 1, 1, 1, 1, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                {1, 18, 2, 2, 19, 5, 5, 4, 4, 1, 1, 1, 1, 1},
                                {1, 130, 14, 14, 140, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                {3, 35, 3, 30, 16, 3, 3, 2, 2, 1, 1, 1, 1, 1},
                                {1, 400, 6, 7, 421, 3, 3, 1, 1, 1, 1, 1, 1, 1}};  // the last in two parts

TEST(Convolution, ByWinogradOnEachVectorUnit) {
  for (const Sizes& s : kWinogradSizes) {
    SCOPED_TRACE(testing::Message() << s.num << "x" << s.channels << "x" << s.height << "x" << s.width << " to "
                                    << s.outputs << ", kernel " << s.kernel_h);
    const Arrays arrays(s);
    const Results<double> expected = Reference(s, arrays);
    reference::OnEachVectorUnit([&] { ExpectNear(expected, ByWinograd(s, arrays)); });
  }
}

TEST(Convolution, ByImagesOfAnyStridePadDilationAndGroups) {
  for (const Sizes& s : std::vector<Sizes>{{3, 3, 17, 19, 8, 5, 5, 2, 2, 1, 1, 1, 1, 1},
                                           {2, 6, 12, 13, 9, 3, 2, 1, 0, 2, 3, 1, 1, 3},
                                           {4, 4, 15, 15, 6, 3, 3, 2, 3, 1, 1, 2, 3, 2},
                                           {2, 8, 9, 9, 5, 1, 1, 0, 0, 1, 1, 1, 1, 1},
                                           {2, 8, 9, 9, 4, 1, 1, 0, 0, 1, 1, 1, 1, 4},
                                           {2, 3, 5, 6, 4, 3, 3, 4, 5, 2, 2, 1, 1, 1},
                                           {5, 2, 4, 150, 3, 3, 7, 1, 3, 1, 4, 1, 1, 1},
                                           {2, 64, 40, 40, 3, 7, 7, 3, 3, 1, 1, 1, 1, 1}}) {
    SCOPED_TRACE(testing::Message() << s.num << "x" << s.channels << "x" << s.height << "x" << s.width << " to "
                                    << s.outputs << ", groups " << s.groups);
    const Arrays arrays(s);
    ExpectNear(Reference(s, arrays), ByImages(s, arrays));
  }
}

TEST(Convolution, TheSameBitsAgainAndWithAnyNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const Sizes& s : std::vector<Sizes>{{5, 64, 15, 15, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                           {3, 160, 14, 14, 160, 3, 3, 1, 1, 1, 1, 1, 1, 1},
                                           {5, 32, 15, 15, 32, 5, 5, 2, 2, 1, 1, 1, 1, 1},
                                           {7, 3, 20, 20, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1}}) {
    const Arrays arrays(s);
    const auto run = [&] { return s.channels > 3 ? ByWinograd(s, arrays) : ByImages(s, arrays); };
    const Results<double> expected = Reference(s, arrays);
    std::vector<Results<float>> made;
    for (const int count : {1, 2, 3, 7}) {
      omp_set_num_threads(count);
      made.push_back(run());
      ExpectNear(expected, made.back());
      for (int again = 0; again < 3; ++again) EXPECT_TRUE(made.back() == run()) << count << " threads";
      EXPECT_TRUE(made.back() == made[0]) << count << " threads";
    }
  }
  omp_set_num_threads(threads);
}

/// Each thread has the transformed tiles of a strip, as wide as the image, in memory.
TEST(Convolution, WinogradIsNotForStripsWithoutEnd) {
  EXPECT_TRUE(caffe::WinogradFits(ShapeOf({1, 64, 8, 2000, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1})));
  EXPECT_FALSE(caffe::WinogradFits(ShapeOf({1, 16, 1, 1000000, 16, 3, 3, 1, 1, 1, 1, 1, 1, 1})));
}

}  // namespace
