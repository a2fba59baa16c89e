// Highway compiles this file once per instruction set, like rectifier.cpp.

#include "max_pooling.hpp"

#include <cfloat>

#include "fixed_vectors.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "max_pooling.cpp"
#include <hwy/foreach_target.h>
// must follow foreach_target.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace caffe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
template <class D>
using Bytes = hn::Rebind<uint8_t, D>;
template <class D>
using Integers = hn::RebindToSigned<D>;

/// As many 2x2 windows as a vector has lanes, side by side in two rows of x.
template <class D>
HWY_INLINE void Forward(D d, const float* x, size_t width, float* y, uint8_t* winners) {
  const Integers<D> integers;
  hn::Vec<D> value[4];
  hn::LoadInterleaved2(d, x, value[0], value[1]);
  hn::LoadInterleaved2(d, x + width, value[2], value[3]);
  auto best = hn::Set(d, -FLT_MAX);
  auto winner = hn::Set(integers, kNoWinner);
  for (int k = 0; k < 4; ++k) {
    // Not Ne: in Highway 1.0 it is false for NaN on some instruction sets.
    const auto wins = hn::Or(hn::Gt(value[k], best), hn::Not(hn::Eq(value[k], value[k])));
    best = hn::IfThenElse(wins, value[k], best);
    winner = hn::IfThenElse(hn::RebindMask(integers, wins), hn::Set(integers, k), winner);
  }
  hn::StoreU(best, d, y);
  hn::StoreU(hn::DemoteTo(Bytes<D>(), winner), Bytes<D>(), winners);
}

template <class D>
HWY_INLINE void Backward(D d, const uint8_t* winners, const float* dy, size_t width, float* dx) {
  const Integers<D> integers;
  const auto winner = hn::PromoteTo(integers, hn::LoadU(Bytes<D>(), winners));
  const auto gradient = hn::LoadU(d, dy);
  hn::Vec<D> value[4];
  for (int k = 0; k < 4; ++k) {
    value[k] = hn::IfThenElseZero(hn::RebindMask(d, hn::Eq(winner, hn::Set(integers, k))), gradient);
  }
  hn::StoreInterleaved2(value[0], value[1], d, dx);
  hn::StoreInterleaved2(value[2], value[3], d, dx + width);
}

/// Call run(d, i) for windows i to i + lanes so that all of `count` windows are covered, some of them twice, with the
/// widest vectors that fit a row. @return the number of windows covered: `count`, or 0 if the row is too short.
template <class D, class Run>
HWY_INLINE size_t ForWindows(D d, size_t count, const Run& run) {
  const size_t lanes = hn::Lanes(d);
  if (count < lanes) {
    if constexpr (hn::MaxLanes(D()) > 4) return ForWindows(hn::Half<D>(), count, run);
    return 0;
  }
  for (size_t i = 0; i + lanes <= count; i += lanes) run(d, i);
  if (count % lanes != 0) run(d, count - lanes);
  return count;
}

size_t Forward2x2(const float* x, size_t width, size_t count, float* y, uint8_t* winners) {
  return ForWindows(hn::ScalableTag<float>(), count,
                    [=](auto d, size_t i) { Forward(d, x + 2 * i, width, y + i, winners + i); });
}

size_t Backward2x2(const uint8_t* winners, const float* dy, size_t width, size_t count, float* dx) {
  return ForWindows(hn::ScalableTag<float>(), count,
                    [=](auto d, size_t i) { Backward(d, winners + i, dy + i, width, dx + 2 * i); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace caffe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>

namespace caffe {
namespace {

HWY_EXPORT(Forward2x2);
HWY_EXPORT(Backward2x2);

const size_t kParallelCount = 1 << 15;  // values of x up to which a second thread does not pay

/// Whether windows are 2x2 without overlap; the last may be cut off at the edges.
bool Is2x2(const PoolingShape& s) {
  return s.kernel_h == 2 && s.kernel_w == 2 && s.stride_h == 2 && s.stride_w == 2 && s.pad_h + s.pad_w == 0;
}

template <typename Dtype>
size_t FastForward(const Dtype*, size_t, size_t, Dtype*, uint8_t*) {
  return 0;
}
size_t FastForward(const float* x, size_t width, size_t count, float* y, uint8_t* winners) {
  return HWY_DYNAMIC_DISPATCH(Forward2x2)(x, width, count, y, winners);
}
template <typename Dtype>
size_t FastBackward(const uint8_t*, const Dtype*, size_t, size_t, Dtype*) {
  return 0;
}
size_t FastBackward(const uint8_t* winners, const float* dy, size_t width, size_t count, float* dx) {
  return HWY_DYNAMIC_DISPATCH(Backward2x2)(winners, dy, width, count, dx);
}

}  // namespace

template <typename Dtype>
void MaxPoolingForward(const PoolingShape& s, const Dtype* x, Dtype* y, uint8_t* winners) {
  const bool fast = Is2x2(s);
  const ptrdiff_t height = s.height, width = s.width;
#pragma omp parallel for schedule(static) if (s.planes * s.height * s.width > kParallelCount)
  for (size_t p = 0; p < s.planes; ++p) {
    const Dtype* plane = x + p * s.height * s.width;
    for (size_t row = 0; row < s.out_height; ++row) {
      const size_t at = (p * s.out_height + row) * s.out_width;
      size_t column = 0;
      if (fast && 2 * row + 1 < s.height) {
        column = FastForward(plane + 2 * row * s.width, s.width, s.width / 2, y + at, winners + at);
      }
      for (; column < s.out_width; ++column) {
        const ptrdiff_t top = static_cast<ptrdiff_t>(row * s.stride_h) - static_cast<ptrdiff_t>(s.pad_h);
        const ptrdiff_t left = static_cast<ptrdiff_t>(column * s.stride_w) - static_cast<ptrdiff_t>(s.pad_w);
        const ptrdiff_t bottom = std::min<ptrdiff_t>(s.kernel_h, height - top);
        const ptrdiff_t right = std::min<ptrdiff_t>(s.kernel_w, width - left);
        Dtype best = -FLT_MAX;
        uint8_t winner = kNoWinner;
        for (ptrdiff_t i = std::max<ptrdiff_t>(0, -top); i < bottom; ++i) {
          for (ptrdiff_t j = std::max<ptrdiff_t>(0, -left); j < right; ++j) {
            const Dtype value = plane[(top + i) * width + left + j];
            if (value > best || value != value) {
              best = value;
              winner = static_cast<uint8_t>(i * s.kernel_w + j);
            }
          }
        }
        y[at + column] = best;
        winners[at + column] = winner;
      }
    }
  }
}

template <typename Dtype>
void MaxPoolingBackward(const PoolingShape& s, const uint8_t* winners, const Dtype* dy, Dtype* dx) {
  const bool fast = Is2x2(s);
#pragma omp parallel for schedule(static) if (s.planes * s.height * s.width > kParallelCount)
  for (size_t p = 0; p < s.planes; ++p) {
    Dtype* plane = dx + p * s.height * s.width;
    const size_t written = fast ? std::min(2 * s.out_height, s.height) : 0;  // whole rows written by the loop below
    std::fill(plane + written * s.width, plane + s.height * s.width, Dtype(0));
    for (size_t row = 0; row < s.out_height; ++row) {
      const size_t at = (p * s.out_height + row) * s.out_width;
      size_t column = 0;
      if (fast) {
        const size_t rows = std::min<size_t>(2, s.height - 2 * row);
        Dtype* first = plane + 2 * row * s.width;
        if (rows == 2) column = FastBackward(winners + at, dy + at, s.width, s.width / 2, first);
        for (size_t i = 0; i < rows; ++i)
          std::fill(first + i * s.width + 2 * column, first + (i + 1) * s.width, Dtype(0));
      }
      for (; column < s.out_width; ++column) {
        const uint8_t winner = winners[at + column];
        if (winner == kNoWinner) continue;
        const size_t i = row * s.stride_h + winner / s.kernel_w - s.pad_h;
        const size_t j = column * s.stride_w + winner % s.kernel_w - s.pad_w;
        if (i < s.height && j < s.width) plane[i * s.width + j] += dy[at + column];
      }
    }
  }
}

template void MaxPoolingForward(const PoolingShape&, const float*, float*, uint8_t*);
template void MaxPoolingForward(const PoolingShape&, const double*, double*, uint8_t*);
template void MaxPoolingBackward(const PoolingShape&, const uint8_t*, const float*, float*);
template void MaxPoolingBackward(const PoolingShape&, const uint8_t*, const double*, double*);

}  // namespace caffe

#endif  // HWY_ONCE
