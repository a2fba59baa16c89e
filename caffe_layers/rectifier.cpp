// The rectifier kernels on the CPU. Highway compiles the code between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE once
// per instruction set and selects one at run time; OpenMP distributes the pieces.

#include "rectifier.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rectifier.cpp"
#include <hwy/foreach_target.h>
// must follow foreach_target.h
#include <hwy/highway.h>

#ifndef CAFFE_RECTIFIER_KERNELS_
#define CAFFE_RECTIFIER_KERNELS_
namespace caffe {
namespace {

/// The kernels of one instruction set, each for one piece of the arrays.
template <typename T>
struct Kernels {
  void (*forward)(bool stream, bool one_slope, const T* slopes, const T* x, T* y, T* kept, size_t count);
  /// @return the sum of the piece
  double (*backward_one)(bool stream, bool to_slopes, T slope, const T* x, const T* dy, T* dx, size_t count);
  void (*backward_many)(bool stream, const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count,
                        size_t rows, size_t period);
};

}  // namespace
}  // namespace caffe
#endif  // CAFFE_RECTIFIER_KERNELS_

HWY_BEFORE_NAMESPACE();
namespace caffe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// The slope of each value of a run: one for all, or an array.
template <typename T>
struct OneSlope {
  T value;
  T operator[](size_t) const { return value; }
  template <class D>
  hn::Vec<D> Load(D d, size_t) const {
    return hn::Set(d, value);
  }
};
template <typename T>
struct ManySlopes {
  const T* values;
  T operator[](size_t i) const { return values[i]; }
  template <class D>
  hn::Vec<D> Load(D d, size_t i) const {
    return hn::LoadU(d, values + i);
  }
};

/// The number of values before the first address that Stream() may write to.
template <class D, typename T>
size_t Unaligned(D d, const T* to, size_t count) {
  const size_t bytes = hn::Lanes(d) * sizeof(T);
  const size_t head = (bytes - reinterpret_cast<uintptr_t>(to) % bytes) % bytes / sizeof(T);
  return head < count ? head : count;
}

template <bool kStream, class D, typename T>
void Put(hn::Vec<D> values, D d, T* to) {
  if (kStream) {
    hn::Stream(values, d, to);
  } else {
    hn::StoreU(values, d, to);
  }
}

/// A run of y. With kStream, non-temporal stores write y or, with kKeep, the copy of x.
template <bool kStream, bool kKeep, class Slopes, typename T>
void ForwardRun(const Slopes& slopes, const T* x, T* y, T* kept, size_t count) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  const auto single = [&](size_t i) {
    const T value = x[i];
    if (kKeep) kept[i] = value;
    y[i] = value > 0 ? value : slopes[i] * value;
  };
  size_t i = 0;
  if (kStream) {
    for (const size_t head = Unaligned(d, kKeep ? kept : y, count); i < head; ++i) single(i);
  }
  for (; i + lanes <= count; i += lanes) {
    const auto value = hn::LoadU(d, x + i);
    const auto out = hn::IfThenElse(hn::Gt(value, zero), value, hn::Mul(slopes.Load(d, i), value));
    if (kKeep) Put<kStream>(value, d, kept + i);
    Put<kStream && !kKeep>(out, d, y + i);
  }
  for (; i < count; ++i) single(i);
}

template <bool kStream, bool kKeep, typename T>
void Forward(bool one_slope, const T* slopes, const T* x, T* y, T* kept, size_t count) {
  if (one_slope) {
    ForwardRun<kStream, kKeep>(OneSlope<T>{*slopes}, x, y, kept, count);
  } else {
    ForwardRun<kStream, kKeep>(ManySlopes<T>{slopes}, x, y, kept, count);
  }
}

/// A run of dx with one slope; returns the sum of x dy over the values x <= 0. Value i is added to partial sum i modulo
/// 4 x lanes, for any alignment of dx, so that the bits do not depend on it.
template <bool kStream, bool kToBottom, bool kToSlopes, typename T>
double BackwardOne(T slope, const T* x, const T* dy, T* dx, size_t count) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d), sums = 4 * lanes;
  const auto zero = hn::Zero(d);
  const auto slopes = hn::Set(d, slope);
  const size_t head = kStream ? Unaligned(d, dx, count) : 0;
  T parts[4 * hn::MaxLanes(d)] = {};  // sum i at (i + sums - head) modulo sums: vectors start at value `head`
  const auto part = [&](size_t i) -> T& { return parts[(i + sums - head) % sums]; };
  const auto single = [&](size_t i) {
    const T value = x[i], gradient = dy[i];
    if (kToSlopes) part(i) += value > 0 ? T(0) : value * gradient;
    if (kToBottom) dx[i] = value > 0 ? gradient : slope * gradient;
  };
  const auto vector = [&](size_t i, hn::Vec<decltype(d)>& sum) {
    const auto value = hn::LoadU(d, x + i);
    const auto gradient = hn::LoadU(d, dy + i);
    const auto positive = hn::Gt(value, zero);
    if (kToSlopes) sum = hn::Add(sum, hn::IfThenZeroElse(positive, hn::Mul(value, gradient)));
    if (kToBottom) Put<kStream>(hn::IfThenElse(positive, gradient, hn::Mul(slopes, gradient)), d, dx + i);
  };
  size_t i = 0;
  for (; i < head; ++i) single(i);
  auto sum0 = hn::LoadU(d, parts), sum1 = hn::LoadU(d, parts + lanes);
  auto sum2 = hn::LoadU(d, parts + 2 * lanes), sum3 = hn::LoadU(d, parts + 3 * lanes);
  for (; i + sums <= count; i += sums) {  // four independent sums hide the latency of additions
    vector(i, sum0);
    vector(i + lanes, sum1);
    vector(i + 2 * lanes, sum2);
    vector(i + 3 * lanes, sum3);
  }
  if (i + lanes <= count) vector(i, sum0), i += lanes;
  if (i + lanes <= count) vector(i, sum1), i += lanes;
  if (i + lanes <= count) vector(i, sum2), i += lanes;
  hn::StoreU(sum0, d, parts);
  hn::StoreU(sum1, d, parts + lanes);
  hn::StoreU(sum2, d, parts + 2 * lanes);
  hn::StoreU(sum3, d, parts + 3 * lanes);
  for (; i < count; ++i) single(i);
  double total = 0;
  for (size_t s = 0; s < sums; ++s) total += part(s);
  return total;
}

/// kRows runs of dx, `period` values apart, with the same array of slopes. The terms x dy are added to `sums`, an array
/// like `slopes`, row by row.
template <bool kStream, bool kToBottom, bool kToSlopes, int kRows, typename T>
void BackwardRows(const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count, size_t period) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  const auto single = [&](size_t i) {
    for (int r = 0; r < kRows; ++r) {
      const T value = x[i + r * period], gradient = dy[i + r * period];
      if (kToSlopes) sums[i] += value > 0 ? T(0) : value * gradient;
      if (kToBottom) dx[i + r * period] = value > 0 ? gradient : slopes[i] * gradient;
    }
  };
  size_t i = 0;
  if (kStream) {
    for (const size_t head = Unaligned(d, dx, count); i < head; ++i) single(i);
  }
  for (; i + lanes <= count; i += lanes) {
    const auto slope = hn::LoadU(d, slopes + i);
    auto sum = kToSlopes ? hn::LoadU(d, sums + i) : zero;
    for (int r = 0; r < kRows; ++r) {
      const auto value = hn::LoadU(d, x + i + r * period);
      const auto gradient = hn::LoadU(d, dy + i + r * period);
      const auto positive = hn::Gt(value, zero);
      if (kToSlopes) sum = hn::Add(sum, hn::IfThenZeroElse(positive, hn::Mul(value, gradient)));
      if (kToBottom) {
        Put<kStream>(hn::IfThenElse(positive, gradient, hn::Mul(slope, gradient)), d, dx + i + r * period);
      }
    }
    if (kToSlopes) hn::StoreU(sum, d, sums + i);
  }
  for (; i < count; ++i) single(i);
}

template <bool kStream, bool kToBottom, bool kToSlopes, typename T>
void BackwardMany(const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count, size_t rows, size_t period) {
  size_t r = 0;
  const auto at = [&](auto* values) { return values == nullptr ? nullptr : values + r * period; };
  if (!kStream) {  // non-temporal stores must fill one line after the other
    for (; r + 2 <= rows; r += 2) {
      BackwardRows<false, kToBottom, kToSlopes, 2>(slopes, at(x), at(dy), at(dx), sums, count, period);
    }
  }
  for (; r < rows; ++r) {
    BackwardRows<kStream, kToBottom, kToSlopes, 1>(slopes, at(x), at(dy), at(dx), sums, count, period);
  }
}

template <typename T>
void ForwardAny(bool stream, bool one_slope, const T* slopes, const T* x, T* y, T* kept, size_t count) {
  if (kept == nullptr) {
    stream ? Forward<true, false>(one_slope, slopes, x, y, kept, count)
           : Forward<false, false>(one_slope, slopes, x, y, kept, count);
  } else {
    stream ? Forward<true, true>(one_slope, slopes, x, y, kept, count)
           : Forward<false, true>(one_slope, slopes, x, y, kept, count);
  }
}

template <typename T>
double BackwardOneAny(bool stream, bool to_slopes, T slope, const T* x, const T* dy, T* dx, size_t count) {
  if (dx == nullptr) return BackwardOne<false, false, true>(slope, x, dy, dx, count);
  if (stream) {
    return to_slopes ? BackwardOne<true, true, true>(slope, x, dy, dx, count)
                     : BackwardOne<true, true, false>(slope, x, dy, dx, count);
  }
  return to_slopes ? BackwardOne<false, true, true>(slope, x, dy, dx, count)
                   : BackwardOne<false, true, false>(slope, x, dy, dx, count);
}

template <typename T>
void BackwardManyAny(bool stream, const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count, size_t rows,
                     size_t period) {
  if (dx == nullptr) {
    BackwardMany<false, false, true>(slopes, x, dy, dx, sums, count, rows, period);
  } else if (stream) {
    sums != nullptr ? BackwardMany<true, true, true>(slopes, x, dy, dx, sums, count, rows, period)
                    : BackwardMany<true, true, false>(slopes, x, dy, dx, sums, count, rows, period);
  } else {
    sums != nullptr ? BackwardMany<false, true, true>(slopes, x, dy, dx, sums, count, rows, period)
                    : BackwardMany<false, true, false>(slopes, x, dy, dx, sums, count, rows, period);
  }
}

template <typename T>
Kernels<T> MakeKernels() {
  return {&ForwardAny<T>, &BackwardOneAny<T>, &BackwardManyAny<T>};
}
Kernels<float> Kernels32() { return MakeKernels<float>(); }
Kernels<double> Kernels64() { return MakeKernels<double>(); }

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace caffe
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <hwy/cache_control.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "divide_up.hpp"

namespace caffe {
namespace {

HWY_EXPORT(Kernels32);
HWY_EXPORT(Kernels64);

template <typename T>
Kernels<T> BestKernels();
template <>
Kernels<float> BestKernels() {
  return HWY_DYNAMIC_DISPATCH(Kernels32)();
}
template <>
Kernels<double> BestKernels() {
  return HWY_DYNAMIC_DISPATCH(Kernels64)();
}

const size_t kPiece = 4096;             // values per thread and step
const size_t kParallelCount = 1 << 17;  // up to this many values a second thread does not pay
const size_t kShortPlane = 512;         // shorter planes are not processed one by one
const size_t kGroups = 16;              // minimum number of independent sums

/// The size of the last-level cache. Virtual machines may report too much, hence the limit.
size_t CacheBytes() {
  const long size = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t most = size_t(32) << 20;
  return size > 0 ? std::min(static_cast<size_t>(size), most) : most;
}

/// The division of the values into pieces with one slope (long planes) or an array of slopes (short planes; a piece is
/// one or more images, or a part of an image that has too many values).
template <typename T>
struct Pieces {
  size_t count;    // total values
  bool one_slope;  // per piece
  size_t period;   // distance after which the slopes repeat: a plane, or whole images
  size_t parts;    // pieces per period
  size_t periods;  // the last may be incomplete
  size_t channels;
  std::vector<T> expanded;  // slopes of a period, if they differ from the caller's array
  const T* slopes;

  Pieces(size_t outer, size_t channel_count, size_t inner, const T* values)
      : count(outer * channel_count * inner),
        one_slope(inner >= kShortPlane || channel_count == 1),
        channels(channel_count),
        slopes(values) {
    if (one_slope) {
      period = channels == 1 ? count : inner;
    } else {
      const size_t image = channels * inner;
      const size_t images = std::max<size_t>(1, std::min(outer, kPiece / image));
      period = image * images;
      if (period != channels) {
        expanded.reserve(period);
        for (size_t i = 0; i < images; ++i) {
          for (size_t c = 0; c < channels; ++c) expanded.insert(expanded.end(), inner, values[c]);
        }
        slopes = expanded.data();
      }
    }
    parts = DivideUp(period, kPiece);
    periods = DivideUp(count, period);
  }

  size_t begin(size_t p, size_t part) const { return p * period + part * kPiece; }
  size_t size(size_t p, size_t part) const {
    const size_t end = std::min({(p + 1) * period, begin(p, part) + kPiece, count});
    return end > begin(p, part) ? end - begin(p, part) : 0;
  }
  const T* slopes_of(size_t p, size_t part) const { return one_slope ? slopes + p % channels : slopes + part * kPiece; }
};

}  // namespace

size_t& RectifierCacheBytes() {
  static size_t bytes = CacheBytes();
  return bytes;
}

template <typename Dtype>
void RectifierForward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                      Dtype* kept) {
  if (outer * channels * inner == 0) return;
  const Kernels<Dtype> kernels = BestKernels<Dtype>();
  const Pieces<Dtype> pieces(outer, channels, inner, slopes);
  // Only arrays that are not read in the same pass can bypass the cache.
  const bool stream = (kept != nullptr || y != x) && 2 * pieces.count * sizeof(Dtype) > RectifierCacheBytes();
#pragma omp parallel if (pieces.count > kParallelCount)
  {
#pragma omp for collapse(2) schedule(static)
    for (size_t p = 0; p < pieces.periods; ++p) {
      for (size_t part = 0; part < pieces.parts; ++part) {
        const size_t begin = pieces.begin(p, part);
        kernels.forward(stream, pieces.one_slope, pieces.slopes_of(p, part), x + begin, y + begin,
                        kept == nullptr ? nullptr : kept + begin, pieces.size(p, part));
      }
    }
    if (stream) hwy::FlushStream();
  }
}

template <typename Dtype>
void RectifierBackward(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                       const Dtype* dy, Dtype* dx, Dtype* dslopes) {
  if (outer * channels * inner == 0 || (dx == nullptr && dslopes == nullptr)) return;
  const Kernels<Dtype> kernels = BestKernels<Dtype>();
  const Pieces<Dtype> pieces(outer, channels, inner, slopes);
  const bool stream = dx != nullptr && dx != dy && 3 * pieces.count * sizeof(Dtype) > RectifierCacheBytes();
  const bool parallel = pieces.count > kParallelCount;
  const auto dx_at = [&](size_t begin) { return dx == nullptr ? nullptr : dx + begin; };

  if (pieces.one_slope) {
    std::vector<double> sums(dslopes == nullptr ? 0 : pieces.periods * pieces.parts);
#pragma omp parallel if (parallel)
    {
#pragma omp for collapse(2) schedule(static)
      for (size_t p = 0; p < pieces.periods; ++p) {
        for (size_t part = 0; part < pieces.parts; ++part) {
          const size_t begin = pieces.begin(p, part);
          const double sum = kernels.backward_one(stream, dslopes != nullptr, *pieces.slopes_of(p, part), x + begin,
                                                  dy + begin, dx_at(begin), pieces.size(p, part));
          if (dslopes != nullptr) sums[p * pieces.parts + part] = sum;
        }
      }
      if (stream) hwy::FlushStream();
    }
    if (dslopes == nullptr) return;
    for (size_t c = 0; c < channels; ++c) {
      long double sum = 0;  // many pieces of many sizes and both signs
      for (size_t p = c; p < pieces.periods; p += channels) {
        for (size_t part = 0; part < pieces.parts; ++part) sum += sums[p * pieces.parts + part];
      }
      dslopes[c] += static_cast<Dtype>(sum);
    }
    return;
  }

  // One sum per value of a period. Periods are divided into groups, which gives work to many threads and limits a sum
  // to 128 terms.
  const size_t groups =
      std::max(DivideUp(pieces.periods, 128), std::min(pieces.periods, DivideUp(kGroups, pieces.parts)));
  const size_t in_group = DivideUp(pieces.periods, groups);
  std::vector<Dtype> sums(dslopes == nullptr ? 0 : groups * pieces.period);
#pragma omp parallel if (parallel)
  {
#pragma omp for collapse(2) schedule(static)
    for (size_t group = 0; group < groups; ++group) {
      for (size_t part = 0; part < pieces.parts; ++part) {
        Dtype* to = dslopes == nullptr ? nullptr : sums.data() + group * pieces.period + part * kPiece;
        // The last row may be incomplete and is then processed separately.
        const size_t first = group * in_group, end = std::min(pieces.periods, first + in_group);
        for (size_t p = first; p < end;) {
          const size_t size = pieces.size(p, part);
          const size_t rows = p + 1 < end ? end - p - (pieces.size(end - 1, part) < size) : 1;
          const size_t begin = pieces.begin(p, part);
          kernels.backward_many(stream, pieces.slopes_of(p, part), x + begin, dy + begin, dx_at(begin), to, size, rows,
                                pieces.period);
          p += rows;
        }
      }
    }
    if (stream) hwy::FlushStream();
  }
  if (dslopes == nullptr) return;
  std::vector<double> totals(pieces.period);
  for (size_t group = 0; group < groups; ++group) {
    for (size_t i = 0; i < pieces.period; ++i) totals[i] += sums[group * pieces.period + i];
  }
  for (size_t c = 0; c < channels; ++c) {
    long double sum = 0;
    for (size_t begin = c * inner; begin < pieces.period; begin += channels * inner) {
      for (size_t i = begin; i < begin + inner; ++i) sum += totals[i];
    }
    dslopes[c] += static_cast<Dtype>(sum);
  }
}

template void RectifierForward(size_t, size_t, size_t, const float*, const float*, float*, float*);
template void RectifierForward(size_t, size_t, size_t, const double*, const double*, double*, double*);
template void RectifierBackward(size_t, size_t, size_t, const float*, const float*, const float*, float*, float*);
template void RectifierBackward(size_t, size_t, size_t, const double*, const double*, const double*, double*, double*);

}  // namespace caffe

#endif  // HWY_ONCE
