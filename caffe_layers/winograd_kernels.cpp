// Highway compiles this file once per instruction set, like rectifier.cpp.

#include "winograd_kernels.hpp"

#include <cstring>

#include "fixed_vectors.hpp"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "winograd_kernels.cpp"
#include <hwy/foreach_target.h>
// must follow foreach_target.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace caffe {
namespace winograd {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
const size_t kLanes = hn::MaxLanes(D());
const size_t kRows = HWY_TARGET <= HWY_AVX3 ? 14 : HWY_ARCH_ARM_A64 ? 10 : 6;  // by the number of registers

// --- The transforms of a row or column: of Lavin and Gray's matrices, for the points 0, 1, -1, 2, -2 and infinity ---

/// Transform 6 input values into 6.
struct Input {
  static const size_t kFrom = kTile;
  HWY_INLINE static void Apply(const V (&d)[kTile], V (&o)[kTile]) {
    const D tag;
    const auto two = hn::Set(tag, 2.f), four = hn::Set(tag, 4.f), five = hn::Set(tag, 5.f);
    o[0] = hn::MulAdd(four, d[0], hn::NegMulAdd(five, d[2], d[4]));
    o[5] = hn::MulAdd(four, d[1], hn::NegMulAdd(five, d[3], d[5]));
    const auto a = hn::NegMulAdd(four, d[2], d[4]), b = hn::NegMulAdd(four, d[1], d[3]);
    o[1] = hn::Add(a, b);
    o[2] = hn::Sub(a, b);
    const auto e = hn::Sub(d[4], d[2]), f = hn::Sub(d[3], d[1]);
    o[3] = hn::MulAdd(two, f, e);
    o[4] = hn::NegMulAdd(two, f, e);
  }
};

/// Transform kSize kernel values into 6.
template <size_t kSize>
struct Filter {
  static const size_t kFrom = kSize;
  HWY_INLINE static void Apply(const V (&g)[kSize], V (&o)[kTile]) {
    const D tag;
    V even = g[0], odd = g[1], even2 = g[0], odd2 = hn::Add(g[1], g[1]);
    for (size_t j = 2; j < kSize; ++j) {
      const auto power = hn::Set(tag, static_cast<float>(1 << j));
      if (j % 2 == 0) {
        even = hn::Add(even, g[j]);
        even2 = hn::MulAdd(power, g[j], even2);
      } else {
        odd = hn::Add(odd, g[j]);
        odd2 = hn::MulAdd(power, g[j], odd2);
      }
    }
    const auto sixth = hn::Set(tag, -1.f / 6), part = hn::Set(tag, 1.f / 24);
    o[0] = hn::Mul(hn::Set(tag, 0.25f), g[0]);
    o[1] = hn::Mul(sixth, hn::Add(even, odd));
    o[2] = hn::Mul(sixth, hn::Sub(even, odd));
    o[3] = hn::Mul(part, hn::Add(even2, odd2));
    o[4] = hn::Mul(part, hn::Sub(even2, odd2));
    o[5] = g[kSize - 1];
  }
};

/// Transform 6 products into kSize results.
template <size_t kSize>
struct Output {
  static const size_t kTo = kSize;
  HWY_INLINE static void Apply(const V (&p)[kTile], V (&o)[kSize]) {
    const D tag;
    const auto sum1 = hn::Add(p[1], p[2]), difference1 = hn::Sub(p[1], p[2]);
    const auto sum2 = hn::Add(p[3], p[4]), difference2 = hn::Sub(p[3], p[4]);
    o[0] = hn::Add(p[0], hn::Add(sum1, sum2));
    for (size_t j = 1; j < kSize; ++j) {
      const auto power = hn::Set(tag, static_cast<float>(1 << j));
      o[j] = j % 2 == 0 ? hn::MulAdd(power, sum2, sum1) : hn::MulAdd(power, difference2, difference1);
    }
    o[kSize - 1] = hn::Add(o[kSize - 1], p[5]);
  }
};

// --- Between planes (a row of one channel after the other) and groups (a value of all channels after the other) ------

/// Transpose four vectors whose 128-bit blocks are rows of 4x4 matrices.
HWY_INLINE void TransposeBlocks(V (&v)[4]) {
#if HWY_TARGET != HWY_SCALAR
  const D tag;
  const hn::Repartition<double, D> pairs;
  const auto a = hn::BitCast(pairs, hn::InterleaveLower(tag, v[0], v[1]));
  const auto b = hn::BitCast(pairs, hn::InterleaveLower(tag, v[2], v[3]));
  const auto c = hn::BitCast(pairs, hn::InterleaveUpper(tag, v[0], v[1]));
  const auto e = hn::BitCast(pairs, hn::InterleaveUpper(tag, v[2], v[3]));
  v[0] = hn::BitCast(tag, hn::InterleaveLower(pairs, a, b));
  v[1] = hn::BitCast(tag, hn::InterleaveUpper(pairs, a, b));
  v[2] = hn::BitCast(tag, hn::InterleaveLower(pairs, c, e));
  v[3] = hn::BitCast(tag, hn::InterleaveUpper(pairs, c, e));
#endif
}

/// Load four columns of `lanes` channels from x: to[c] contains column c of all of them.
HWY_INLINE void LoadColumns(const float* x, size_t plane, float* to) {
#if HWY_TARGET != HWY_SCALAR
  const D tag;
  V v[4];
  for (size_t j = 0; j < 4; ++j) {
    const float* row = x + j * plane;
    v[j] = hn::LoadDup128(tag, row + (kLanes - 4) * plane);
    for (size_t block = kLanes / 4 - 1; block > 0; --block) {
      v[j] = hn::IfThenElse(hn::FirstN(tag, 4 * block), hn::LoadDup128(tag, row + 4 * (block - 1) * plane), v[j]);
    }
  }
  TransposeBlocks(v);
  for (size_t j = 0; j < 4; ++j) hn::StoreU(v[j], tag, to + j * kLanes);
#endif
}

/// The inverse: store four columns.
HWY_INLINE void StoreColumns(const float* from, float* y, size_t plane) {
#if HWY_TARGET != HWY_SCALAR
  const D tag;
  V v[4];
  for (size_t j = 0; j < 4; ++j) v[j] = hn::LoadU(tag, from + j * kLanes);
  TransposeBlocks(v);
  HWY_ALIGN float rows[4 * kLanes];
  for (size_t j = 0; j < 4; ++j) hn::Store(v[j], tag, rows + j * kLanes);
  for (size_t j = 0; j < 4; ++j) {
    for (size_t block = 0; block < kLanes / 4; ++block) {
      memcpy(y + (4 * block + j) * plane, rows + j * kLanes + 4 * block, 4 * sizeof(float));
    }
  }
#endif
}

/// Convert row `y` of the planes into a row of groups.
HWY_INLINE void LoadRow(Planes<const float> x, size_t y, float* to) {
  const size_t plane = x.height * x.width;
  const float* row = x.data + y * x.width;
  if (kLanes < 4 || x.channels < kLanes || x.width < 4) {
    for (size_t column = 0; column < x.width; ++column) {
      for (size_t c = 0; c < kLanes; ++c) to[column * kLanes + c] = c < x.channels ? row[c * plane + column] : 0;
    }
    return;
  }
  for (size_t column = 0; column + 4 <= x.width; column += 4) LoadColumns(row + column, plane, to + column * kLanes);
  if (x.width % 4 != 0) LoadColumns(row + x.width - 4, plane, to + (x.width - 4) * kLanes);
}

HWY_INLINE void StoreRow(const float* from, Planes<float> x, size_t y) {
  const size_t plane = x.height * x.width;
  float* row = x.data + y * x.width;
  if (kLanes < 4 || x.channels < kLanes || x.width < 4) {
    for (size_t c = 0; c < x.channels; ++c) {
      for (size_t column = 0; column < x.width; ++column) row[c * plane + column] = from[column * kLanes + c];
    }
    return;
  }
  for (size_t column = 0; column + 4 <= x.width; column += 4) StoreColumns(from + column * kLanes, row + column, plane);
  if (x.width % 4 != 0) StoreColumns(from + (x.width - 4) * kLanes, row + x.width - 4, plane);
}

// --- Strips ----------------------------------------------------------------------------------------------------------

/// Transform rows of groups, `columns` wide, into tiles; the first starts at `scratch`, each next one `step` columns
/// further.
template <class Transform>
void TransformTiles(float* scratch, size_t columns, size_t step, Tiles<float> to) {
  const D tag;
  const size_t line = columns * kLanes;
  for (size_t column = 0; column < columns; ++column) {  // the columns, in place
    float* values = scratch + column * kLanes;
    V from[Transform::kFrom], result[kTile];
    for (size_t i = 0; i < Transform::kFrom; ++i) from[i] = hn::LoadU(tag, values + i * line);
    Transform::Apply(from, result);
    for (size_t i = 0; i < kTile; ++i) hn::StoreU(result[i], tag, values + i * line);
  }
  for (size_t tile = 0; tile < to.count; ++tile) {
    for (size_t i = 0; i < kTile; ++i) {
      const float* values = scratch + i * line + tile * step * kLanes;
      V from[Transform::kFrom], result[kTile];
      for (size_t j = 0; j < Transform::kFrom; ++j) from[j] = hn::LoadU(tag, values + j * kLanes);
      Transform::Apply(from, result);
      float* target = to.data + i * kTile * to.position + tile * to.row;
      for (size_t j = 0; j < kTile; ++j) hn::StoreU(result[j], tag, target + j * to.position);
    }
  }
}

void InputStrip(size_t m, Planes<const float> x, ptrdiff_t top, size_t left, float* scratch, Tiles<float> to) {
  const size_t columns = to.count * m + kTile - m;
  for (size_t i = 0; i < kTile; ++i) {
    float* line = scratch + i * columns * kLanes;
    const ptrdiff_t y = top + static_cast<ptrdiff_t>(i);
    if (y < 0 || y >= static_cast<ptrdiff_t>(x.height)) {
      memset(line, 0, columns * kLanes * sizeof(float));
      continue;
    }
    memset(line, 0, left * kLanes * sizeof(float));
    LoadRow(x, y, line + left * kLanes);
    const size_t right = left + x.width;
    memset(line + right * kLanes, 0, (columns - right) * kLanes * sizeof(float));
  }
  TransformTiles<Input>(scratch, columns, m, to);
}

void GradientStrip(size_t m, Planes<const float> dy, size_t top, float* scratch, Tiles<float> to) {
  const size_t columns = to.count * m;
  for (size_t i = 0; i < m; ++i) {
    float* line = scratch + i * columns * kLanes;
    const size_t have = top + i < dy.height ? dy.width : 0;
    if (have > 0) LoadRow(dy, top + i, line);
    memset(line + have * kLanes, 0, (columns - have) * kLanes * sizeof(float));
  }
  m == 4 ? TransformTiles<Filter<4>>(scratch, columns, m, to) : TransformTiles<Filter<2>>(scratch, columns, m, to);
}

/// Transform a tile of products into kSize x kSize results: put(i, j, result).
template <size_t kSize, class Get, class Put>
HWY_INLINE void Results(const Get& get, const Put& put) {
  V half[kSize][kTile];
  for (size_t j = 0; j < kTile; ++j) {
    V from[kTile], result[kSize];
    for (size_t i = 0; i < kTile; ++i) from[i] = get(i * kTile + j);
    Output<kSize>::Apply(from, result);
    for (size_t i = 0; i < kSize; ++i) half[i][j] = result[i];
  }
  for (size_t i = 0; i < kSize; ++i) {
    V result[kSize];
    Output<kSize>::Apply(half[i], result);
    for (size_t j = 0; j < kSize; ++j) put(i, j, result[j]);
  }
}

template <size_t kSize>
void OutputTiles(Tiles<const float> from, const float* bias, float* scratch, Planes<float> y, size_t top) {
  const D tag;
  const size_t line = from.count * kSize * kLanes;
  const auto add = bias == nullptr ? hn::Zero(tag) : hn::LoadU(tag, bias);
  for (size_t tile = 0; tile < from.count; ++tile) {
    const float* values = from.data + tile * from.row;
    float* target = scratch + tile * kSize * kLanes;
    Results<kSize>(
        [&](size_t position) { return hn::LoadU(tag, values + position * from.position); },
        [&](size_t i, size_t j, V result) { hn::StoreU(hn::Add(result, add), tag, target + i * line + j * kLanes); });
  }
  for (size_t i = 0; i < kSize && top + i < y.height; ++i) StoreRow(scratch + i * line, y, top + i);
}

void OutputStrip(size_t m, Tiles<const float> from, const float* bias, float* scratch, Planes<float> y, size_t top) {
  m == 4 ? OutputTiles<4>(from, bias, scratch, y, top) : OutputTiles<2>(from, bias, scratch, y, top);
}

// --- Weights ---------------------------------------------------------------------------------------------------------

template <size_t kSize>
void TransformWeights(const float* w, size_t output_step, size_t channel_step, bool flip, size_t outputs,
                      size_t channels, float* to, size_t position) {
  const D tag;
  const size_t count = kSize * kSize;
  HWY_ALIGN float values[count * kLanes];
  for (size_t c = 0; c < channels; ++c) {
    for (size_t half = 0; half < 2; ++half) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const size_t output = half * kLanes + lane;
        const float* from = w + output * output_step + c * channel_step;
        for (size_t i = 0; i < count; ++i) {
          values[i * kLanes + lane] = output < outputs ? from[flip ? count - 1 - i : i] : 0;
        }
      }
      V columns[kTile][kSize];
      for (size_t x = 0; x < kSize; ++x) {
        V from[kSize], result[kTile];
        for (size_t y = 0; y < kSize; ++y) from[y] = hn::Load(tag, values + (y * kSize + x) * kLanes);
        Filter<kSize>::Apply(from, result);
        for (size_t i = 0; i < kTile; ++i) columns[i][x] = result[i];
      }
      for (size_t i = 0; i < kTile; ++i) {
        V result[kTile];
        Filter<kSize>::Apply(columns[i], result);
        float* target = to + i * kTile * position + (2 * c + half) * kLanes;
        for (size_t j = 0; j < kTile; ++j) hn::StoreU(result[j], tag, target + j * position);
      }
    }
  }
}

void Weights(size_t kernel, const float* w, size_t output_step, size_t channel_step, bool flip, size_t outputs,
             size_t channels, float* to, size_t position) {
  kernel == 3 ? TransformWeights<3>(w, output_step, channel_step, flip, outputs, channels, to, position)
              : TransformWeights<5>(w, output_step, channel_step, flip, outputs, channels, to, position);
}

template <size_t kSize>
void AddWeightGradient(const float* from, size_t position, size_t channels, float* dw) {
  const D tag;
  const size_t count = kSize * kSize;
  HWY_ALIGN float values[count * kLanes];
  for (size_t first = 0; first < channels; first += kLanes) {
    Results<kSize>([&](size_t i) { return hn::LoadU(tag, from + i * position + first); },
                   [&](size_t y, size_t x, V result) { hn::Store(result, tag, values + (y * kSize + x) * kLanes); });
    const size_t lanes = channels - first < kLanes ? channels - first : kLanes;
    for (size_t lane = 0; lane < lanes; ++lane) {
      for (size_t i = 0; i < count; ++i) dw[(first + lane) * count + i] += values[i * kLanes + lane];
    }
  }
}

void WeightGradient(size_t kernel, const float* from, size_t position, size_t channels, float* dw) {
  kernel == 3 ? AddWeightGradient<3>(from, position, channels, dw) : AddWeightGradient<5>(from, position, channels, dw);
}

// --- Products --------------------------------------------------------------------------------------------------------

template <size_t kCount>
void MultiplyRows(size_t depth, const float* a, size_t a_row, size_t a_step, const float* b, size_t b_step, float* to,
                  size_t to_row, bool add) {
  const D tag;
  V low[kCount], high[kCount];
#pragma GCC unroll 16
  for (size_t r = 0; r < kCount; ++r) {
    low[r] = add ? hn::LoadU(tag, to + r * to_row) : hn::Zero(tag);
    high[r] = add ? hn::LoadU(tag, to + r * to_row + kLanes) : hn::Zero(tag);
  }
  for (size_t d = 0; d < depth; ++d) {
    const auto b0 = hn::LoadU(tag, b + d * b_step), b1 = hn::LoadU(tag, b + d * b_step + kLanes);
    const float* column = a + d * a_step;
#pragma GCC unroll 16
    for (size_t r = 0; r < kCount; ++r) {
      const auto value = hn::Set(tag, column[r * a_row]);
      low[r] = hn::MulAdd(value, b0, low[r]);
      high[r] = hn::MulAdd(value, b1, high[r]);
    }
  }
#pragma GCC unroll 16
  for (size_t r = 0; r < kCount; ++r) {
    hn::StoreU(low[r], tag, to + r * to_row);
    hn::StoreU(high[r], tag, to + r * to_row + kLanes);
  }
}

template <size_t kCount>
void MultiplyUpTo(size_t rows, size_t depth, const float* a, size_t a_row, size_t a_step, const float* b, size_t b_step,
                  float* to, size_t to_row, bool add) {
  if (rows == kCount) {
    MultiplyRows<kCount>(depth, a, a_row, a_step, b, b_step, to, to_row, add);
  } else if constexpr (kCount > 1) {
    MultiplyUpTo<kCount - 1>(rows, depth, a, a_row, a_step, b, b_step, to, to_row, add);
  }
}

Kernels Make() {
  return {kLanes, kRows, &InputStrip, &GradientStrip, &OutputStrip, &Weights, &WeightGradient, &MultiplyUpTo<kRows>};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace winograd
}  // namespace caffe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace caffe {
namespace winograd {

HWY_EXPORT(Make);

Kernels BestKernels() { return HWY_DYNAMIC_DISPATCH(Make)(); }

}  // namespace winograd
}  // namespace caffe

#endif  // HWY_ONCE
