// The rectifiers' kernels on the CPU. Highway compiles the part between HWY_BEFORE_NAMESPACE and HWY_AFTER_NAMESPACE
// once for each kind of vector unit and chooses when the program runs; OpenMP shares the pieces out.

#include "rectifier.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "rectifier.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/highway.h>

#ifndef CAFFE_RECTIFIER_KERNELS_
#define CAFFE_RECTIFIER_KERNELS_
namespace caffe {
namespace {

/// The kernels of one kind of vector unit, each for one piece of the arrays.
template <typename T>
struct Kernels {
  void (*forward)(bool one_slope, const T* slopes, const T* x, T* y, size_t count);
  /// @return the sum of the piece
  double (*backward_one)(bool to_slopes, T slope, const T* x, const T* dy, T* dx, size_t count);
  void (*backward_many)(const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count);
  void (*stream_copy)(const T* from, T* to, size_t count);
};

}  // namespace
}  // namespace caffe
#endif  // CAFFE_RECTIFIER_KERNELS_

HWY_BEFORE_NAMESPACE();
namespace caffe {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// The slope of each value of a run: one for all of it, or an array of them.
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

template <class Slopes, typename T>
void ForwardRun(const Slopes& slopes, const T* x, T* y, size_t count) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto value = hn::LoadU(d, x + i);
    hn::StoreU(hn::IfThenElse(hn::Gt(value, zero), value, hn::Mul(slopes.Load(d, i), value)), d, y + i);
  }
  for (; i < count; ++i) y[i] = x[i] > 0 ? x[i] : slopes[i] * x[i];
}

/// dx of a run, and the terms x dy of its values that are not above 0: given to add_vector(i, accumulator, terms) and
/// add_value(i, term).
template <bool kToBottom, bool kToSlopes, class Slopes, typename T, class AddVector, class AddValue>
void BackwardRun(const Slopes& slopes, const T* x, const T* dy, T* dx, size_t count, const AddVector& add_vector,
                 const AddValue& add_value) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  const auto zero = hn::Zero(d);
  const auto vector = [&](size_t i, size_t accumulator) {
    const auto value = hn::LoadU(d, x + i);
    const auto gradient = hn::LoadU(d, dy + i);
    const auto positive = hn::Gt(value, zero);
    if (kToSlopes) add_vector(i, accumulator, hn::IfThenZeroElse(positive, hn::Mul(value, gradient)));
    if (kToBottom) {
      hn::StoreU(hn::IfThenElse(positive, gradient, hn::Mul(slopes.Load(d, i), gradient)), d, dx + i);
    }
  };
  size_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {  // four sums side by side hide the time of an addition
    vector(i, 0);
    vector(i + lanes, 1);
    vector(i + 2 * lanes, 2);
    vector(i + 3 * lanes, 3);
  }
  for (; i + lanes <= count; i += lanes) vector(i, 0);
  for (; i < count; ++i) {
    const T value = x[i], gradient = dy[i];
    if (kToSlopes && !(value > 0)) add_value(i, value * gradient);
    if (kToBottom) dx[i] = value > 0 ? gradient : slopes[i] * gradient;
  }
}

template <typename T>
void Forward(bool one_slope, const T* slopes, const T* x, T* y, size_t count) {
  if (one_slope) {
    ForwardRun(OneSlope<T>{*slopes}, x, y, count);
  } else {
    ForwardRun(ManySlopes<T>{slopes}, x, y, count);
  }
}

/// One slope: the sum of the run is returned.
template <bool kToBottom, bool kToSlopes, typename T>
double BackwardOneRun(T slope, const T* x, const T* dy, T* dx, size_t count) {
  const hn::ScalableTag<T> d;
  auto sum0 = hn::Zero(d), sum1 = sum0, sum2 = sum0, sum3 = sum0;
  double rest = 0;
  BackwardRun<kToBottom, kToSlopes>(
      OneSlope<T>{slope}, x, dy, dx, count,
      [&](size_t, size_t accumulator, hn::Vec<decltype(d)> terms) {
        auto& sum = accumulator == 0 ? sum0 : accumulator == 1 ? sum1 : accumulator == 2 ? sum2 : sum3;
        sum = hn::Add(sum, terms);
      },
      [&](size_t, T term) { rest += term; });
  return rest + hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3))));
}

/// A slope a value: the terms are added to sums, an array beside the slopes.
template <bool kToBottom, bool kToSlopes, typename T>
void BackwardManyRun(const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count) {
  const hn::ScalableTag<T> d;
  BackwardRun<kToBottom, kToSlopes>(
      ManySlopes<T>{slopes}, x, dy, dx, count,
      [&](size_t i, size_t, hn::Vec<decltype(d)> terms) {
        hn::StoreU(hn::Add(hn::LoadU(d, sums + i), terms), d, sums + i);
      },
      [&](size_t i, T term) { sums[i] += term; });
}

template <typename T>
double BackwardOne(bool to_slopes, T slope, const T* x, const T* dy, T* dx, size_t count) {
  if (dx == nullptr) return BackwardOneRun<false, true>(slope, x, dy, dx, count);
  return to_slopes ? BackwardOneRun<true, true>(slope, x, dy, dx, count)
                   : BackwardOneRun<true, false>(slope, x, dy, dx, count);
}

template <typename T>
void BackwardMany(const T* slopes, const T* x, const T* dy, T* dx, T* sums, size_t count) {
  if (dx == nullptr) return BackwardManyRun<false, true>(slopes, x, dy, dx, sums, count);
  sums != nullptr ? BackwardManyRun<true, true>(slopes, x, dy, dx, sums, count)
                  : BackwardManyRun<true, false>(slopes, x, dy, dx, sums, count);
}

/// A copy around the cache.
template <typename T>
void StreamCopy(const T* from, T* to, size_t count) {
  const hn::ScalableTag<T> d;
  const size_t lanes = hn::Lanes(d);
  size_t i = 0;
  for (; i < count && reinterpret_cast<uintptr_t>(to + i) % (lanes * sizeof(T)) != 0; ++i) to[i] = from[i];
  for (; i + lanes <= count; i += lanes) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  for (; i < count; ++i) to[i] = from[i];
}

template <typename T>
Kernels<T> MakeKernels() {
  return {&Forward<T>, &BackwardOne<T>, &BackwardMany<T>, &StreamCopy<T>};
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

const size_t kPiece = 4096;             // values that one thread takes at once
const size_t kParallelCount = 1 << 17;  // up to this many a second thread costs more than it saves
const size_t kShortPlane = 64;          // planes of fewer values are not taken one by one
const size_t kGroups = 16;              // sums that are made side by side, at least

size_t DivideUp(size_t a, size_t b) { return (a + b - 1) / b; }

/// Bytes of the last cache. Virtual machines tell of more than they have: more than this is not believed.
size_t CacheBytes() {
  const long size = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t most = size_t(32) << 20;
  return size > 0 ? std::min(static_cast<size_t>(size), most) : most;
}

/// Where a thread makes a piece that then goes around the cache: what it holds depends on no array's alignment.
template <typename T>
struct alignas(64) Scratch {
  T values[kPiece];
};

/// How the values are cut into pieces of one slope (long planes), or of a slope a value (short ones: there a piece is
/// of whole images, or of a part of an image that has too many values).
template <typename T>
struct Pieces {
  size_t count;    // values in all
  bool one_slope;  // in a piece
  size_t period;   // values after which the slopes start again: a plane, or whole images
  size_t parts;    // pieces in a period
  size_t periods;  // the last may be cut short
  size_t channels;
  std::vector<T> expanded;  // slopes of a period, where they are many and not the caller's
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
  // Only what is not read in the same pass goes around the cache.
  const bool beyond = 2 * pieces.count * sizeof(Dtype) > RectifierCacheBytes();
  const bool stream_kept = beyond && kept != nullptr;
  const bool stream_y = beyond && kept == nullptr && y != x;
#pragma omp parallel if (pieces.count > kParallelCount)
  {
    Scratch<Dtype> scratch;
#pragma omp for collapse(2) schedule(static)
    for (size_t p = 0; p < pieces.periods; ++p) {
      for (size_t part = 0; part < pieces.parts; ++part) {
        const size_t begin = pieces.begin(p, part), size = pieces.size(p, part);
        if (stream_kept) {
          kernels.stream_copy(x + begin, kept + begin, size);
        } else if (kept != nullptr) {
          std::copy_n(x + begin, size, kept + begin);
        }
        Dtype* to = stream_y ? scratch.values : y + begin;
        kernels.forward(pieces.one_slope, pieces.slopes_of(p, part), x + begin, to, size);
        if (stream_y) kernels.stream_copy(to, y + begin, size);
      }
    }
    if (beyond) hwy::FlushStream();
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
  // Where a piece of dx is made, and how it then gets to its place.
  const auto made_at = [&](Scratch<Dtype>* scratch, size_t begin) {
    return dx == nullptr ? nullptr : stream ? scratch->values : dx + begin;
  };
  const auto put = [&](const Scratch<Dtype>& scratch, size_t begin, size_t size) {
    if (stream) kernels.stream_copy(scratch.values, dx + begin, size);
  };

  if (pieces.one_slope) {
    std::vector<double> sums(dslopes == nullptr ? 0 : pieces.periods * pieces.parts);
#pragma omp parallel if (parallel)
    {
      Scratch<Dtype> scratch;
#pragma omp for collapse(2) schedule(static)
      for (size_t p = 0; p < pieces.periods; ++p) {
        for (size_t part = 0; part < pieces.parts; ++part) {
          const size_t begin = pieces.begin(p, part), size = pieces.size(p, part);
          const double sum = kernels.backward_one(dslopes != nullptr, *pieces.slopes_of(p, part), x + begin, dy + begin,
                                                  made_at(&scratch, begin), size);
          put(scratch, begin, size);
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

  // A sum for each value of a period; the periods are cut into groups, so that there is work for many threads and no
  // sum has more than 128 terms.
  const size_t groups =
      std::max(DivideUp(pieces.periods, 128), std::min(pieces.periods, DivideUp(kGroups, pieces.parts)));
  const size_t in_group = DivideUp(pieces.periods, groups);
  std::vector<Dtype> sums(dslopes == nullptr ? 0 : groups * pieces.period);
#pragma omp parallel if (parallel)
  {
    Scratch<Dtype> scratch;
#pragma omp for collapse(2) schedule(static)
    for (size_t group = 0; group < groups; ++group) {
      for (size_t part = 0; part < pieces.parts; ++part) {
        Dtype* to = dslopes == nullptr ? nullptr : sums.data() + group * pieces.period + part * kPiece;
        for (size_t p = group * in_group; p < std::min(pieces.periods, (group + 1) * in_group); ++p) {
          const size_t begin = pieces.begin(p, part), size = pieces.size(p, part);
          kernels.backward_many(pieces.slopes_of(p, part), x + begin, dy + begin, made_at(&scratch, begin), to, size);
          put(scratch, begin, size);
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
