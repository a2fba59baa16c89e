// The exception that replaces glog's abort.

#ifndef CAFFE_LAYERS_COMPAT_ERROR_HPP_
#define CAFFE_LAYERS_COMPAT_ERROR_HPP_

#include <stdexcept>
#include <string>

namespace caffe {

/// A place in a prototxt; line and column count from 1, 0 is unknown.
struct __attribute__((visibility("default"))) TextPlace {
  std::string file;
  int line = 0, column = 0;
};

/// The name of the layer that this thread builds or runs, for the errors of that layer.
class __attribute__((visibility("default"))) AtLayer {
 public:
  explicit AtLayer(const std::string& name) : former_(Name()) { Name() = name; }
  ~AtLayer() { Name() = former_; }
  AtLayer(const AtLayer&) = delete;

  static std::string& Name() {
    static thread_local std::string name;
    return name;
  }

 private:
  const std::string former_;
};

/// Thrown when a CHECK fails or LOG(FATAL) is reached. what() is the message; pycaffe converts it to caffe.CaffeError.
class __attribute__((visibility("default"))) Error : public std::runtime_error {
 public:
  /// @param message the text of the failed check
  /// @param file, line the source location of the check
  /// @param place location of the mistake in a prototxt, if known
  Error(const std::string& message, const char* file, int line, const TextPlace& place = TextPlace())
      : std::runtime_error(message), file_(file), line_(line), place_(place), layer_(AtLayer::Name()) {}

  const char* file() const { return file_; }
  int line() const { return line_; }
  const TextPlace& place() const { return place_; }
  /// Name of the layer that was being built or run, "" if none was.
  const std::string& layer() const { return layer_; }

 private:
  const char* file_;
  int line_;
  TextPlace place_;
  std::string layer_;
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_ERROR_HPP_
