#include "gpu_settings.hpp"

#include <glog/logging.h>

#include <atomic>
#include <cstdlib>
#include <string>

namespace caffe {
namespace gpu_settings {
namespace {

void CheckBytes(int64_t bytes) {
  LOG_IF(FATAL, bytes < 0) << "the workspace limit is " << bytes << ": it must be 0 or more bytes";
}

}  // namespace

#ifndef CPU_ONLY

namespace {

const size_t kMiB = size_t{1} << 20;
const size_t kMostMiB = size_t{1} << 24;  // 16 TiB: a larger number is a mistake

/// The whole number in an environment variable; `otherwise` if it is unset or empty.
size_t FromEnvironment(const char* name, size_t most, size_t otherwise) {
  const char* const set = std::getenv(name);
  const std::string text = set == nullptr ? "" : set;
  if (text.empty()) return otherwise;
  const bool digits = text.find_first_not_of("0123456789") == std::string::npos && text.size() < 19;
  LOG_IF(FATAL, !digits || std::stoull(text) > most)
      << "the environment variable " << name << " is \"" << text << "\": it must be "
      << (most == 1 ? "0 or 1" : "a whole number from 0 to " + std::to_string(most));
  return std::stoull(text);
}

struct Settings {
  std::atomic<bool> tf32{FromEnvironment("CAFFE_TF32", 1, 0) == 1};
  std::atomic<size_t> workspace_limit{FromEnvironment("CAFFE_CUDNN_WORKSPACE_MB", kMostMiB, 512) * kMiB};
  std::atomic<bool> deterministic{FromEnvironment("CAFFE_CUDNN_DETERMINISTIC", 1, 0) == 1};
  std::atomic<unsigned> generation{0};
};

Settings& Get() {
  static Settings settings;  // if this throws, the next call reads the environment again
  return settings;
}

template <typename T>
void Set(std::atomic<T>* setting, T value) {
  if (setting->exchange(value) != value) ++Get().generation;
}

}  // namespace

bool Tf32() { return Get().tf32; }
void SetTf32(bool on) { Set(&Get().tf32, on); }

size_t WorkspaceLimit() { return Get().workspace_limit; }
void SetWorkspaceLimit(int64_t bytes) {
  CheckBytes(bytes);
  Set(&Get().workspace_limit, static_cast<size_t>(bytes));
}

bool Deterministic() { return Get().deterministic; }
void SetDeterministic(bool on) { Set(&Get().deterministic, on); }

unsigned Generation() { return Get().generation; }

#else  // CPU_ONLY

namespace {

void Refuse(bool on, const char* what) {
  LOG_IF(FATAL, on) << what << " is a GPU setting, and Caffe was built without CUDA";
}

}  // namespace

bool Tf32() { return false; }
void SetTf32(bool on) { Refuse(on, "TF32"); }

size_t WorkspaceLimit() { return 0; }
void SetWorkspaceLimit(int64_t bytes) {
  CheckBytes(bytes);
  Refuse(bytes > 0, "the workspace limit");
}

bool Deterministic() { return false; }
void SetDeterministic(bool on) { Refuse(on, "the choice of deterministic algorithms"); }

unsigned Generation() { return 0; }

#endif  // CPU_ONLY

}  // namespace gpu_settings
}  // namespace caffe
