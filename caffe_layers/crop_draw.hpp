#ifndef CAFFE_CROP_DRAW_HPP_
#define CAFFE_CROP_DRAW_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// The position of a crop in its image: first row and column, and whether the columns are reversed.
struct Crop {
  int top, left;
  bool mirror;
};

/// The crop at one position of one batch, a pure function of its arguments (counter-based generator Philox4x32-10).
/// @param iteration  number of the batch, from 0
/// @param position   position in the whole batch, over all solvers
/// @param height, width  of the image, at least the size of the crop
/// @param draw       UNIFORM: any offset; TEN_CROP: a corner or the centre, all with the same probability
/// @param mirror     whether half of the crops are mirrored
Crop DrawCrop(uint64_t seed, uint64_t iteration, uint32_t position, int height, int width, int crop_height,
              int crop_width, CropDataParameter::Draw draw, bool mirror);

/// The centre crop, not mirrored; offsets are rounded down.
Crop CentreCrop(int height, int width, int crop_height, int crop_width);

const int kTenCrops = 10;

/// One of ten crops: 0 to 3 are the corners (top left, top right, bottom left, bottom right), 4 the centre, 5 to 9
/// their mirrors.
Crop TenCrop(int number, int height, int width, int crop_height, int crop_width);

/// The order of the records in one epoch: a permutation of 0 ... records-1, a pure function of its arguments.
/// @param epoch  from 0
std::vector<uint32_t> EpochOrder(uint64_t seed, uint64_t epoch, uint32_t records);

}  // namespace caffe

#endif  // CAFFE_CROP_DRAW_HPP_
