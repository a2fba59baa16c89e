#ifndef CAFFE_DATUM_VIEW_HPP_
#define CAFFE_DATUM_VIEW_HPP_

#include <cstddef>
#include <cstdint>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// A serialised Datum whose data stays where it is: what a data layer reads a hundred thousand times a second.
struct DatumView {
  int channels = 0, height = 0, width = 0, label = 0;
  bool encoded = false;
  const uint8_t* data = nullptr;  // this and float_data are valid until the thread's next view
  size_t data_size = 0;
  const float* float_data = nullptr;
  size_t float_data_size = 0;

  /// Throws caffe::Error where the bytes are no Datum.
  DatumView(const void* bytes, size_t size);
};

}  // namespace caffe

#endif  // CAFFE_DATUM_VIEW_HPP_
