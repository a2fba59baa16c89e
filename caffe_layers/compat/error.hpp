// The exception that stands in for glog's abort.

#ifndef CAFFE_LAYERS_COMPAT_ERROR_HPP_
#define CAFFE_LAYERS_COMPAT_ERROR_HPP_

#include <stdexcept>
#include <string>

namespace caffe {

/// Thrown where a CHECK fails or LOG(FATAL) is reached. what() is the check's own message, on one line where the
/// check wrote one; pycaffe turns it into caffe.CaffeError.
class __attribute__((visibility("default"))) Error : public std::runtime_error {
 public:
  /// @param message the text of the failed check
  /// @param file, line where the check stands in the source
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
