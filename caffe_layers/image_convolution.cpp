#include "image_convolution.hpp"

#include <cblas.h>
#include <omp.h>

#include <algorithm>
#include <cstring>

#include "divide_up.hpp"
#include "workspace.hpp"

namespace caffe {
namespace {

const size_t kColumnFloats = size_t(1) << 16;      // of a thread's columns: they fit the second-level cache
const size_t kMostWeightFloats = size_t(1) << 20;  // of the gradient sums of all parts
const size_t kParts = 8;                           // of the images; each has its own sums

/// The sizes of one group, and the number of output rows computed at a time.
struct Piece {
  size_t channels, outputs, depth, rows;

  explicit Piece(const ConvolutionShape& s)
      : channels(s.channels / s.groups),
        outputs(s.outputs / s.groups),
        depth(channels * s.kernel_h * s.kernel_w),
        rows(std::min(s.out_height, std::max<size_t>(1, kColumnFloats / (depth * s.out_width)))) {}
  size_t columns(const ConvolutionShape& s) const { return depth * rows * s.out_width; }
};

bool IsPlain(const ConvolutionShape& s) {  // the input itself is the matrix
  return s.kernel_h * s.kernel_w == 1 && s.stride_h * s.stride_w == 1 && s.pad_h + s.pad_w == 0;
}

/// Call run(from, to, count) for the output positions of row y whose input for kernel row ky and column kx lies inside
/// the image, and zero(to, count) for the others. Inputs are `stride_w` apart.
template <class Run, class Zero>
void Neighbours(const ConvolutionShape& s, size_t y, size_t ky, size_t kx, const Run& run, const Zero& zero) {
  const ptrdiff_t row = static_cast<ptrdiff_t>(y * s.stride_h + ky * s.dilation_h) - static_cast<ptrdiff_t>(s.pad_h);
  if (row < 0 || row >= static_cast<ptrdiff_t>(s.height)) return zero(0, s.out_width);
  const ptrdiff_t first = static_cast<ptrdiff_t>(kx * s.dilation_w) - static_cast<ptrdiff_t>(s.pad_w);
  const ptrdiff_t step = s.stride_w, width = s.width;
  const size_t begin = first >= 0 ? 0 : std::min<size_t>(s.out_width, DivideUp(-first, step));
  const size_t end =
      first >= width ? begin : std::max(begin, std::min<size_t>(s.out_width, DivideUp(width - first, step)));
  zero(0, begin);
  if (end > begin) run(row * width + first + static_cast<ptrdiff_t>(begin) * step, begin, end - begin);
  zero(end, s.out_width - end);
}

/// The columns of output rows `top` to `bottom` of one group: depth x (rows x out_width).
void ToColumns(const ConvolutionShape& s, const Piece& piece, const float* x, size_t top, size_t bottom, float* to) {
  for (size_t c = 0; c < piece.channels; ++c) {
    const float* plane = x + c * s.height * s.width;
    for (size_t ky = 0; ky < s.kernel_h; ++ky) {
      for (size_t kx = 0; kx < s.kernel_w; ++kx) {
        for (size_t y = top; y < bottom; ++y, to += s.out_width) {
          Neighbours(
              s, y, ky, kx,
              [&](ptrdiff_t from, size_t begin, size_t count) {
                if (s.stride_w == 1) {
                  memcpy(to + begin, plane + from, count * sizeof(float));
                } else {
                  for (size_t i = 0; i < count; ++i)
                    to[begin + i] = plane[from + static_cast<ptrdiff_t>(i * s.stride_w)];
                }
              },
              [&](size_t begin, size_t count) { std::fill(to + begin, to + begin + count, 0.f); });
        }
      }
    }
  }
}

/// The inverse of ToColumns: add columns to the positions they were read from.
void AddColumns(const ConvolutionShape& s, const Piece& piece, const float* from, size_t top, size_t bottom, float* x) {
  for (size_t c = 0; c < piece.channels; ++c) {
    float* plane = x + c * s.height * s.width;
    for (size_t ky = 0; ky < s.kernel_h; ++ky) {
      for (size_t kx = 0; kx < s.kernel_w; ++kx) {
        for (size_t y = top; y < bottom; ++y, from += s.out_width) {
          Neighbours(
              s, y, ky, kx,
              [&](ptrdiff_t to, size_t begin, size_t count) {
                for (size_t i = 0; i < count; ++i)
                  plane[to + static_cast<ptrdiff_t>(i * s.stride_w)] += from[begin + i];
              },
              [](size_t, size_t) {});
        }
      }
    }
  }
}

/// The number of parts of the images. It is the same for up to kParts threads, so that sums over parts are too.
size_t Parts(const ConvolutionShape& s) { return std::min(s.images, std::max<size_t>(kParts, omp_get_max_threads())); }

/// Call run(part, image, group, top, bottom, columns) for each piece; one thread computes a part. columns: `own`
/// floats.
template <class Run>
void ForPieces(const ConvolutionShape& s, const Piece& piece, float* memory, size_t own, const Run& run) {
  const size_t parts = Parts(s);
#pragma omp parallel for schedule(static)
  for (size_t part = 0; part < parts; ++part) {
    float* columns = memory + omp_get_thread_num() * own;
    for (size_t image = part * s.images / parts; image < (part + 1) * s.images / parts; ++image) {
      for (size_t g = 0; g < s.groups; ++g) {
        for (size_t top = 0; top < s.out_height; top += piece.rows) {
          run(part, image, g, top, std::min(s.out_height, top + piece.rows), columns);
        }
      }
    }
  }
}

}  // namespace

bool ImageConvolutionFits(const ConvolutionShape& s) {
  // With fewer images than threads, some threads would be idle; upstream's algorithm uses all of them.
  const size_t wanted = std::min<size_t>(omp_get_max_threads(), kParts);
  const Piece piece(s);
  return s.images >= wanted && s.out_height * s.out_width >= 16 &&
         Parts(s) * s.outputs * piece.depth <= kMostWeightFloats;
}

void ImageConvolutionForward(const ConvolutionShape& s, const float* x, const float* weights, const float* bias,
                             float* y) {
  const Piece piece(s);
  const size_t own = IsPlain(s) ? 0 : piece.columns(s), plane = s.out_height * s.out_width;
  const size_t in_plane = s.height * s.width;
  ForPieces(s, piece, Workspace(omp_get_max_threads() * own), own,
            [&](size_t, size_t image, size_t g, size_t top, size_t bottom, float* columns) {
              const float* from = x + (image * s.channels + g * piece.channels) * in_plane;
              float* to = y + (image * s.outputs + g * piece.outputs) * plane + top * s.out_width;
              const size_t count = (bottom - top) * s.out_width;
              if (!IsPlain(s)) ToColumns(s, piece, from, top, bottom, columns);
              if (bias != nullptr) {
                for (size_t k = 0; k < piece.outputs; ++k) {
                  std::fill(to + k * plane, to + k * plane + count, bias[g * piece.outputs + k]);
                }
              }
              cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, piece.outputs, count, piece.depth, 1,
                          weights + g * piece.outputs * piece.depth, piece.depth,
                          IsPlain(s) ? from + top * s.out_width : columns, IsPlain(s) ? in_plane : count,
                          bias != nullptr, to, plane);
            });
}

void ImageConvolutionBackwardData(const ConvolutionShape& s, const float* dy, const float* weights, float* dx) {
  const Piece piece(s);
  const size_t own = IsPlain(s) ? 0 : piece.columns(s), plane = s.out_height * s.out_width;
  const size_t in_plane = s.height * s.width;
  ForPieces(s, piece, Workspace(omp_get_max_threads() * own), own,
            [&](size_t, size_t image, size_t g, size_t top, size_t bottom, float* columns) {
              const float* from = dy + (image * s.outputs + g * piece.outputs) * plane + top * s.out_width;
              float* to = dx + (image * s.channels + g * piece.channels) * in_plane;
              const size_t count = (bottom - top) * s.out_width;
              if (top == 0 && !IsPlain(s)) std::fill(to, to + piece.channels * in_plane, 0.f);
              cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, piece.depth, count, piece.outputs, 1,
                          weights + g * piece.outputs * piece.depth, piece.depth, from, plane, 0,
                          IsPlain(s) ? to + top * s.out_width : columns, IsPlain(s) ? in_plane : count);
              if (!IsPlain(s)) AddColumns(s, piece, columns, top, bottom, to);
            });
}

void ImageConvolutionBackwardWeights(const ConvolutionShape& s, const float* x, const float* dy, float* dw) {
  const Piece piece(s);
  const size_t weights = s.outputs * piece.depth, parts = Parts(s), own = IsPlain(s) ? 0 : piece.columns(s);
  const size_t plane = s.out_height * s.out_width, in_plane = s.height * s.width;
  float* const sums = Workspace(parts * weights + omp_get_max_threads() * own);
  std::fill(sums, sums + parts * weights, 0.f);
  ForPieces(s, piece, sums + parts * weights, own,
            [&](size_t part, size_t image, size_t g, size_t top, size_t bottom, float* columns) {
              const float* in = x + (image * s.channels + g * piece.channels) * in_plane;
              const float* out = dy + (image * s.outputs + g * piece.outputs) * plane + top * s.out_width;
              const size_t count = (bottom - top) * s.out_width;
              if (!IsPlain(s)) ToColumns(s, piece, in, top, bottom, columns);
              cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, piece.outputs, piece.depth, count, 1, out, plane,
                          IsPlain(s) ? in + top * s.out_width : columns, IsPlain(s) ? in_plane : count, 1,
                          sums + part * weights + g * piece.outputs * piece.depth, piece.depth);
            });
  for (size_t part = 0; part < parts; ++part) {
    for (size_t i = 0; i < weights; ++i) dw[i] += sums[part * weights + i];
  }
}

void BiasGradient(size_t images, size_t outputs, size_t plane, const float* dy, float* db) {
#pragma omp parallel for schedule(static) if (images * outputs * plane > 1 << 16)
  for (size_t k = 0; k < outputs; ++k) {
    double total = 0;
    for (size_t n = 0; n < images; ++n) {
      const float* values = dy + (n * outputs + k) * plane;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (size_t i = 0; i < plane; ++i) sum += values[i];
      total += sum;
    }
    db[k] += static_cast<float>(total);
  }
}

}  // namespace caffe
