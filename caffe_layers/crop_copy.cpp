// Highway compiles this file once per instruction set, like rectifier.cpp.

#include "crop_copy.hpp"

#include <algorithm>
#include <type_traits>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "crop_copy.cpp"
#include <hwy/foreach_target.h>
// must follow foreach_target.h
#include <hwy/highway.h>

#ifndef CAFFE_CROP_COPY_ROWS_
#define CAFFE_CROP_COPY_ROWS_
namespace caffe {
namespace {

/// The first value of row h of the crop.
template <typename Source>
const Source* RowOf(const Picture<Source>& picture, const Crop& crop, int c, int h) {
  return picture.values + static_cast<int64_t>(c) * picture.channel_step +
         static_cast<int64_t>(crop.top + h) * picture.row_step + crop.left * picture.column_step;
}

}  // namespace
}  // namespace caffe
#endif  // CAFFE_CROP_COPY_ROWS_

HWY_BEFORE_NAMESPACE();
namespace caffe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// Convert one row of raw bytes, the common case.
void ConvertRow(const uint8_t* from, const float* mean_row, float mean, float scale, bool mirror, float* to,
                int count) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<int32_t, decltype(d)> integers;
  const hn::Rebind<uint8_t, decltype(d)> bytes;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto means = hn::Set(d, mean);
  const auto scales = hn::Set(d, scale);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = hn::ConvertTo(d, hn::PromoteTo(integers, hn::LoadU(bytes, from + i)));
    const auto out = hn::Mul(hn::Sub(value, mean_row == nullptr ? means : hn::LoadU(d, mean_row + i)), scales);
    if (mirror) {
      hn::StoreU(hn::Reverse(d, out), d, to + count - lanes - i);
    } else {
      hn::StoreU(out, d, to + i);
    }
  }
  for (; i < count; ++i) {
    to[mirror ? count - 1 - i : i] = (static_cast<float>(from[i]) - (mean_row == nullptr ? mean : mean_row[i])) * scale;
  }
}

/// Copy with non-temporal stores, which bypass the cache.
void StreamCopy(const float* from, float* to, int count) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int i = 0;
  for (; i < count && reinterpret_cast<uintptr_t>(to + i) % (lanes * sizeof(float)) != 0; ++i) to[i] = from[i];
  for (; i + lanes <= count; i += lanes) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  for (; i < count; ++i) to[i] = from[i];
}

/// CopyCrop from contiguous bytes to float. Rows are converted in blocks that fit the cache, then written out.
void CopyBytes(const Picture<uint8_t>& picture, const Crop& crop, int height, int width,
               const Normalisation<float>& normalisation, float* block, int rows, float* to) {
  for (int c = 0; c < picture.channels; ++c) {
    for (int begin = 0; begin < height; begin += rows) {
      const int end = begin + rows < height ? begin + rows : height;
      for (int h = begin; h < end; ++h) {
        ConvertRow(RowOf(picture, crop, c, h), normalisation.row(picture, crop, c, h), normalisation.value(c),
                   normalisation.scale, crop.mirror, block + (h - begin) * width, width);
      }
      StreamCopy(block, to, (end - begin) * width);
      to += (end - begin) * width;
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace caffe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <hwy/cache_control.h>

namespace caffe {
namespace {

HWY_EXPORT(CopyBytes);

const int kBlock = 4096;  // values per block

}  // namespace

template <typename Source, typename Dtype>
void CopyCrop(const Picture<Source>& picture, const Crop& crop, int height, int width,
              const Normalisation<Dtype>& normalisation, Dtype* to) {
  if constexpr (std::is_same<Source, uint8_t>::value && std::is_same<Dtype, float>::value) {
    if (picture.column_step == 1) {
      static thread_local std::vector<float> block;
      const int rows = std::max(1, kBlock / width);
      block.resize(static_cast<size_t>(rows) * width);
      HWY_DYNAMIC_DISPATCH(CopyBytes)(picture, crop, height, width, normalisation, block.data(), rows, to);
      hwy::FlushStream();
      return;
    }
  }
  for (int c = 0; c < picture.channels; ++c) {
    for (int h = 0; h < height; ++h, to += width) {
      const Source* from = RowOf(picture, crop, c, h);
      const Dtype* mean_row = normalisation.row(picture, crop, c, h);
      for (int w = 0; w < width; ++w) {
        const Dtype mean = mean_row == nullptr ? normalisation.value(c) : mean_row[w];
        to[crop.mirror ? width - 1 - w : w] =
            (static_cast<Dtype>(from[w * picture.column_step]) - mean) * normalisation.scale;
      }
    }
  }
}

template void CopyCrop(const Picture<uint8_t>&, const Crop&, int, int, const Normalisation<float>&, float*);
template void CopyCrop(const Picture<uint8_t>&, const Crop&, int, int, const Normalisation<double>&, double*);
template void CopyCrop(const Picture<float>&, const Crop&, int, int, const Normalisation<float>&, float*);
template void CopyCrop(const Picture<float>&, const Crop&, int, int, const Normalisation<double>&, double*);

}  // namespace caffe

#endif  // HWY_ONCE
