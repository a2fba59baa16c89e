// Changes of upstream's sources by CMakeLists.txt.

#include <cmath>
#include <limits>
#include <vector>

#include "reference.hpp"

namespace {

using reference::OneLayer;

caffe::LayerParameter MaxPool() {
  caffe::LayerParameter param;
  param.set_type("Pooling");
  param.mutable_pooling_param()->set_kernel_size(2);
  param.mutable_pooling_param()->set_stride(2);
  return param;
}

// A diverged net: the gradient must not be written outside the blob.
TEST(UpstreamEdits, MaxPoolPassesNanOnAndKeepsItsGradientInside) {
  OneLayer<float> run(MaxPool(), {1, 1, 2, 4}, false);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float values[] = {1, nan, nan, nan, 3, 2, nan, nan};
  std::copy(values, values + 8, run.bottom.mutable_cpu_data());
  run.Forward();
  EXPECT_TRUE(std::isnan(run.top->cpu_data()[0]));
  EXPECT_TRUE(std::isnan(run.top->cpu_data()[1]));
  run.Backward({5, 7});
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += run.bottom.cpu_diff()[i];
  EXPECT_EQ(12, sum);
  EXPECT_EQ(5, run.bottom.cpu_diff()[1]);
}

TEST(UpstreamEdits, MaxPoolOfNothingButInfinitiesKeepsItsGradientInside) {
  OneLayer<float> run(MaxPool(), {1, 1, 2, 2}, false);
  std::fill_n(run.bottom.mutable_cpu_data(), 4, -std::numeric_limits<float>::infinity());
  run.Forward();
  run.Backward({1});
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(run.bottom.cpu_diff()[i] == 0 || run.bottom.cpu_diff()[i] == 1);
}

// If windows start outside the plane, so do winners that no forward pass has set.
TEST(UpstreamEdits, MaxPoolsBackwardBeforeForwardStaysInside) {
  caffe::LayerParameter param = MaxPool();
  param.mutable_pooling_param()->set_kernel_size(3);
  param.mutable_pooling_param()->set_pad(2);
  OneLayer<float> run(param, {1, 1, 6, 6}, false);
  const size_t outputs = run.top->count();
  std::vector<float> memory(3 * 36, 7);
  run.bottom.diff()->set_cpu_data(memory.data() + 36);
  run.Backward(std::vector<float>(outputs, 5));
  for (size_t i = 0; i < 36; ++i) {
    EXPECT_EQ(7, memory[i]) << i;
    EXPECT_EQ(7, memory[72 + i]) << i;
  }
}

TEST(UpstreamEdits, MaxPoolThatRoundsDownGivesTheRestNoGradient) {
  caffe::LayerParameter param = MaxPool();
  param.mutable_pooling_param()->set_round_mode(caffe::PoolingParameter_RoundMode_FLOOR);
  OneLayer<float> run(param, {1, 1, 3, 3}, false);
  ASSERT_EQ(1, run.top->count());
  std::fill_n(run.bottom.mutable_cpu_diff(), 9, 9.f);
  run.Forward();
  run.Backward({5});
  float sum = 0;
  for (int i = 0; i < 9; ++i) sum += run.bottom.cpu_diff()[i];
  EXPECT_EQ(5, sum);
}

TEST(UpstreamEdits, APrototxtThatDoesNotParseSaysWhere) {
  const std::string path = testing::TempDir() + "upstream_edits.prototxt";
  std::ofstream(path) << "name: \"x\"\nlayer {\n  typ: 3\n}\n";
  try {
    caffe::Net<float> net(path, caffe::TEST);
    FAIL() << "accepted";
  } catch (const caffe::Error& error) {
    EXPECT_NE(std::string(error.what()).find(path + ":3:"), std::string::npos) << error.what();
  }
}

}  // namespace
