// The kernels of winograd.cpp, compiled for each instruction set.
//
// A tile is 6x6 values of the input and m x m of the output, with m = 7 - kernel. Vectors contain `lanes` channels (a
// group). Matrices of transformed tiles are
//   36 positions x tiles x channels (rows of channels are `row` floats apart, positions `position` floats).
#ifndef CAFFE_WINOGRAD_KERNELS_HPP_
#define CAFFE_WINOGRAD_KERNELS_HPP_

#include <cstddef>

namespace caffe {
namespace winograd {

const size_t kTile = 6, kPositions = kTile * kTile;

/// The planes of one image, from the group's first channel.
template <typename T>
struct Planes {
  T* data;
  size_t channels;  // of this group: up to lanes
  size_t height, width;
};

/// The transformed tiles of one group; data points to the first value of the first tile.
template <typename T>
struct Tiles {
  T* data;
  size_t position, row;
  size_t count;  // tiles per strip
};

struct Kernels {
  size_t lanes;
  size_t rows;  // maximum rows of `multiply`

  /// Transform a strip of input tiles: 6 rows from `top` (rows and columns outside the image are 0); tile t starts at
  /// column t * m - left. scratch: kTile * (count * m + kTile) * lanes floats.
  void (*input)(size_t m, Planes<const float> x, ptrdiff_t top, size_t left, float* scratch, Tiles<float> to);

  /// Transform a strip of tiles of the output's gradient: m rows from `top`. scratch: kTile * count * m * lanes floats.
  void (*gradient)(size_t m, Planes<const float> dy, size_t top, float* scratch, Tiles<float> to);

  /// Transform a strip of products into up to m rows of the output from `top`. bias: `lanes` values of the group's
  /// channels, or null. scratch: m * count * m * lanes floats.
  void (*output)(size_t m, Tiles<const float> from, const float* bias, float* scratch, Planes<float> y, size_t top);

  /// Transform the weights of 2 * lanes outputs and some input channels: w(output, channel, y, x) is at w[output *
  /// output_step + channel * channel_step + y * kernel + x], or mirrored if `flip`. Outputs from `outputs` are 0. to:
  /// position i of channel c at to[i * position + c * 2 * lanes].
  void (*weights)(size_t kernel, const float* w, size_t output_step, size_t channel_step, bool flip, size_t outputs,
                  size_t channels, float* to, size_t position);

  /// Add the weight gradient of one output to dw (channels x kernel x kernel), given the sums of products: position i
  /// of channel c at from[i * position + c].
  void (*weight_gradient)(size_t kernel, const float* from, size_t position, size_t channels, float* dw);

  /// to(r, .) (+)= sum over d of a(r, d) b(d, .), for 2 * lanes columns: a(r, d) is at a[r * a_row + d * a_step], b(d,
  /// .) at b + d * b_step, to(r, .) at to + r * to_row, with r < rows <= this->rows.
  void (*multiply)(size_t rows, size_t depth, const float* a, size_t a_row, size_t a_step, const float* b,
                   size_t b_step, float* to, size_t to_row, bool add);
};

/// The kernels of the best instruction set of this machine.
Kernels BestKernels();

}  // namespace winograd
}  // namespace caffe

#endif  // CAFFE_WINOGRAD_KERNELS_HPP_
