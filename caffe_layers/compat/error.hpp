// The exception that replaces glog's abort.

#ifndef CAFFE_LAYERS_COMPAT_ERROR_HPP_
#define CAFFE_LAYERS_COMPAT_ERROR_HPP_

#include <stdexcept>
#include <string>

namespace caffe {

/// Thrown when a CHECK fails or LOG(FATAL) is reached. what() is the message; pycaffe converts it to caffe.CaffeError.
class __attribute__((visibility("default"))) Error : public std::runtime_error {
 public:
  /// @param message the text of the failed check
  /// @param file, line the source location of the check
  Error(const std::string& message, const char* file, int line)
      : std::runtime_error(message), file_(file), line_(line) {}

  const char* file() const { return file_; }
  int line() const { return line_; }

 private:
  const char* file_;
  int line_;
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_ERROR_HPP_
