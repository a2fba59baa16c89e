// Runs upstream's tests where they cannot write to Caffe's source: in a folder of their own, removed at the end, that
// holds links to the two folders they read.

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

int main(int argc, char** argv) {
  testing::GTEST_FLAG(filter) = "-*GPU*";  // as upstream's own build without a GPU does: these two need one
  testing::InitGoogleTest(&argc, argv);
  FLAGS_minloglevel = google::GLOG_ERROR;
  FLAGS_logtostderr = true;
  google::InitGoogleLogging(argv[0]);

  namespace fs = std::filesystem;
  std::string folder = fs::temp_directory_path() / "caffe_upstream_test.XXXXXX";
  PCHECK(mkdtemp(folder.data()) != nullptr) << folder;
  fs::create_directory_symlink(CAFFE_SOURCE "/examples", folder + "/examples");
  fs::create_directory_symlink(CAFFE_SOURCE "/src", folder + "/src");
  const fs::path before = fs::current_path();
  fs::current_path(folder);
  setenv("TMPDIR", folder.c_str(), 1);  // upstream's MakeTempDir leaves what it makes

  const int result = RUN_ALL_TESTS();
  fs::current_path(before);
  fs::remove_all(folder);
  return result;
}
