// The rectifier kernels on the GPU. Neither of the two traversals divides per value:
//   planes   long planes: a warp processes a piece of one plane, which has one slope
//   columns  short planes: the arrays are rows of whole images. A thread processes a column, or the adjacent columns of
//            16 bytes, over some rows, and keeps their slopes and sums in registers

#include "rectifier_gpu.hpp"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace caffe {
namespace {

typedef int64_t Index;

const int kThreads = 256;      // per block
const int kSumThreads = 1024;  // per block of AddSumsKernel
const int kMaxBlocks = 4096;   // several waves on every device; blocks then loop over the remaining pieces
const int kWarp = 32;
const int kBatch = 4;  // concurrent loads per array and thread
const int kVectorBytes = 16;
const Index kShortPlane = 512;        // shorter planes are processed by columns
const Index kPieceVectors = 512;      // of a plane, per warp
const Index kOnePlanePieces = 32768;  // limit for a single plane, whose sums one block adds
const Index kRowValues = 4096;        // minimum length of a row, if there are as many values
const Index kMaxRows = 16;            // of a column, per thread
const Index kManyThreads = 131072;    // if there are enough columns for these, threads process more rows

Index DivideUp(Index a, Index b) { return (a + b - 1) / b; }
Index RoundUp(Index a, Index b) { return DivideUp(a, b) * b; }

/// The division of the values. It depends only on the sizes, and so do the sums.
struct Partition {
  Index count, channels, inner;
  bool by_planes;
  Index parts, part;             // planes: pieces per plane, values per piece
  Index period, rows, groups;    // columns: values per row, rows per group, groups
  Index sums_outer, sums_inner;  // the sums are sums_outer x channels x sums_inner

  Partition(Index outer, Index channel_count, Index inner_count, int vector)
      : count(outer * channel_count * inner_count), channels(channel_count), inner(inner_count) {
    by_planes = inner >= kShortPlane || channels == 1;
    if (by_planes) {
      if (channels == 1) {
        inner = count;
        outer = 1;
      }
      parts = DivideUp(inner, kPieceVectors * vector);
      if (channels == 1) parts = std::min(parts, kOnePlanePieces);
      part = RoundUp(DivideUp(inner, parts), vector);
      parts = DivideUp(inner, part);
      period = rows = groups = 0;
      sums_outer = outer;
      sums_inner = parts;
    } else {
      const Index image = channels * inner;
      Index whole = 1;  // images that fill whole vectors
      while (whole * image % vector != 0) whole *= 2;
      const Index images = RoundUp(std::min(DivideUp(kRowValues, image), outer), whole);
      period = images * image;
      const Index all_rows = DivideUp(count + vector - 1, period);  // the first vector may start before the first value
      rows = std::min(std::max<Index>(all_rows * period / vector / kManyThreads, 1), kMaxRows);
      rows = RoundUp(rows, kBatch);
      groups = DivideUp(all_rows, rows);
      parts = part = 0;
      sums_outer = groups * images;
      sums_inner = inner;
    }
  }

  __host__ __device__ Index sums() const { return sums_outer * channels * sums_inner; }
};

template <typename T, int kLanes>
struct alignas(kLanes * sizeof(T)) Pack {
  T at[kLanes];
};

template <int kLanes, typename T>
__device__ Pack<T, kLanes> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, kLanes>*>(from);
}

template <int kLanes, typename T>
__device__ void StorePack(const Pack<T, kLanes>& pack, T* to) {
  *reinterpret_cast<Pack<T, kLanes>*>(to) = pack;
}

/// The operation on kLanes adjacent values. Loading is separate, because a batch is loaded before any of it is written
/// and outputs may be inputs.
template <typename T>
struct Forward {
  typedef T Value;
  const T* x;
  T *y, *kept;

  template <int kLanes>
  struct Loaded {
    Pack<T, kLanes> x;
  };

  template <int kLanes>
  __device__ Loaded<kLanes> Load(Index i) const {
    return {LoadPack<kLanes>(x + i)};
  }

  template <int kLanes>
  __device__ void Finish(Index i, const Loaded<kLanes>& in, const T* slopes, T*) const {
    Pack<T, kLanes> out;
#pragma unroll
    for (int e = 0; e < kLanes; ++e) out.at[e] = in.x.at[e] > 0 ? in.x.at[e] : slopes[e] * in.x.at[e];
    if (kept != nullptr) StorePack(in.x, kept + i);
    StorePack(out, y + i);
  }
};

template <typename T>
struct Backward {
  typedef T Value;
  const T *x, *dy;
  T* dx;

  template <int kLanes>
  struct Loaded {
    Pack<T, kLanes> x, dy;
  };

  template <int kLanes>
  __device__ Loaded<kLanes> Load(Index i) const {
    return {LoadPack<kLanes>(x + i), LoadPack<kLanes>(dy + i)};
  }

  template <int kLanes>
  __device__ void Finish(Index i, const Loaded<kLanes>& in, const T* slopes, T* sums) const {
    Pack<T, kLanes> out;
#pragma unroll
    for (int e = 0; e < kLanes; ++e) {
      const T value = in.x.at[e], gradient = in.dy.at[e];
      if (!(value > 0)) sums[e] += value * gradient;
      out.at[e] = value > 0 ? gradient : slopes[e] * gradient;
    }
    if (dx != nullptr) StorePack(out, dx + i);
  }
};

/// kBatch packs from i, `step` values apart, restricted to the values in [begin, end).
template <int kLanes, class Op, typename T>
__device__ void Batch(const Op& op, Index i, Index step, Index begin, Index end, const T (&slopes)[kLanes],
                      T (&sums)[kLanes]) {
  if (i >= begin && i + (kBatch - 1) * step + kLanes <= end) {
    typename Op::template Loaded<kLanes> loaded[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) loaded[b] = op.template Load<kLanes>(i + b * step);
#pragma unroll
    for (int b = 0; b < kBatch; ++b) op.template Finish<kLanes>(i + b * step, loaded[b], slopes, sums);
    return;
  }
#pragma unroll 1
  for (int b = 0; b < kBatch && i < end; ++b, i += step) {
    if (i >= begin && i + kLanes <= end) {
      op.template Finish<kLanes>(i, op.template Load<kLanes>(i), slopes, sums);
    } else {
#pragma unroll
      for (int e = 0; e < kLanes; ++e) {
        if (i + e < begin || i + e >= end) continue;
        op.template Finish<1>(i + e, op.template Load<1>(i + e), slopes + e, sums + e);
      }
    }
  }
}

/// @param shift  offset of the arrays from a multiple of kVectorBytes, in values
/// @param sums   one per piece; may be null
template <int kLanes, class Op, typename T>
__global__ void __launch_bounds__(kThreads)
    PlanesKernel(const Op op, const Partition p, const int shift, const T* slopes, T* sums) {
  const int lane = threadIdx.x % kWarp;
  const Index pieces = p.sums();
  const Index step = static_cast<Index>(gridDim.x) * (kThreads / kWarp);
  for (Index piece = (static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x) / kWarp; piece < pieces; piece += step) {
    const Index plane = piece / p.parts;
    const Index begin = plane * p.inner + piece % p.parts * p.part;
    const Index end = min(begin + p.part, (plane + 1) * p.inner);
    const T slope = slopes[plane % p.channels];
    T slopes_of_pack[kLanes], sums_of_pack[kLanes];
#pragma unroll
    for (int e = 0; e < kLanes; ++e) {
      slopes_of_pack[e] = slope;
      sums_of_pack[e] = 0;
    }
    const Index aligned = begin - (begin + shift) % kLanes;
    for (Index i = aligned + lane * kLanes; i < end; i += kBatch * kWarp * kLanes) {
      Batch(op, i, kWarp * kLanes, begin, end, slopes_of_pack, sums_of_pack);
    }
    if (sums == nullptr) continue;
    T sum = 0;
#pragma unroll
    for (int e = 0; e < kLanes; ++e) sum += sums_of_pack[e];
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    if (lane == 0) sums[piece] = sum;
  }
}

/// @param shift  offset of the arrays from a multiple of kVectorBytes, in values: the first row starts as many before
/// @param sums   one per value of a row and group of rows; may be null
template <int kLanes, class Op, typename T>
__global__ void __launch_bounds__(kThreads)
    ColumnsKernel(const Op op, const Partition p, const int shift, const T* slopes, T* sums) {
  const Index packs = p.period / kLanes;
  const Index step = static_cast<Index>(gridDim.x) * kThreads;
  for (Index n = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x; n < p.groups * packs; n += step) {
    const Index group = n / packs;
    const Index column = n % packs * kLanes;
    const Index place = column >= shift ? column - shift : column - shift + p.period;  // in a row of whole images
    T slopes_of_pack[kLanes], sums_of_pack[kLanes];
    Index channel = place / p.inner;
    Index left = (channel + 1) * p.inner - place;  // values of this channel
    channel %= p.channels;
#pragma unroll
    for (int e = 0; e < kLanes; ++e) {
      slopes_of_pack[e] = slopes[channel];
      sums_of_pack[e] = 0;
      if (--left == 0) {
        left = p.inner;
        channel = channel + 1 < p.channels ? channel + 1 : 0;
      }
    }
    const Index first = group * p.rows * p.period + column - shift;
    for (Index row = 0; row < p.rows; row += kBatch) {
      Batch(op, first + row * p.period, p.period, Index(0), p.count, slopes_of_pack, sums_of_pack);
    }
    if (sums == nullptr) continue;
#pragma unroll
    for (int e = 0; e < kLanes; ++e) {
      const Index at = place + e < p.period ? place + e : place + e - p.period;
      sums[group * p.period + at] = sums_of_pack[e];
    }
  }
}

/// Add the sums (outer x channels x inner) to dslopes. A block processes `together` channels, a power of two.
template <typename T>
__global__ void __launch_bounds__(kSumThreads, 1)
    AddSumsKernel(const Index outer, const Index channels, const Index inner, const int together, const T* sums,
                  T* dslopes) {
  __shared__ double partial[kSumThreads];
  const int threads = kSumThreads / together;  // per channel
  const int thread = threadIdx.x / together;
  const Index outer_step = threads / inner, inner_step = threads % inner;
  for (Index first = static_cast<Index>(blockIdx.x) * together; first < channels;
       first += static_cast<Index>(gridDim.x) * together) {
    const Index channel = first + threadIdx.x % together;
    double sum = 0;
    if (channel < channels) {
      Index i = thread % inner;
#pragma unroll 4
      for (Index o = thread / inner; o < outer; o += outer_step) {
        sum += sums[(o * channels + channel) * inner + i];
        i += inner_step;
        if (i >= inner) {
          i -= inner;
          ++o;
        }
      }
    }
    partial[threadIdx.x] = sum;
    for (int half = threads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half) partial[threadIdx.x] += partial[threadIdx.x + half * together];
    }
    if (thread == 0 && channel < channels) dslopes[channel] += static_cast<T>(partial[threadIdx.x]);
    __syncthreads();  // before the next channels' sums
  }
}

unsigned Blocks(Index wanted) { return static_cast<unsigned>(std::min<Index>(wanted, kMaxBlocks)); }

template <int kLanes, class Op, typename T>
void LaunchPacks(const Op& op, const Partition& p, int shift, const T* slopes, T* sums, cudaStream_t stream) {
  if (p.by_planes) {
    const unsigned blocks = Blocks(DivideUp(p.sums(), kThreads / kWarp));
    PlanesKernel<kLanes><<<blocks, kThreads, 0, stream>>>(op, p, shift, slopes, sums);
  } else {
    const unsigned blocks = Blocks(DivideUp(p.groups * (p.period / kLanes), kThreads));
    ColumnsKernel<kLanes><<<blocks, kThreads, 0, stream>>>(op, p, shift, slopes, sums);
  }
}

/// @param arrays  all arrays that are read or written; may contain null
template <class Op, typename T>
void Launch(const Op& op, const Partition& p, std::initializer_list<const T*> arrays, const T* slopes, T* sums,
            cudaStream_t stream) {
  const auto past = [](const T* array) { return reinterpret_cast<uintptr_t>(array) % kVectorBytes; };
  const uintptr_t first = past(*arrays.begin());
  const bool alike = std::all_of(arrays.begin(), arrays.end(),
                                 [&](const T* array) { return array == nullptr || past(array) == first; });
  if (alike) {
    LaunchPacks<kVectorBytes / sizeof(T)>(op, p, static_cast<int>(first / sizeof(T)), slopes, sums, stream);
  } else {
    LaunchPacks<1>(op, p, 0, slopes, sums, stream);
  }
}

template <typename T>
Partition PartitionOf(size_t outer, size_t channels, size_t inner) {
  return Partition(outer, channels, inner, kVectorBytes / sizeof(T));
}

}  // namespace

template <typename Dtype>
void RectifierForwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x, Dtype* y,
                         Dtype* kept, cudaStream_t stream) {
  if (outer * channels * inner == 0) return;
  Launch<Forward<Dtype>, Dtype>({x, y, kept}, PartitionOf<Dtype>(outer, channels, inner), {x, y, kept}, slopes, nullptr,
                                stream);
}

template <typename Dtype>
size_t RectifierWorkspaceBytes(size_t outer, size_t channels, size_t inner) {
  if (outer * channels * inner == 0) return 0;
  return PartitionOf<Dtype>(outer, channels, inner).sums() * sizeof(Dtype);
}

template <typename Dtype>
void RectifierBackwardGpu(size_t outer, size_t channels, size_t inner, const Dtype* slopes, const Dtype* x,
                          const Dtype* dy, Dtype* dx, Dtype* dslopes, Dtype* workspace, cudaStream_t stream) {
  if (outer * channels * inner == 0 || (dx == nullptr && dslopes == nullptr)) return;
  const Partition p = PartitionOf<Dtype>(outer, channels, inner);
  Launch<Backward<Dtype>, Dtype>({x, dy, dx}, p, {x, dy, dx}, slopes, dslopes == nullptr ? nullptr : workspace, stream);
  if (dslopes == nullptr) return;
  const int together = p.channels < 8 ? 1 : 8;
  AddSumsKernel<<<Blocks(DivideUp(p.channels, together)), kSumThreads, 0, stream>>>(
      p.sums_outer, p.channels, p.sums_inner, together, workspace, dslopes);
}

#define INSTANTIATE_RECTIFIER_GPU(Dtype)                                                                               \
  template void RectifierForwardGpu(size_t, size_t, size_t, const Dtype*, const Dtype*, Dtype*, Dtype*, cudaStream_t); \
  template size_t RectifierWorkspaceBytes<Dtype>(size_t, size_t, size_t);                                              \
  template void RectifierBackwardGpu(size_t, size_t, size_t, const Dtype*, const Dtype*, const Dtype*, Dtype*, Dtype*, \
                                     Dtype*, cudaStream_t)

INSTANTIATE_RECTIFIER_GPU(float);
INSTANTIATE_RECTIFIER_GPU(double);

}  // namespace caffe
