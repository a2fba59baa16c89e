// The program of the gtests:
//
//   caffe_layers_test [--gpu] [GoogleTest's arguments]
//
// With --gpu the layers compute on the GPU; without a GPU it prints the reason and exits with 77.

#include <glog/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <string>

#include "gpu_device.hpp"
#include "reference.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  FLAGS_minloglevel = google::GLOG_WARNING;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
  if (std::any_of(argv + 1, argv + argc, [](const char* argument) { return std::strcmp(argument, "--gpu") == 0; })) {
    const std::string why = caffe::WhyNoGpu();
    if (!why.empty()) {
      std::cerr << "no CUDA device: " << why << std::endl;
      return 77;
    }
    reference::mode = caffe::Caffe::GPU;
  }
  return RUN_ALL_TESTS();
}
