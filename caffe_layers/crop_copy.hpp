#ifndef CAFFE_CROP_COPY_HPP_
#define CAFFE_CROP_COPY_HPP_

#include <cstdint>

#include "crop_draw.hpp"

namespace caffe {

/// The memory layout and size of a picture.
template <typename Source>
struct Picture {
  const Source* values;
  int channels, height, width;
  int channel_step, row_step, column_step;  // distance between two values, in values
};

/// The transform of each value: (value - mean) * scale.
template <typename Dtype>
struct Normalisation {
  const Dtype* mean_image;   // of the picture's shape, or null
  const Dtype* mean_values;  // one per channel, or null
  Dtype scale;

  Dtype value(int channel) const { return mean_values == nullptr ? Dtype(0) : mean_values[channel]; }
  /// The mean image's values under a row of the crop, or null.
  template <typename Source>
  const Dtype* row(const Picture<Source>& picture, const Crop& crop, int channel, int row) const {
    if (mean_image == nullptr) return nullptr;
    return mean_image + (static_cast<int64_t>(channel) * picture.height + crop.top + row) * picture.width + crop.left;
  }
};

/// Write a crop, normalised, as (channels x height x width) values to `to`. Bytes converted to float bypass the cache,
/// because a prefetched batch is read much later. Source is uint8_t or float, Dtype float or double. All instruction
/// sets give the same bits.
template <typename Source, typename Dtype>
void CopyCrop(const Picture<Source>& picture, const Crop& crop, int height, int width,
              const Normalisation<Dtype>& normalisation, Dtype* to);

}  // namespace caffe

#endif  // CAFFE_CROP_COPY_HPP_
