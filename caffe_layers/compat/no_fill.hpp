// Nets that are built only for their shapes.

#ifndef CAFFE_LAYERS_COMPAT_NO_FILL_HPP_
#define CAFFE_LAYERS_COMPAT_NO_FILL_HPP_

namespace caffe {

/// While an instance exists, fillers do nothing in this thread, and blobs allocate memory only when their values are
/// accessed.
class NoFill {
 public:
  NoFill();
  ~NoFill();
  NoFill(const NoFill&) = delete;
  NoFill& operator=(const NoFill&) = delete;

  /// Whether an instance exists in this thread.
  static bool Active();
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_NO_FILL_HPP_
