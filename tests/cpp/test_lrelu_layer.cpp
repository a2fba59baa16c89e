#include "caffe/layers/lrelu_layer.hpp"

#include "caffe/test/test_gradient_check_util.hpp"
#include "reference.hpp"

namespace {

using reference::OneLayer;

const std::vector<std::vector<int>> kShapes = {{2, 3, 4, 5}, {7, 11}, {1, 1}, {13}, {4, 64, 56, 56}, {70001}};

// Too many values to vary one by one.
bool IsLarge(const std::vector<int>& shape) { return shape.back() == 56 || shape[0] == 70001; }

caffe::LayerParameter Param(double slope) {
  caffe::LayerParameter param;
  param.set_type("LReLU");
  param.mutable_relu_param()->set_negative_slope(slope);
  return param;
}

template <typename Dtype>
class LReLULayerTest : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(LReLULayerTest, Dtypes);

TYPED_TEST(LReLULayerTest, ValuesAndGradientsAreThoseOfTheFormula) {
  for (const auto& shape : kShapes) {
    for (const float slope : {0.01f, 0.f, 0.3f, 1.f, 1.5f, -0.2f}) {
      for (const bool in_place : {false, true}) {
        if (in_place && slope < 0) continue;  // refused, see below
        OneLayer<TypeParam> run(Param(slope), shape, in_place);
        const int count = run.bottom.count();
        std::vector<TypeParam> dy(count);
        reference::FillAwayFromZero(count, 3, dy.data());
        const auto x = reference::ToDouble(run.bottom.cpu_data(), count);
        std::vector<double> y(count), dx(count);
        for (int i = 0; i < count; ++i) {
          y[i] = std::max(0., x[i]) + slope * std::min(0., x[i]);
          dx[i] = dy[i] * (x[i] > 0 ? 1. : slope);
        }
        run.Forward();
        reference::ExpectClose(y, run.top->cpu_data(), "y");
        run.Backward(dy);
        reference::ExpectClose(dx, run.bottom.cpu_diff(), "dx");
      }
    }
  }
}

TYPED_TEST(LReLULayerTest, GradientsMatchFiniteDifferences) {
  for (const auto& shape : kShapes) {
    if (IsLarge(shape)) continue;
    for (const float slope : {0.01f, 0.3f, 1.5f}) {
      for (const bool in_place : {false, true}) {
        SCOPED_TRACE(testing::Message() << testing::PrintToString(shape) << " slope " << slope
                                        << (in_place ? " in place" : ""));
        OneLayer<TypeParam> run(Param(slope), shape, in_place);
        reference::ExpectGradientsOfDifferences(&run);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TYPED_TEST(LReLULayerTest, GradientsPassUpstreamsChecker) {
  for (const auto& shape : kShapes) {
    if (IsLarge(shape)) continue;
    OneLayer<TypeParam> run(Param(0.01), shape, false);
    auto layer = caffe::LayerRegistry<TypeParam>::CreateLayer(Param(0.01));
    caffe::GradientChecker<TypeParam> checker(1e-2, 1e-3, 1701, 0., 0.01);
    checker.CheckGradientExhaustive(layer.get(), run.bottoms, run.tops);
  }
}

TYPED_TEST(LReLULayerTest, SlopeIsOneHundredthUnlessSet) {
  caffe::LayerParameter param;
  param.set_type("LReLU");
  OneLayer<TypeParam> run(param, {1, 1}, false);
  run.bottom.mutable_cpu_data()[0] = -100;
  run.Forward();
  EXPECT_NEAR(-1, run.top->cpu_data()[0], 1e-6);
}

TYPED_TEST(LReLULayerTest, AnEmptyBatchGivesAnEmptyTop) {
  OneLayer<TypeParam> run(Param(0.01), {0, 3}, false);
  run.Forward();
  run.Backward({});
  EXPECT_EQ((std::vector<int>{0, 3}), run.top->shape());
}

TYPED_TEST(LReLULayerTest, ANegativeSlopeInPlaceIsRefusedWithTheReason) {
  try {
    OneLayer<TypeParam> run(Param(-0.5), {2, 3}, true);
    FAIL() << "accepted";
  } catch (const caffe::Error& error) {
    EXPECT_NE(std::string(error.what()).find("-0.5"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("in place"), std::string::npos) << error.what();
  }
}

TYPED_TEST(LReLULayerTest, ASlopeThatIsNotFiniteIsRefused) {
  EXPECT_THROW(OneLayer<TypeParam>(Param(INFINITY), {2, 3}, false), caffe::Error);
  EXPECT_THROW(OneLayer<TypeParam>(Param(NAN), {2, 3}, false), caffe::Error);
}

}  // namespace
