// The convolutions of the CPU engine against sums in float64, on each kind of vector unit.

#include <omp.h>

#include <random>
#include <vector>

#include "caffe/layers/conv_layer.hpp"
#include "host_convolution.hpp"
#include "image_convolution.hpp"
#include "reference.hpp"
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

/// The largest difference, as a share of the largest value, is at most 1e-4.
void ExpectNear(const std::vector<double>& expected, const std::vector<float>& made, const char* what) {
  double most = 0, size = 0;
  for (size_t i = 0; i < made.size(); ++i) {
    ASSERT_TRUE(std::isfinite(made[i])) << what << " value " << i;
    most = std::max(most, std::abs(expected[i] - made[i]));
    size = std::max(size, std::abs(expected[i]));
  }
  EXPECT_LE(most, 1e-4 * size) << what;
}

void ExpectNear(const Results<double>& expected, const Results<float>& made) {
  ExpectNear(expected.y, made.y, "y");
  ExpectNear(expected.dx, made.dx, "dx");
  ExpectNear(expected.dw, made.dw, "dw");
  ExpectNear(expected.db, made.db, "db");
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

/// The layer by itself: both engines, several bottoms, gradients that are not wanted.
TEST(Convolution, TheLayersEnginesAgree) {
  caffe::Caffe::set_mode(caffe::Caffe::CPU);
  for (const bool winograd : {true, false}) {
    caffe::LayerParameter param;
    param.set_type("Convolution");
    auto* convolution = param.mutable_convolution_param();
    convolution->set_num_output(20);
    convolution->add_kernel_size(winograd ? 3 : 4);
    convolution->add_pad(1);
    convolution->mutable_weight_filler()->set_type("gaussian");
    convolution->mutable_bias_filler()->set_type("gaussian");
    std::vector<std::vector<float>> made[2];
    for (const auto engine : {caffe::ConvolutionParameter_Engine_DEFAULT, caffe::ConvolutionParameter_Engine_CAFFE}) {
      convolution->set_engine(engine);
      caffe::Blob<float> bottom0(4, 18, 11, 13), bottom1(4, 18, 11, 13), top0, top1;
      reference::FillAwayFromZero(bottom0.count(), 1, bottom0.mutable_cpu_data());
      reference::FillAwayFromZero(bottom1.count(), 2, bottom1.mutable_cpu_data());
      const std::vector<caffe::Blob<float>*> bottoms = {&bottom0, &bottom1}, tops = {&top0, &top1};
      caffe::Caffe::set_random_seed(3);
      caffe::ConvolutionLayer<float> layer(param);
      layer.SetUp(bottoms, tops);
      layer.Forward(bottoms, tops);
      for (auto* top : tops) reference::FillAwayFromZero(top->count(), 4, top->mutable_cpu_diff());
      for (auto& blob : layer.blobs()) caffe::caffe_set(blob->count(), 0.5f, blob->mutable_cpu_diff());
      caffe::caffe_set(bottom1.count(), 9.f, bottom1.mutable_cpu_diff());
      layer.Backward(tops, {true, false}, bottoms);
      for (int i = 0; i < bottom1.count(); ++i) ASSERT_EQ(9.f, bottom1.cpu_diff()[i]);
      const auto keep = [&](const float* values, int count) {
        made[engine == caffe::ConvolutionParameter_Engine_CAFFE].push_back({values, values + count});
      };
      for (auto* top : tops) keep(top->cpu_data(), top->count());
      keep(bottom0.cpu_diff(), bottom0.count());
      for (auto& blob : layer.blobs()) keep(blob->cpu_diff(), blob->count());
    }
    for (size_t i = 0; i < made[0].size(); ++i) {
      ExpectNear(std::vector<double>(made[1][i].begin(), made[1][i].end()), made[0][i], "result");
    }
    if (winograd) EXPECT_NE(made[0][0], made[1][0]);  // two ways to compute it
  }
}

}  // namespace
