// The changes of GpuEdits.cmake: errors with explanations, and the checks of the CPU layers on the GPU.

#include <algorithm>
#include <cmath>
#include <limits>

#include "on_gpu.hpp"
#include "reference.hpp"
#include "team_barrier.hpp"

namespace {

using caffe::Blob;

const float kNan = std::numeric_limits<float>::quiet_NaN();

/// The message of the exception of `run`; empty if there is none.
template <typename Run>
std::string Thrown(const Run& run) {
  try {
    run();
  } catch (const caffe::Error& error) {
    return error.what();
  }
  return "";
}

/// A layer of scores (2 x 3 x 2) and labels (2 x 1 x 2).
struct Labelled {
  Blob<float> scores{2, 3, 2, 1}, labels{2, 1, 2, 1}, top, second;
  std::vector<Blob<float>*> bottoms{&scores, &labels}, tops{&top};
  boost::shared_ptr<caffe::Layer<float>> layer;

  explicit Labelled(const std::string& type, int ignored = -1, bool two_tops = false) {
    caffe::LayerParameter param;
    param.set_type(type);
    if (ignored >= 0) {
      param.mutable_loss_param()->set_ignore_label(ignored);
      param.mutable_accuracy_param()->set_ignore_label(ignored);
    }
    if (two_tops) tops.push_back(&second);
    for (int i = 0; i < scores.count(); ++i) scores.mutable_cpu_data()[i] = static_cast<float>(i % 5);
    for (int i = 0; i < labels.count(); ++i) labels.mutable_cpu_data()[i] = static_cast<float>(i % 3);
    layer = caffe::LayerRegistry<float>::CreateLayer(param);
    layer->SetUp(bottoms, tops);
  }

  void Label(int i, float value) { labels.mutable_cpu_data()[i] = value; }
  float Forward() {
    layer->Forward(bottoms, tops);
    return top.cpu_data()[0];
  }
};

class GpuLabelsTest : public on_gpu::Test {};

TEST_F(GpuLabelsTest, ALabelBeyondTheClassesIsAnError) {
  for (const char* type : {"SoftmaxWithLoss", "Accuracy"}) {
    for (const float wrong : {-1.f, 3.f, 1e6f, kNan}) {
      Labelled run(type);
      EXPECT_TRUE(std::isfinite(run.Forward()));
      run.Label(3, wrong);
      EXPECT_NE(Thrown([&] { run.Forward(); }).find("it must be 0 to 2"), std::string::npos) << type << " " << wrong;
    }
  }
  Labelled by_class("Accuracy", -1, true);
  by_class.Forward();
  by_class.Label(0, 7);
  EXPECT_NE(Thrown([&] { by_class.Forward(); }).find("a label is 7"), std::string::npos);
}

TEST_F(GpuLabelsTest, AnIgnoredLabelMayBeBeyondThem) {
  for (const char* type : {"SoftmaxWithLoss", "Accuracy"}) {
    Labelled run(type, 255);
    run.Label(1, 255);
    EXPECT_TRUE(std::isfinite(run.Forward())) << type;
  }
}

TEST_F(GpuLabelsTest, TheLossOfANetThatDivergedIsNan) {
  Labelled run("SoftmaxWithLoss");
  run.scores.mutable_cpu_data()[0] = kNan;
  EXPECT_TRUE(std::isnan(run.Forward()));
}

TEST_F(GpuLabelsTest, ALabelThatChangedSinceTheForwardPassWritesNothingOutside) {
  Labelled run("SoftmaxWithLoss");
  run.Forward();
  run.top.mutable_cpu_diff()[0] = 1;
  run.Label(0, 1e6f);
  run.layer->Backward(run.tops, {true, false}, run.bottoms);
  for (int i = 0; i < run.scores.count(); ++i) EXPECT_TRUE(std::isfinite(run.scores.cpu_diff()[i]));
}

TEST_F(GpuLabelsTest, AnIndexBeyondTheTableEmbedsToNan) {
  caffe::LayerParameter param;
  param.set_type("Embed");
  param.mutable_embed_param()->set_num_output(2);
  param.mutable_embed_param()->set_input_dim(3);
  param.mutable_embed_param()->set_bias_term(false);
  Blob<float> bottom(std::vector<int>(1, 2)), top;
  bottom.mutable_cpu_data()[0] = 1;
  bottom.mutable_cpu_data()[1] = 1e6f;
  std::vector<Blob<float>*> bottoms{&bottom}, tops{&top};
  const auto layer = caffe::LayerRegistry<float>::CreateLayer(param);
  layer->SetUp(bottoms, tops);
  layer->Forward(bottoms, tops);
  EXPECT_EQ(0, top.cpu_data()[0]);
  EXPECT_TRUE(std::isnan(top.cpu_data()[2]));
  caffe::caffe_set(4, 1.f, top.mutable_cpu_diff());
  layer->Backward(tops, {false}, bottoms);
  EXPECT_EQ(1, layer->blobs()[0]->cpu_diff()[2]);
}

// 600 indices into a table of 3: the order of the 200 additions to each value affects the last bits.
TEST_F(GpuLabelsTest, EmbedsGradientIsTheSumAndOfTheSameBitsWhereThatIsAskedFor) {
  caffe::LayerParameter param;
  param.set_type("Embed");
  param.mutable_embed_param()->set_num_output(70);
  param.mutable_embed_param()->set_input_dim(3);
  Blob<float> bottom(std::vector<int>(1, 600)), top;
  for (int i = 0; i < 600; ++i) bottom.mutable_cpu_data()[i] = static_cast<float>(i % 3);
  std::vector<Blob<float>*> bottoms{&bottom}, tops{&top};
  const auto layer = caffe::LayerRegistry<float>::CreateLayer(param);
  layer->SetUp(bottoms, tops);
  Blob<float>& weights = *layer->blobs()[0];
  std::vector<double> expected(weights.count(), 1);
  std::vector<float> first;
  for (const bool deterministic : {true, false}) {
    caffe::gpu_settings::SetDeterministic(deterministic);
    for (int run = 0; run < 5; ++run) {
      reference::FillAwayFromZero(top.count(), 1, top.mutable_cpu_diff());
      caffe::caffe_set(weights.count(), 1.f, weights.mutable_cpu_diff());
      layer->Forward(bottoms, tops);
      layer->Backward(tops, {false}, bottoms);
      if (first.empty()) {
        first.assign(weights.cpu_diff(), weights.cpu_diff() + weights.count());
        for (int i = 0; i < top.count(); ++i) expected[i / 70 % 3 * 70 + i % 70] += top.cpu_diff()[i];
      }
      reference::ExpectClose(expected, weights.cpu_diff(), "the gradient", 200 * 200);
      if (deterministic) {
        EXPECT_TRUE(std::equal(first.begin(), first.end(), weights.cpu_diff())) << "run " << run;
      }
    }
  }
}

class GpuPoolingTest : public on_gpu::Test {};

TEST_F(GpuPoolingTest, MaxPassesNanOn) {
  caffe::LayerParameter param;
  param.set_type("Pooling");
  param.mutable_pooling_param()->set_kernel_size(2);
  reference::mode = caffe::Caffe::GPU;
  reference::OneLayer<float> run(param, {1, 1, 2, 2}, false);
  reference::mode = caffe::Caffe::CPU;
  run.bottom.mutable_cpu_data()[2] = kNan;
  run.Forward();
  EXPECT_TRUE(std::isnan(run.top->cpu_data()[0]));
}

// The last windows extend past the image and average only its values, with either engine.
TEST_F(GpuPoolingTest, AveragesAtTheBordersAreThoseOfTheCpu) {
  caffe::LayerParameter param;
  param.set_type("Pooling");
  param.mutable_pooling_param()->set_pool(caffe::PoolingParameter::AVE);
  param.mutable_pooling_param()->set_kernel_size(3);
  param.mutable_pooling_param()->set_stride(2);
  for (const auto engine : {caffe::PoolingParameter::DEFAULT, caffe::PoolingParameter::CUDNN}) {
#ifndef USE_CUDNN
    if (engine == caffe::PoolingParameter::CUDNN) continue;
#endif
    param.mutable_pooling_param()->set_engine(engine);
    reference::OneLayer<float> run(param, {2, 3, 6, 8}, false);
    run.Forward();
    const std::vector<double> on_cpu = reference::ToDouble(run.top->cpu_data(), run.top->count());
    caffe::Caffe::set_mode(caffe::Caffe::GPU);
    run.Forward();
    reference::ExpectClose(on_cpu, run.top->cpu_data(), "average", 9);
  }
}

class GpuHandlesTest : public on_gpu::Test {};

TEST_F(GpuHandlesTest, ASeedOutlivesTheChoiceOfTheDeviceAndGivesTheSameNumbers) {
  const auto draw = [] {
    Blob<float> blob(std::vector<int>(1, 100));
    caffe::caffe_gpu_rng_uniform<float>(100, 0, 1, blob.mutable_gpu_data());
    return reference::ToDouble(blob.cpu_data(), 100);
  };
  caffe::Caffe::set_random_seed(1);
  caffe::Caffe::SetDevice(0);
  const std::vector<double> first = draw();
  EXPECT_NE(first, draw());
  caffe::Caffe::set_random_seed(1);
  EXPECT_EQ(first, draw());
}

TEST_F(GpuHandlesTest, MemoryThatIsNotThereIsAnErrorAndNoMore) {
  Blob<double> blob(std::vector<int>(1, 1000));
  {
    caffe::SyncedMemory all(size_t{1} << 50);
    const std::string text = Thrown([&] { all.mutable_gpu_data(); });
    EXPECT_NE(text.find("out of memory"), std::string::npos) << text;
    EXPECT_NE(text.find("are free"), std::string::npos) << text;
  }
  caffe::caffe_gpu_set(1000, 1., blob.mutable_gpu_data());  // the next check must not find the old error
  EXPECT_EQ(1, blob.cpu_data()[999]);
}

// --- What needs no GPU -----------------------------------------------------------------------------------------------

TEST(WithoutGpu, WhatIsMissingIsSaid) {
  const std::string why = caffe::WhyNoGpu();
  if (why.empty()) GTEST_SKIP() << "there is a GPU";
  EXPECT_EQ(why, Thrown([] { caffe::CheckGpu(); }));
  EXPECT_EQ(why, Thrown([] { caffe::Caffe::SetDevice(0); }));
  EXPECT_EQ(why, Thrown([] { caffe::Caffe::cublas_handle(); }));
  EXPECT_EQ(why, Thrown([] { caffe::Caffe::curand_generator(); }));
  caffe::Caffe::set_random_seed(1);
}

TEST(WithoutGpu, ANumberThatNoGpuHasIsRefused) {
  EXPECT_NE("", Thrown([] { caffe::UseGpu(-1); }));
  EXPECT_NE("", Thrown([] { caffe::UseGpu(1 << 20); }));
}

TEST(TeamBarrierTest, LetsAllGoWhenAllHaveComeAndAgain) {
  caffe::TeamBarrier barrier(3);
  std::vector<int> rounds(3, 0);
  boost::thread_group threads;
  for (int i = 0; i < 3; ++i) {
    threads.create_thread([&, i] {
      for (int round = 0; round < 200; ++round) {
        barrier.wait();
        ++rounds[i];
        barrier.wait();
        for (const int other : rounds) EXPECT_EQ(round + 1, other);
      }
    });
  }
  threads.join_all();
  EXPECT_EQ(std::vector<int>(3, 200), rounds);
}

TEST(TeamBarrierTest, OneThatFailsLetsNoneWait) {
  caffe::TeamBarrier barrier(3);
  std::vector<std::string> thrown(2);
  boost::thread_group threads;
  for (int i = 0; i < 2; ++i) {
    threads.create_thread([&, i] {
      thrown[i] = Thrown([&] {
        for (;;) barrier.wait();
      });
    });
  }
  barrier.wait();
  barrier.Fail("GPU 1: out of memory");
  barrier.Fail("a later one");
  threads.join_all();
  EXPECT_EQ(std::vector<std::string>(2, "GPU 1: out of memory"), thrown);
  EXPECT_EQ("GPU 1: out of memory", Thrown([&] { barrier.wait(); }));
}

TEST(TeamBarrierTest, OneThatIsInterruptedLeaves) {
  caffe::TeamBarrier barrier(2);
  boost::thread thread([&] { barrier.wait(); });
  thread.interrupt();
  thread.join();
}

}  // namespace
