// The Convolution layer: its engines against float64 and each other, accumulation of gradients, and errors.

#include "caffe/layers/conv_layer.hpp"

#include <omp.h>

#include <cstring>
#include <random>
#include <vector>

#include "host_convolution.hpp"
#include "reference.hpp"

namespace {

using host::Sizes;

caffe::LayerParameter ParameterOf(const Sizes& s) {
  caffe::LayerParameter param;
  param.set_type("Convolution");
  auto* convolution = param.mutable_convolution_param();
  convolution->set_num_output(s.outputs);
  convolution->set_group(s.groups);
  const auto both = [](auto* values, int h, int w) {
    values->Add(h);
    values->Add(w);
  };
  both(convolution->mutable_kernel_size(), s.kernel_h, s.kernel_w);
  both(convolution->mutable_pad(), s.pad_h, s.pad_w);
  both(convolution->mutable_stride(), s.stride_h, s.stride_w);
  both(convolution->mutable_dilation(), s.dilation_h, s.dilation_w);
  convolution->mutable_weight_filler()->set_type("gaussian");
  convolution->mutable_bias_filler()->set_type("gaussian");
  return param;
}

/// Any sizes that have an output; Winograd supports every second one.
Sizes Draw(std::mt19937* generator) {
  const auto upto = [&](int least, int most) { return least + static_cast<int>((*generator)() % (most - least + 1)); };
  while (true) {
    Sizes s = {upto(1, 5), 0,          upto(1, 19), upto(1, 19), 0,          upto(1, 5), upto(1, 5),
               upto(0, 4), upto(0, 4), upto(1, 3),  upto(1, 3),  upto(1, 3), upto(1, 3), upto(1, 3)};
    s.channels = s.groups * upto(1, 4);
    s.outputs = s.groups * upto(1, 4);
    if (upto(0, 1)) {
      s.channels = upto(16, 40);
      s.outputs = upto(16, 40);
      s.kernel_h = s.kernel_w = 3 + 2 * upto(0, 1);
      s.pad_h = upto(0, s.kernel_h - 1);
      s.pad_w = upto(0, s.kernel_w - 1);
      s.stride_h = s.stride_w = s.dilation_h = s.dilation_w = s.groups = 1;
    }
    const bool fits = s.height + 2 * s.pad_h > s.dilation_h * (s.kernel_h - 1) &&
                      s.width + 2 * s.pad_w > s.dilation_w * (s.kernel_w - 1);
    if (fits) return s;
  }
}

TEST(ConvolutionLayer, IsTheDefinitionForRandomSizesAndAddsToGradients) {
  if (reference::mode == caffe::Caffe::GPU) GTEST_SKIP() << "cuda/test_cudnn_convolution.cpp does so on the GPU";
  std::mt19937 generator(11);
  const int threads = omp_get_max_threads();
  for (int draw = 0; draw < 100; ++draw) {
    const Sizes s = Draw(&generator);
    SCOPED_TRACE(testing::Message() << "draw " << draw << ": " << s.num << "x" << s.channels << "x" << s.height << "x"
                                    << s.width << " to " << s.outputs << ", kernel " << s.kernel_h << "x" << s.kernel_w
                                    << ", pad " << s.pad_h << "x" << s.pad_w << ", stride " << s.stride_h << "x"
                                    << s.stride_w << ", dilation " << s.dilation_h << "x" << s.dilation_w << ", groups "
                                    << s.groups);
    omp_set_num_threads(1 + draw % 4);
    reference::OneLayer<float> run(ParameterOf(s), {s.num, s.channels, s.height, s.width}, false, draw);
    ASSERT_EQ(s.y_count(), run.top->count());
    const auto& blobs = run.layer->blobs();
    const std::vector<double> x = reference::ToDouble(run.bottom.cpu_data(), run.bottom.count());
    const std::vector<double> w = reference::ToDouble(blobs[0]->cpu_data(), blobs[0]->count());
    const std::vector<double> bias = reference::ToDouble(blobs[1]->cpu_data(), s.outputs);
    std::vector<float> dy(s.y_count());
    reference::FillAwayFromZero(static_cast<int>(dy.size()), 3, dy.data());
    const int area = s.out_height() * s.out_width();
    host::Sums y = host::Forward(s, x, w);
    host::AddBias(s.outputs, area, bias, &y);
    const std::vector<double> dy64(dy.begin(), dy.end());
    const host::Sums dx = host::BackwardData(s, w, dy64);
    host::Sums dw = host::BackwardFilter(s, x, dy64), db = host::BackwardBias(s.outputs, area, dy64);
    for (host::Sums* sums : {&dw, &db}) {  // two passes, starting from ones
      for (double& value : sums->value) value = 1 + 2 * value;
    }
    for (const auto& blob : blobs) std::fill_n(blob->mutable_cpu_diff(), blob->count(), 1.f);
    std::fill_n(run.bottom.mutable_cpu_diff(), run.bottom.count(), 9.f);
    run.Forward();
    run.Backward(dy);
    run.Backward(dy);
    const auto made = [](const float* values, int count) { return std::vector<float>(values, values + count); };
    host::ExpectNear(y.value, made(run.top->cpu_data(), run.top->count()), "y");
    host::ExpectNear(dx.value, made(run.bottom.cpu_diff(), run.bottom.count()), "dx");
    host::ExpectNear(dw.value, made(blobs[0]->cpu_diff(), blobs[0]->count()), "dw");
    host::ExpectNear(db.value, made(blobs[1]->cpu_diff(), blobs[1]->count()), "db");

    run.layer->set_param_propagate_down(0, false);
    run.layer->set_param_propagate_down(1, false);
    for (const auto& blob : blobs) std::fill_n(blob->mutable_cpu_diff(), blob->count(), 5.f);
    run.Backward(dy, false);
    for (const auto& blob : blobs) {
      for (int i = 0; i < blob->count(); ++i) ASSERT_EQ(5.f, blob->cpu_diff()[i]) << "a gradient that is not wanted";
    }
  }
  omp_set_num_threads(threads);
}

TEST(ConvolutionLayer, InPlaceIsRefused) {
  const Sizes s = {2, 64, 9, 9, 64, 3, 3, 1, 1, 1, 1, 1, 1, 1};
  try {
    reference::OneLayer<float> run(ParameterOf(s), {2, 64, 9, 9}, true);
    FAIL() << "it was made";
  } catch (const caffe::Error& error) {
    EXPECT_NE(nullptr, strstr(error.what(), "give the top another name")) << error.what();
  }
}

/// Both engines, several bottoms, gradients that are not requested.
TEST(ConvolutionLayer, EnginesAgree) {
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
      host::ExpectNear(std::vector<double>(made[1][i].begin(), made[1][i].end()), made[0][i], "result");
    }
    if (winograd) EXPECT_NE(made[0][0], made[1][0]);  // two algorithms
  }
}

}  // namespace
