// The gtests' program:
//
//   caffe_layers_test [--gpu] [GoogleTest's arguments]
//
// With --gpu the layers under test compute on the GPU; every test is skipped, with the reason, where there is none.

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "reference.hpp"

namespace {

class GpuEnvironment : public testing::Environment {
 public:
  void SetUp() override {
#ifdef CPU_ONLY
    GTEST_SKIP() << "this build has no GPU support: configure with -DCPU_ONLY=OFF";
#else
    int devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&devices);
    if (error != cudaSuccess) GTEST_SKIP() << "no CUDA device: " << cudaGetErrorString(error);
    if (devices == 0) GTEST_SKIP() << "no CUDA device";
#endif
  }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  FLAGS_minloglevel = google::GLOG_WARNING;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
  if (std::any_of(argv + 1, argv + argc, [](const char* argument) { return std::strcmp(argument, "--gpu") == 0; })) {
    reference::mode = caffe::Caffe::GPU;
    testing::AddGlobalTestEnvironment(new GpuEnvironment);
  }
  return RUN_ALL_TESTS();
}
