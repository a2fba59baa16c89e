#include "caffe/layers/prelu_layer.hpp"

#include "caffe/test/test_gradient_check_util.hpp"
#include "reference.hpp"

namespace {

using reference::OneLayer;

struct Case {
  std::vector<int> shape;
  bool in_place, shared;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  const std::vector<std::vector<int> > shapes = {{2, 3, 4, 5}, {7, 11}, {1, 1}, {5, 1, 3}, {1, 13, 2, 1, 3}, {4, 64, 56, 56}};
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
    reference::FillAwayFromZero(slopes.count(), 4, slopes.mutable_cpu_diff());  // gradients must add up

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
    if (c.shape.back() == 56) continue;  // too many values to vary one by one
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
    if (c.in_place || c.shape.back() == 56) continue;  // it needs a top of its own
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

TYPED_TEST(PReLULayerTest, AnotherNumberOfChannelsIsRefused) {
  OneLayer<TypeParam> run(Param(false), {2, 3, 4}, false);
  run.bottom.Reshape({2, 4, 4});
  EXPECT_THROW(run.Forward(), caffe::Error);
  EXPECT_THROW(OneLayer<TypeParam>(Param(false), {6}, false), caffe::Error);
}

}  // namespace
