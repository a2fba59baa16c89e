// The pieces of winograd.cpp that are compiled for each kind of vector unit.
//
// A tile is 6x6 values of the input, m x m of the output, with m = 7 - kernel. Vectors go along channels, `lanes` of
// them at once (a group). Matrices of transformed tiles are
//   36 positions x tiles x channels (a row of channels is `row` floats long, positions are `position` floats apart).
#pragma once

#include <cstddef>

namespace caffe {
namespace winograd {

const size_t kTile = 6, kPositions = kTile * kTile;

/// Planes of one image, from the group's first channel on.
template <typename T>
struct Planes {
  T* data;
  size_t channels;  // of this group: up to lanes
  size_t height, width;
};

/// Transformed tiles of one group: where the first tile's first value is.
template <typename T>
struct Tiles {
  T* data;
  size_t position, row;
  size_t count;  // tiles in the strip
};

struct Kernels {
  size_t lanes;
  size_t rows;  // that `multiply` takes at once, at most

  /// A strip of tiles of the input: 6 rows from `top` on (rows and columns outside are 0), tile t from column
  /// t * m - left on. scratch: kTile * (count * m + kTile) * lanes floats.
  void (*input)(size_t m, Planes<const float> x, ptrdiff_t top, size_t left, float* scratch, Tiles<float> to);

  /// A strip of tiles of the output's gradient: m rows from `top` on. scratch: kTile * count * m * lanes floats.
  void (*gradient)(size_t m, Planes<const float> dy, size_t top, float* scratch, Tiles<float> to);

  /// The other way: a strip of products becomes m rows of the output, from `top` on, where there are so many. bias: of
  /// the group's channels, `lanes` of them, or null. scratch: m * count * m * lanes floats.
  void (*output)(size_t m, Tiles<const float> from, const float* bias, float* scratch, Planes<float> y, size_t top);

  /// The transformed weights of 2 * lanes outputs and some channels of the input: a value w(output, channel, y, x) is
  /// at w[output * output_step + channel * channel_step + y * kernel + x], or at its mirror image (`flip`). Outputs
  /// from `outputs` on are 0. to: position i of channel c at to[i * position + c * 2 * lanes].
  void (*weights)(size_t kernel, const float* w, size_t output_step, size_t channel_step, bool flip, size_t outputs,
                  size_t channels, float* to, size_t position);

  /// From the sums of products of one output, position i of channel c at from[i * position + c], the gradient to its
  /// weights is added to dw (channels x kernel x kernel).
  void (*weight_gradient)(size_t kernel, const float* from, size_t position, size_t channels, float* dw);

  /// to(r, .) (+)= sum over d of a(r, d) b(d, .), of 2 * lanes columns: a(r, d) at a[r * a_row + d * a_step], b(d, .)
  /// at b + d * b_step, to(r, .) at to + r * to_row. r < rows, which is at most this->rows.
  void (*multiply)(size_t rows, size_t depth, const float* a, size_t a_row, size_t a_step, const float* b,
                   size_t b_step, float* to, size_t to_row, bool add);
};

/// Those of the best vector unit that this machine has.
Kernels BestKernels();

}  // namespace winograd
}  // namespace caffe
