#include "crop_draw.hpp"

#include <Random123/philox.h>

#include <numeric>
#include <utility>

namespace caffe {
namespace {

enum Purpose { CROP, ORDER };  // separates the random numbers of crops and orders

r123::Philox4x32::ctr_type Random(uint64_t seed, uint64_t number, uint32_t position, Purpose purpose) {
  const r123::Philox4x32::key_type key = {{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}};
  const r123::Philox4x32::ctr_type counter = {
      {static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), position, purpose}};
  return r123::Philox4x32()(counter, key);
}

/// A number from 0 to count-1; probabilities differ by at most count / 2^32.
int Below(uint32_t random, int count) {
  return static_cast<int>((static_cast<uint64_t>(random) * static_cast<uint64_t>(count)) >> 32);
}

}  // namespace

Crop DrawCrop(uint64_t seed, uint64_t iteration, uint32_t position, int height, int width, int crop_height,
              int crop_width, CropDataParameter::Draw draw, bool mirror) {
  const r123::Philox4x32::ctr_type random = Random(seed, iteration, position, CROP);
  const int most_down = height - crop_height, most_right = width - crop_width;
  Crop crop;
  if (draw == CropDataParameter::TEN_CROP) {
    crop = TenCrop(Below(random[0], 5), height, width, crop_height, crop_width);
  } else {
    crop.top = Below(random[0], most_down + 1);
    crop.left = Below(random[1], most_right + 1);
  }
  crop.mirror = mirror && random[2] % 2 == 1;
  return crop;
}

Crop CentreCrop(int height, int width, int crop_height, int crop_width) {
  return {(height - crop_height) / 2, (width - crop_width) / 2, false};
}

Crop TenCrop(int number, int height, int width, int crop_height, int crop_width) {
  const int place = number % 5;
  Crop crop = CentreCrop(height, width, crop_height, crop_width);
  if (place < 4) {
    crop.top = place < 2 ? 0 : height - crop_height;
    crop.left = place % 2 == 0 ? 0 : width - crop_width;
  }
  crop.mirror = number >= 5;
  return crop;
}

std::vector<uint32_t> EpochOrder(uint64_t seed, uint64_t epoch, uint32_t records) {
  std::vector<uint32_t> order(records);
  std::iota(order.begin(), order.end(), 0);
  for (uint32_t i = records; i > 1; --i) {  // Fisher-Yates shuffle with 64 random bits per step
    const r123::Philox4x32::ctr_type random = Random(seed, epoch, i, ORDER);
    const uint64_t bits = (static_cast<uint64_t>(random[0]) << 32) | random[1];
    std::swap(order[i - 1], order[static_cast<uint32_t>((static_cast<unsigned __int128>(bits) * i) >> 64)]);
  }
  return order;
}

}  // namespace caffe
