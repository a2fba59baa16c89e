// Runs upstream's tests in a temporary folder with links to the two folders that they read, so that they cannot write
// to Caffe's source.
//
//   upstream_tests [GoogleTest's arguments]             a build for the CPU
//   upstream_gpu_test [--cpu] [GoogleTest's arguments]  a build with CUDA: the tests that need a GPU, or with --cpu the
//   others; prints how many; without a GPU it prints the reason and exits with 77
//
// The environment variable CAFFE_SOURCE names the source if the program was built on another machine.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <string>

#include "caffe/common.hpp"
#include "gpu_device.hpp"

#ifndef CPU_ONLY
namespace caffe {
cudaDeviceProp CAFFE_TEST_CUDA_PROP;  // upstream's tests read the device's version from it
}
#endif

namespace {

/// Whether upstream's test computes on the GPU: tests over devices have it in their type, others in their name.
bool NeedsGpu(const testing::TestSuite& suite, const testing::TestInfo& test) {
  const std::string type = suite.type_param() == nullptr ? "" : suite.type_param();
  const std::string name = std::string(suite.name()) + "." + test.name();
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  return has(type, "GPUDevice") || has(name, "GPU") || (has(name, "CuDNN") && !has(type, "CPUDevice")) ||
         has(name, "Im2colKernelTest");
}

/// Select the tests that need a GPU, or the others.
/// @return the number of selected tests, before --gtest_filter
int Select(bool on_gpu) {
  std::string left_out;
  int left = 0;
  const testing::UnitTest& all = *testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      const testing::TestInfo& test = *suite.GetTestInfo(j);
      if (NeedsGpu(suite, test) == on_gpu) {
        ++left;
      } else {
        left_out += std::string(":") + suite.name() + "." + test.name();
      }
    }
  }
  std::string& filter = testing::GTEST_FLAG(filter);
  if (left_out.empty()) return left;
  filter += filter.find('-') == std::string::npos ? "-" + left_out.substr(1) : left_out;
  return left;
}

/// Upstream's tests of the mode leave GPU mode on, in which the following CPU tests could not allocate memory.
class StartOnCpu : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override { caffe::Caffe::set_mode(caffe::Caffe::CPU); }
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  FLAGS_minloglevel = google::GLOG_ERROR;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);
#ifdef CPU_ONLY
  Select(false);  // upstream's own build without a GPU excludes two by name
#else
  const bool on_gpu = std::none_of(argv + 1, argv + argc, [](char* text) { return std::strcmp(text, "--cpu") == 0; });
  const int tests = Select(on_gpu);
  std::cout << tests << " tests " << (on_gpu ? "of the GPU" : "of the CPU") << std::endl;
  if (on_gpu && !testing::GTEST_FLAG(list_tests)) {
    const std::string why = caffe::WhyNoGpu();
    if (!why.empty()) {
      std::cout << "SKIPPED, no CUDA device: " << why << std::endl;
      return 77;
    }
    cudaGetDeviceProperties(&caffe::CAFFE_TEST_CUDA_PROP, 0);
  }
  if (!on_gpu) testing::UnitTest::GetInstance()->listeners().Append(new StartOnCpu);
#endif

  namespace fs = std::filesystem;
  const char* const other = std::getenv("CAFFE_SOURCE");
  const std::string source = other == nullptr ? CAFFE_SOURCE : other;
  std::string folder = fs::temp_directory_path() / "caffe_upstream_test.XXXXXX";
  PCHECK(mkdtemp(folder.data()) != nullptr) << folder;
  fs::create_directory_symlink(source + "/examples", folder + "/examples");
  fs::create_directory_symlink(source + "/src", folder + "/src");
  const fs::path before = fs::current_path();
  fs::current_path(folder);
  setenv("TMPDIR", folder.c_str(), 1);  // upstream's MakeTempDir does not remove its folders

  const int result = RUN_ALL_TESTS();
  fs::current_path(before);
  fs::remove_all(folder);
  return result;
}
