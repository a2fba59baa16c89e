#ifndef CAFFE_DATUM_VIEW_HPP_
#define CAFFE_DATUM_VIEW_HPP_

#include <cstddef>
#include <cstdint>
#include <opencv2/core.hpp>

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

/// The image of an encoded Datum, with the channels requested by transform_param's force_color or force_gray, or its
/// own. Throws caffe::Error if it does not decode to 8 bits per value.
cv::Mat DecodePicture(const DatumView& datum, const TransformationParameter& transform);

/// Throws caffe::Error unless `count` is the number of values in a Datum's shape.
void CheckCount(const DatumView& datum, const char* what, size_t count);

/// "3 x 64 x 64"
std::string ShapeString(int channels, int height, int width);

}  // namespace caffe

#endif  // CAFFE_DATUM_VIEW_HPP_
