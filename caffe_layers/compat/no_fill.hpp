// Nets that are built for their shapes alone.

#ifndef CAFFE_LAYERS_COMPAT_NO_FILL_HPP_
#define CAFFE_LAYERS_COMPAT_NO_FILL_HPP_

namespace caffe {

/// While one lives, fillers fill nothing in this thread: a blob takes no memory before its values are asked for.
class NoFill {
 public:
  NoFill();
  ~NoFill();
  NoFill(const NoFill&) = delete;
  NoFill& operator=(const NoFill&) = delete;

  /// Whether one lives in this thread.
  static bool Active();
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_NO_FILL_HPP_
