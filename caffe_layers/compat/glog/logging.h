// Shadows the real <glog/logging.h> on the include path and turns fatal messages into exceptions, so that a failed
// CHECK raises CaffeError instead of ending a notebook's kernel.
//
// Supports COMPACT_GOOGLE_LOG_FATAL, CHECK_OP and CHECK_NOTNULL of glog 0.4 to 0.6.

#ifndef CAFFE_LAYERS_COMPAT_GLOG_LOGGING_H_
#define CAFFE_LAYERS_COMPAT_GLOG_LOGGING_H_

#include_next <glog/logging.h>

#include <sstream>
#include <string>
#include <utility>

#include "error.hpp"

namespace caffe {

/// Collects a fatal message and throws it as caffe::Error at the end of the statement.
class FatalMessage {
 public:
  FatalMessage(const char* file, int line) : file_(file), line_(line) {}

  /// For CHECK_EQ and similar, whose operands glog has already formatted.
  FatalMessage(const char* file, int line, const google::CheckOpString& result) : file_(file), line_(line) {
    stream_ << "Check failed: " << *result.str_ << " ";
    delete result.str_;
  }

  [[noreturn]] ~FatalMessage() noexcept(false) {
    std::string text = stream_.str();
    const size_t end = text.find_last_not_of(" \n");
    text.resize(end == std::string::npos ? 0 : end + 1);
    throw Error(text, file_, line_);
  }

  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
  const char* file_;
  int line_;
};

template <typename T>
T&& CheckNotNull(const char* file, int line, const char* expression, T&& value) {
  if (value == nullptr) {
    FatalMessage(file, line).stream() << "Check failed: " << expression << " must not be null";
  }
  return std::forward<T>(value);
}

}  // namespace caffe

#undef COMPACT_GOOGLE_LOG_FATAL
#define COMPACT_GOOGLE_LOG_FATAL ::caffe::FatalMessage(__FILE__, __LINE__)

#undef CHECK_OP
#define CHECK_OP(name, op, val1, val2) CHECK_OP_LOG(name, op, val1, val2, ::caffe::FatalMessage)

#undef CHECK_NOTNULL
#define CHECK_NOTNULL(val) ::caffe::CheckNotNull(__FILE__, __LINE__, #val, (val))

#endif  // CAFFE_LAYERS_COMPAT_GLOG_LOGGING_H_
