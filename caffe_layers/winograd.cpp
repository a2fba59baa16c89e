#include "winograd.hpp"

#include <omp.h>

#include <algorithm>
#include <utility>

#include "divide_up.hpp"
#include "winograd_kernels.hpp"
#include "workspace.hpp"

namespace caffe {
namespace {

using winograd::BestKernels;
using winograd::Kernels;
using winograd::kPositions;
using winograd::kTile;
using winograd::Tiles;

const size_t kForwardFloats = size_t(1) << 18;   // of a thread's transformed tiles: they fit the second-level cache
const size_t kGradientFloats = size_t(3) << 20;  // of all threads' transformed tiles: they fit the last-level cache
const size_t kOwnFloats = size_t(1) << 19;       // of the sums that each part of the images may own
const size_t kPartFloats = size_t(5) << 20;      // of transformed weights, or sums, in memory at a time
const size_t kParts = 8;                         // of the images
const size_t kStripFloats = size_t(1) << 24;  // maximum for a strip's transformed tiles; each thread has some in memory
const size_t kFewestTiles = 16;               // with fewer, transforming the weights costs more than it saves

/// The length of a row of channels: whole pairs of vectors, padded so that adjacent rows use different sets of the
/// cache.
size_t Row(const Kernels& kernels, size_t channels) { return RoundUp(channels, 2 * kernels.lanes) + 16; }

/// The division of a batch's output: a strip is one row of tiles of one image, a block is several strips.
struct Cut {
  size_t m, across, down, strips;

  explicit Cut(const ConvolutionShape& shape)
      : m(kTile + 1 - shape.kernel_h),
        across(DivideUp(shape.out_width, m)),
        down(DivideUp(shape.out_height, m)),
        strips(shape.images * down) {}
  size_t image(size_t strip) const { return strip / down; }
  size_t top(size_t strip) const { return strip % down * m; }
};

/// Transform strip s, group g of the input x.
void InputStrip(const Kernels& kernels, const ConvolutionShape& shape, const Cut& cut, const float* x, size_t s,
                size_t g, float* scratch, Tiles<float> to) {
  const size_t first = g * kernels.lanes, plane = shape.height * shape.width;
  // A group may be past the last channel; it is then 0.
  const size_t channels = shape.channels > first ? std::min(kernels.lanes, shape.channels - first) : 0;
  const float* image = x + (cut.image(s) * shape.channels + (channels > 0 ? first : 0)) * plane;
  kernels.input(cut.m, {image, channels, shape.height, shape.width},
                static_cast<ptrdiff_t>(cut.top(s)) - static_cast<ptrdiff_t>(shape.pad_h), shape.pad_w, scratch, to);
}

/// Compute shape.outputs of the outputs of `Convolve`. y starts at the first one's plane; an image of y has y_planes
/// planes.
void ConvolvePart(const ConvolutionShape& shape, const float* x, const float* weights, size_t output_step,
                  size_t channel_step, bool flip, const float* bias, size_t y_planes, float* y) {
  const Kernels kernels = BestKernels();
  const Cut cut(shape);
  const size_t lanes = kernels.lanes, panel = 2 * lanes, panels = DivideUp(shape.outputs, panel);
  const size_t row = Row(kernels, shape.channels), groups = DivideUp(shape.channels, lanes);
  const size_t threads = omp_get_max_threads();
  size_t most = std::max<size_t>(28, RoundUp(kForwardFloats / kPositions / row, 14));
  most = std::max<size_t>(1, most / cut.across);
  const size_t blocks = RoundUp(DivideUp(cut.strips, most), std::min(threads, cut.strips));
  const size_t strips = DivideUp(cut.strips, blocks), tiles = strips * cut.across;
  // transformed weights: panels x 36 x channels x 2 lanes
  const size_t matrix = shape.channels * panel, weight_floats = panels * kPositions * matrix;
  const size_t bias_floats = panels * panel;
  const size_t scratch_floats = kTile * (cut.across * cut.m + kTile) * lanes;
  const size_t own = kPositions * tiles * (row + panel) + scratch_floats;
  float* transformed = Workspace(weight_floats + bias_floats + threads * own);
  float* biases = transformed + weight_floats;
  std::fill(biases, biases + bias_floats, 0.f);
  if (bias != nullptr) std::copy(bias, bias + shape.outputs, biases);
  const size_t out_plane = shape.out_height * shape.out_width;
  const size_t some = 16;  // channels whose weights are transformed together
#pragma omp parallel num_threads(threads)
  {
#pragma omp for collapse(2) schedule(static)
    for (size_t p = 0; p < panels; ++p) {
      for (size_t first = 0; first < shape.channels; first += some) {
        kernels.weights(shape.kernel_h, weights + p * panel * output_step + first * channel_step, output_step,
                        channel_step, flip, shape.outputs - p * panel, std::min(some, shape.channels - first),
                        transformed + p * kPositions * matrix + first * panel, matrix);
      }
    }
    float* const v = biases + bias_floats + omp_get_thread_num() * own;
    float* const products = v + kPositions * tiles * row;
    float* const scratch = products + kPositions * tiles * panel;
#pragma omp for schedule(static)
    for (size_t block = 0; block < blocks; ++block) {
      const size_t begin = block * strips, end = std::min(cut.strips, begin + strips);
      if (begin >= end) continue;
      for (size_t g = 0; g < groups; ++g) {
        for (size_t s = begin; s < end; ++s) {
          InputStrip(kernels, shape, cut, x, s, g, scratch,
                     {v + (s - begin) * cut.across * row + g * lanes, tiles * row, row, cut.across});
        }
      }
      const size_t count = (end - begin) * cut.across, pieces = DivideUp(count, kernels.rows);
      for (size_t p = 0; p < panels; ++p) {
        for (size_t i = 0; i < kPositions; ++i) {
          const float* u = transformed + (p * kPositions + i) * matrix;
          for (size_t piece = 0; piece < pieces; ++piece) {
            const size_t from = piece * count / pieces, to = (piece + 1) * count / pieces;
            kernels.multiply(to - from, shape.channels, v + (i * tiles + from) * row, row, 1, u, panel,
                             products + (i * tiles + from) * panel, panel, false);
          }
        }
        for (size_t half = 0; half < 2; ++half) {
          const size_t output = p * panel + half * lanes;
          if (output >= shape.outputs) break;
          for (size_t s = begin; s < end; ++s) {
            kernels.output(
                cut.m, {products + (s - begin) * cut.across * panel + half * lanes, tiles * panel, panel, cut.across},
                bias == nullptr ? nullptr : biases + output, scratch,
                {y + (cut.image(s) * y_planes + output) * out_plane, std::min(lanes, shape.outputs - output),
                 shape.out_height, shape.out_width},
                cut.top(s));
          }
        }
      }
    }
  }
}

/// Call run(part, first) for consecutive parts of the outputs if all together would need too much memory (`floats`):
/// `part` contains the outputs from `first`. Parts are whole panels for every instruction set.
template <class Run>
void InParts(const ConvolutionShape& shape, size_t floats, const Run& run) {
  const size_t some = RoundUp(DivideUp(shape.outputs, DivideUp(floats, kPartFloats)), 64);
  for (size_t first = 0; first < shape.outputs; first += some) {
    ConvolutionShape part = shape;
    part.outputs = std::min(some, shape.outputs - first);
    run(part, first);
  }
}

/// y = x * weights, with weight w(output, channel) at output * output_step + channel * channel_step.
void Convolve(const ConvolutionShape& shape, const float* x, const float* weights, size_t output_step,
              size_t channel_step, bool flip, const float* bias, float* y) {
  InParts(shape, kPositions * shape.channels * shape.outputs, [&](const ConvolutionShape& part, size_t first) {
    ConvolvePart(part, x, weights + first * output_step, output_step, channel_step, flip,
                 bias == nullptr ? nullptr : bias + first, shape.outputs,
                 y + first * shape.out_height * shape.out_width);
  });
}

/// The gradient with respect to the weights: for each of the 36 positions, the products outputs x channels summed over
/// all tiles.
class Gradient {
 public:
  /// dy starts at the plane of the first of shape.outputs outputs; an image of dy has dy_planes planes.
  Gradient(const ConvolutionShape& shape, const float* x, const float* dy, size_t dy_planes)
      : shape_(shape),
        x_(x),
        dy_(dy),
        dy_planes_(dy_planes),
        kernels_(BestKernels()),
        cut_(shape),
        lanes_(kernels_.lanes),
        in_row_(Row(kernels_, shape.channels)),
        out_row_(Row(kernels_, shape.outputs)),
        in_groups_(RoundUp(shape.channels, 2 * lanes_) / lanes_),
        out_groups_(DivideUp(shape.outputs, lanes_)),
        matrix_(shape.outputs * in_row_),
        pieces_(DivideUp(shape.outputs, kernels_.rows)),
        scratch_floats_(kTile * (cut_.across * cut_.m + kTile) * lanes_) {}

  /// The size of the sums of all positions.
  size_t sums_floats() const { return kPositions * matrix_; }

  /// Few channels: parts of the strips with sums of their own. The number of parts is the same for up to kParts
  /// threads, so that the bits are too.
  void Apart(float* dw) const {
    const size_t threads = omp_get_max_threads(), parts = std::min(std::max(threads, kParts), cut_.strips);
    const size_t strips = StripsIn(kForwardFloats, DivideUp(cut_.strips, parts));
    const size_t own = BlockFloats(strips) + scratch_floats_;
    float* const sums = Workspace(parts * sums_floats() + threads * own);
#pragma omp parallel num_threads(threads)
    {
      float* const block = sums + parts * sums_floats() + omp_get_thread_num() * own;
      float* const scratch = block + BlockFloats(strips);
#pragma omp for schedule(static)
      for (size_t part = 0; part < parts; ++part) {
        const size_t first = part * cut_.strips / parts, last = (part + 1) * cut_.strips / parts;
        for (size_t begin = first; begin < last; begin += strips) {
          const size_t end = std::min(last, begin + strips);
          for (size_t g = 0; g < in_groups_; ++g) {
            for (size_t s = begin; s < end; ++s) Input(s, g, strips, s - begin, scratch, block);
          }
          for (size_t g = 0; g < out_groups_; ++g) {
            for (size_t s = begin; s < end; ++s) Output(s, g, strips, s - begin, scratch, block);
          }
          for (size_t i = 0; i < kPositions; ++i) {
            for (size_t p = 0; p < pieces_; ++p) {
              Multiply(i, p, strips, end - begin, block, sums + part * sums_floats(), begin > first);
            }
          }
        }
      }
#pragma omp for schedule(static)
      for (size_t i = 0; i < kPositions; ++i) {
        for (size_t part = 1; part < parts; ++part) {
          const float* from = sums + part * sums_floats() + i * matrix_;
          float* to = sums + i * matrix_;
#pragma omp simd
          for (size_t j = 0; j < matrix_; ++j) to[j] += from[j];
        }
      }
      Finish(sums, dw);
    }
  }

  /// Many channels, whose sums take much memory: all threads work on the same block and share the sums.
  void Together(float* dw) const {
    const size_t threads = omp_get_max_threads();
    const size_t strips = StripsIn(kGradientFloats, cut_.strips);
    float* const sums = Workspace(sums_floats() + BlockFloats(strips) + threads * scratch_floats_);
    float* const block = sums + sums_floats();
#pragma omp parallel num_threads(threads)
    {
      float* const scratch = block + BlockFloats(strips) + omp_get_thread_num() * scratch_floats_;
      for (size_t begin = 0; begin < cut_.strips; begin += strips) {
        const size_t end = std::min(cut_.strips, begin + strips);
#pragma omp for collapse(2) schedule(static) nowait
        for (size_t s = begin; s < end; ++s) {
          for (size_t g = 0; g < in_groups_; ++g) Input(s, g, strips, s - begin, scratch, block);
        }
#pragma omp for collapse(2) schedule(static)
        for (size_t s = begin; s < end; ++s) {
          for (size_t g = 0; g < out_groups_; ++g) Output(s, g, strips, s - begin, scratch, block);
        }
#pragma omp for collapse(2) schedule(static)
        for (size_t i = 0; i < kPositions; ++i) {
          for (size_t p = 0; p < pieces_; ++p) Multiply(i, p, strips, end - begin, block, sums, begin > 0);
        }
      }
      Finish(sums, dw);
    }
  }

 private:
  /// The number of strips with `floats` transformed values.
  size_t StripsIn(size_t floats, size_t most) const {
    const size_t strips = floats / BlockFloats(1);
    return DivideUp(most, DivideUp(most, std::max<size_t>(1, std::min(most, strips))));  // blocks of equal size
  }
  /// The size of the transformed tiles of `strips` strips: those of the input, followed by those of the gradient.
  size_t BlockFloats(size_t strips) const { return kPositions * strips * cut_.across * (in_row_ + out_row_); }

  /// Transform strip s, group g of the input into its place in a block of `strips` strips.
  void Input(size_t s, size_t g, size_t strips, size_t place, float* scratch, float* block) const {
    InputStrip(
        kernels_, shape_, cut_, x_, s, g, scratch,
        {block + place * cut_.across * in_row_ + g * lanes_, strips * cut_.across * in_row_, in_row_, cut_.across});
  }

  /// The same for the gradient of the output.
  void Output(size_t s, size_t g, size_t strips, size_t place, float* scratch, float* block) const {
    const size_t first = g * lanes_, plane = shape_.out_height * shape_.out_width;
    const float* image = dy_ + (cut_.image(s) * dy_planes_ + first) * plane;
    const size_t tiles = strips * cut_.across;
    kernels_.gradient(cut_.m, {image, std::min(lanes_, shape_.outputs - first), shape_.out_height, shape_.out_width},
                      cut_.top(s), scratch,
                      {block + kPositions * tiles * in_row_ + place * cut_.across * out_row_ + first, tiles * out_row_,
                       out_row_, cut_.across});
  }

  /// Multiply piece p of the outputs at position i, summed over the first `used` strips of the block.
  void Multiply(size_t i, size_t p, size_t strips, size_t used, const float* block, float* sums, bool add) const {
    const size_t from = p * shape_.outputs / pieces_, to = (p + 1) * shape_.outputs / pieces_;
    const size_t tiles = strips * cut_.across;
    const float* v = block + i * tiles * in_row_;
    const float* w = block + kPositions * tiles * in_row_ + i * tiles * out_row_;
    for (size_t c = 0; c < shape_.channels; c += 2 * lanes_) {
      kernels_.multiply(to - from, used * cut_.across, w + from, 1, out_row_, v + c, in_row_,
                        sums + i * matrix_ + from * in_row_ + c, in_row_, add);
    }
  }

  /// Transform the sums into the weight gradient; all threads must call it.
  void Finish(const float* sums, float* dw) const {
#pragma omp for schedule(static)
    for (size_t output = 0; output < shape_.outputs; ++output) {
      kernels_.weight_gradient(shape_.kernel_h, sums + output * in_row_, matrix_, shape_.channels,
                               dw + output * shape_.channels * shape_.kernel_h * shape_.kernel_w);
    }
  }

  const ConvolutionShape shape_;
  const float* const x_;
  const float* const dy_;
  const size_t dy_planes_;
  const Kernels kernels_;
  const Cut cut_;
  const size_t lanes_, in_row_, out_row_, in_groups_, out_groups_, matrix_, pieces_, scratch_floats_;
};

}  // namespace

bool WinogradFits(const ConvolutionShape& shape) {
  if (shape.kernel_h != shape.kernel_w || (shape.kernel_h != 3 && shape.kernel_h != 5)) return false;
  if (shape.pad_h >= shape.kernel_h || shape.pad_w >= shape.kernel_w) return false;
  if (shape.stride_h * shape.stride_w * shape.dilation_h * shape.dilation_w * shape.groups != 1) return false;
  if (shape.channels < 16 || shape.outputs < 16) return false;
  const Cut cut(shape);
  return cut.strips * cut.across >= kFewestTiles &&
         kPositions * cut.across * (shape.channels + shape.outputs) <= kStripFloats;
}

void WinogradForward(const ConvolutionShape& shape, const float* x, const float* weights, const float* bias, float* y) {
  const size_t count = shape.kernel_h * shape.kernel_w;
  Convolve(shape, x, weights, shape.channels * count, count, false, bias, y);
}

void WinogradBackwardData(const ConvolutionShape& shape, const float* dy, const float* weights, float* dx) {
  const size_t count = shape.kernel_h * shape.kernel_w;
  ConvolutionShape other = shape;  // reversed: dy is the input and dx the output
  std::swap(other.channels, other.outputs);
  std::swap(other.height, other.out_height);
  std::swap(other.width, other.out_width);
  other.pad_h = shape.kernel_h - 1 - shape.pad_h;
  other.pad_w = shape.kernel_w - 1 - shape.pad_w;
  Convolve(other, dy, weights, count, shape.channels * count, true, nullptr, dx);
}

void WinogradBackwardWeights(const ConvolutionShape& shape, const float* x, const float* dy, float* dw) {
  const Gradient whole(shape, x, dy, shape.outputs);
  if (whole.sums_floats() <= kOwnFloats) return whole.Apart(dw);
  InParts(shape, whole.sums_floats(), [&](const ConvolutionShape& part, size_t first) {
    Gradient(part, x, dy + first * shape.out_height * shape.out_width, shape.outputs)
        .Together(dw + first * shape.channels * shape.kernel_h * shape.kernel_w);
  });
}

}  // namespace caffe
