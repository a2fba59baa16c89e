#include "prefetch_error.hpp"

#include <map>
#include <mutex>

namespace caffe {
namespace {

std::mutex mutex;

std::map<const void*, std::string>& Messages() {
  static std::map<const void*, std::string> messages;
  return messages;
}

}  // namespace

void KeepPrefetchError(const void* layer, const std::string& message) {
  std::lock_guard<std::mutex> lock(mutex);
  Messages()[layer] = message;
}

std::string PrefetchError(const void* layer) {
  std::lock_guard<std::mutex> lock(mutex);
  return Messages()[layer];
}

}  // namespace caffe
