#ifndef CAFFE_CROP_DRAW_HPP_
#define CAFFE_CROP_DRAW_HPP_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// A crop of a picture: its first row and column, and whether its columns are then reversed.
struct Crop {
  int top, left;
  bool mirror;
};

/// The crop of one position of one batch, a function of its arguments alone (a counter-based generator, Philox4x32-10).
/// @param iteration  the batch's number, from 0
/// @param position   the place in the whole batch, over all solvers
/// @param height, width  of the picture, no smaller than the crop
/// @param draw       UNIFORM: any offset; TEN_CROP: a corner or the centre. Each is as likely as the others.
/// @param mirror     whether half of the crops are mirrored
Crop DrawCrop(uint64_t seed, uint64_t iteration, uint32_t position, int height, int width, int crop_height,
              int crop_width, CropDataParameter::Draw draw, bool mirror);

/// The crop in the middle, not mirrored; offsets are rounded down.
Crop CentreCrop(int height, int width, int crop_height, int crop_width);

const int kTenCrops = 10;

/// One of ten crops: 0 to 3 the corners (top left, top right, bottom left, bottom right), 4 the centre, 5 to 9 their
/// mirrors.
Crop TenCrop(int number, int height, int width, int crop_height, int crop_width);

/// The order of the records in one epoch: a permutation of 0 ... records-1, a function of its arguments alone.
/// @param epoch  from 0
std::vector<uint32_t> EpochOrder(uint64_t seed, uint64_t epoch, uint32_t records);

}  // namespace caffe

#endif  // CAFFE_CROP_DRAW_HPP_
