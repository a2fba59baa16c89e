// A fixture for tests of layers on the GPU: it skips without a GPU and restores the settings.

#ifndef TESTS_CPP_CUDA_ON_GPU_HPP_
#define TESTS_CPP_CUDA_ON_GPU_HPP_

#include <gtest/gtest.h>

#include <string>

#include "caffe/caffe.hpp"
#include "gpu_device.hpp"
#include "gpu_settings.hpp"

namespace on_gpu {

/// GPU mode with the initial settings of a process. Skips without a GPU.
class Test : public testing::Test {
 protected:
  void SetUp() override {
    const std::string why = caffe::WhyNoGpu();
    if (!why.empty()) GTEST_SKIP() << "no CUDA device: " << why;
    caffe::Caffe::set_mode(caffe::Caffe::GPU);
  }

  void TearDown() override {
    caffe::Caffe::set_mode(caffe::Caffe::CPU);
    caffe::gpu_settings::SetTf32(false);
    caffe::gpu_settings::SetWorkspaceLimit(int64_t{512} << 20);
    caffe::gpu_settings::SetDeterministic(false);
  }
};

}  // namespace on_gpu

#endif  // TESTS_CPP_CUDA_ON_GPU_HPP_
