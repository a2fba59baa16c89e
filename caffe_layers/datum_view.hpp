#ifndef CAFFE_DATUM_VIEW_HPP_
#define CAFFE_DATUM_VIEW_HPP_

#include <cstddef>
#include <cstdint>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// A serialised Datum, read without copying its data: data layers read 100,000 per second.
struct DatumView {
  int channels = 0, height = 0, width = 0, label = 0;
  bool encoded = false;
  const uint8_t* data = nullptr;  // like float_data, valid until the thread's next view
  size_t data_size = 0;
  const float* float_data = nullptr;
  size_t float_data_size = 0;

  /// Throws caffe::Error if the bytes are not a Datum.
  DatumView(const void* bytes, size_t size);
};

}  // namespace caffe

#endif  // CAFFE_DATUM_VIEW_HPP_
