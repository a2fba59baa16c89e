#include "caffe/layers/prelu_layer.hpp"

#include "caffe/test/test_gradient_check_util.hpp"
#include "reference.hpp"

namespace {

using reference::OneLayer;

struct Case {
  std::vector<int> shape;
  bool in_place, shared;
};

// More than 2^16 along each axis, short and long planes, too many values to vary one by one.
const std::vector<std::vector<int>> kLargeShapes = {{4, 64, 56, 56}, {65537, 2},       {2, 65537},   {65537, 1, 3},
                                                    {1, 3, 65537},   {3, 2, 2, 65537}, {13, 67, 61}, {100, 31, 7, 9}};

bool IsLarge(const std::vector<int>& shape) {
  return std::find(kLargeShapes.begin(), kLargeShapes.end(), shape) != kLargeShapes.end();
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  std::vector<std::vector<int>> shapes = {{2, 3, 4, 5}, {7, 11}, {1, 1}, {5, 1, 3}, {1, 13, 2, 1, 3}};
  shapes.insert(shapes.end(), kLargeShapes.begin(), kLargeShapes.end());
  for (const auto& shape : shapes) {
    for (const bool in_place : {false, true}) {
      for (const bool shared : {false, true}) cases.push_back({shape, in_place, shared});
    }
  }
  return cases;
}

caffe::LayerParameter Param(bool shared) {
  caffe::LayerParameter param;
  param.set_type("PReLU");
  param.mutable_prelu_param()->set_channel_shared(shared);
  return param;
}

template <typename Dtype>
class PReLULayerTest : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(PReLULayerTest, Dtypes);

TYPED_TEST(PReLULayerTest, ValuesAndGradientsAreThoseOfTheFormula) {
  for (const Case& c : Cases()) {
    OneLayer<TypeParam> run(Param(c.shared), c.shape, c.in_place);
    const int channels = c.shape[1], count = run.bottom.count(), inner = run.bottom.count(2);
    caffe::Blob<TypeParam>& slopes = *run.layer->blobs()[0];
    ASSERT_EQ(c.shared ? 1 : channels, slopes.count());
    reference::FillAwayFromZero(slopes.count(), 2, slopes.mutable_cpu_data());
    std::vector<TypeParam> dy(count);
    reference::FillAwayFromZero(count, 3, dy.data());
    reference::FillAwayFromZero(slopes.count(), 4, slopes.mutable_cpu_diff());  // gradients must accumulate

    const auto x = reference::ToDouble(run.bottom.cpu_data(), count);
    std::vector<double> y(count), dx(count);
    std::vector<long double> sums(slopes.cpu_diff(), slopes.cpu_diff() + slopes.count());
    for (int i = 0; i < count; ++i) {
      const int channel = c.shared ? 0 : i / inner % channels;
      const double slope = slopes.cpu_data()[channel];
      y[i] = std::max(0., x[i]) + slope * std::min(0., x[i]);
      dx[i] = dy[i] * (x[i] > 0 ? 1 : slope);
      if (x[i] <= 0) sums[channel] += static_cast<long double>(x[i]) * dy[i];
    }

    const std::vector<double> dslopes(sums.begin(), sums.end());

    run.Forward();
    reference::ExpectClose(y, run.top->cpu_data(), "y");
    run.Backward(dy);
    reference::ExpectClose(dx, run.bottom.cpu_diff(), "dx");
    reference::ExpectClose(dslopes, slopes.cpu_diff(), "dslopes", count / slopes.count());
  }
}

TYPED_TEST(PReLULayerTest, GradientsMatchFiniteDifferences) {
  for (const Case& c : Cases()) {
    if (IsLarge(c.shape)) continue;
    SCOPED_TRACE(testing::Message() << testing::PrintToString(c.shape) << (c.in_place ? " in place" : "")
                                    << (c.shared ? " shared" : ""));
    OneLayer<TypeParam> run(Param(c.shared), c.shape, c.in_place);
    caffe::Blob<TypeParam>& slopes = *run.layer->blobs()[0];
    reference::FillAwayFromZero(slopes.count(), 2, slopes.mutable_cpu_data());
    reference::ExpectGradientsOfDifferences(&run);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(PReLULayerTest, GradientsPassUpstreamsChecker) {
  for (const Case& c : Cases()) {
    if (c.in_place || IsLarge(c.shape)) continue;  // it needs a separate top
    OneLayer<TypeParam> run(Param(c.shared), c.shape, false);
    auto layer = caffe::LayerRegistry<TypeParam>::CreateLayer(Param(c.shared));
    caffe::GradientChecker<TypeParam> checker(1e-2, 1e-3, 1701, 0., 0.01);
    checker.CheckGradientExhaustive(layer.get(), run.bottoms, run.tops);
  }
}

TYPED_TEST(PReLULayerTest, FrozenSlopesAndBottomAreLeftAlone) {
  OneLayer<TypeParam> run(Param(false), {2, 3, 4}, false);
  run.layer->set_param_propagate_down(0, false);
  run.layer->blobs()[0]->mutable_cpu_diff()[1] = 42;
  run.bottom.mutable_cpu_diff()[5] = 43;
  run.Forward();
  run.Backward(std::vector<TypeParam>(run.bottom.count(), 1), false);
  EXPECT_EQ(42, run.layer->blobs()[0]->cpu_diff()[1]);
  EXPECT_EQ(43, run.bottom.cpu_diff()[5]);
}

TYPED_TEST(PReLULayerTest, SlopesStartAtAQuarterOrAsTheFillerSays) {
  caffe::LayerParameter param = Param(false);
  EXPECT_EQ(TypeParam(0.25), OneLayer<TypeParam>(param, {1, 3}, false).layer->blobs()[0]->cpu_data()[2]);
  param.mutable_prelu_param()->mutable_filler()->set_value(0.5);
  EXPECT_EQ(TypeParam(0.5), OneLayer<TypeParam>(param, {1, 3}, false).layer->blobs()[0]->cpu_data()[2]);
}

TYPED_TEST(PReLULayerTest, NanAndInfinitiesPassAsTheFormulaSays) {
  const TypeParam inf = std::numeric_limits<TypeParam>::infinity(), nan = std::numeric_limits<TypeParam>::quiet_NaN();
  const std::vector<TypeParam> x = {inf, -inf, nan, -2, 0, 1};  // one value per channel
  const std::vector<TypeParam> dy = {2, 2, 2, inf, -inf, nan};
  for (const bool in_place : {false, true}) {
    OneLayer<TypeParam> run(Param(false), {1, 6}, in_place);
    std::copy(x.begin(), x.end(), run.bottom.mutable_cpu_data());
    run.Forward();
    const TypeParam* y = run.top->cpu_data();
    EXPECT_EQ(inf, y[0]);
    EXPECT_EQ(-inf, y[1]);
    EXPECT_TRUE(std::isnan(y[2]));
    EXPECT_EQ(1, y[5]);
    run.Backward(dy);
    const TypeParam* dx = run.bottom.cpu_diff();
    EXPECT_EQ(2, dx[0]);
    EXPECT_EQ(TypeParam(0.5), dx[1]);
    EXPECT_EQ(TypeParam(0.5), dx[2]);  // NaN is not above 0
    EXPECT_EQ(inf, dx[3]);
    EXPECT_TRUE(std::isnan(dx[5]));
    const TypeParam* dslopes = run.layer->blobs()[0]->cpu_diff();
    EXPECT_EQ(0, dslopes[0]);
    EXPECT_EQ(-inf, dslopes[1]);
    EXPECT_TRUE(std::isnan(dslopes[2]));
    EXPECT_EQ(-inf, dslopes[3]);
    EXPECT_TRUE(std::isnan(dslopes[4]));  // 0 times infinity
    EXPECT_EQ(0, dslopes[5]);
  }
}

TYPED_TEST(PReLULayerTest, AnEmptyBatchGivesAnEmptyTopAndNoGradient) {
  for (const std::vector<int>& shape : {std::vector<int>{0, 3, 4}, {2, 3, 0}, {0, 3}}) {
    for (const bool shared : {false, true}) {
      OneLayer<TypeParam> run(Param(shared), shape, false);
      run.layer->blobs()[0]->mutable_cpu_diff()[0] = 42;
      run.Forward();
      run.Backward({});
      EXPECT_EQ(shape, run.top->shape());
      EXPECT_EQ(42, run.layer->blobs()[0]->cpu_diff()[0]);
    }
  }
}

TYPED_TEST(PReLULayerTest, ABatchMayGrowAndShrink) {
  OneLayer<TypeParam> run(Param(false), {2, 3, 4}, false);
  for (const int batch : {5, 0, 1, 70000}) {
    run.bottom.Reshape({batch, 3, 4});
    std::fill_n(run.bottom.mutable_cpu_data(), run.bottom.count(), TypeParam(-1));
    run.Forward();
    EXPECT_EQ(run.bottom.shape(), run.top->shape());
    if (batch > 0) EXPECT_EQ(TypeParam(-0.25), run.top->cpu_data()[batch * 12 - 1]);
    run.layer->blobs()[0]->mutable_cpu_diff()[2] = 0;
    run.Backward(std::vector<TypeParam>(run.bottom.count(), 1));
    EXPECT_EQ(TypeParam(-4 * batch), run.layer->blobs()[0]->cpu_diff()[2]);
  }
}

TYPED_TEST(PReLULayerTest, AnotherNumberOfChannelsIsRefused) {
  OneLayer<TypeParam> run(Param(false), {2, 3, 4}, false);
  run.bottom.Reshape({2, 4, 4});
  EXPECT_THROW(run.Forward(), caffe::Error);
  EXPECT_THROW(OneLayer<TypeParam>(Param(false), {6}, false), caffe::Error);
  EXPECT_THROW(OneLayer<TypeParam>(Param(false), {6, 0, 2}, false), caffe::Error);
}

}  // namespace
