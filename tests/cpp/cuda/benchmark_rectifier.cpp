// The rectifier kernels compared with the GPU's own copy of as many bytes, timed in the same run:
//
//   rectifier_cuda_benchmark [ROUNDS]
//
// Bytes are those of one pass: forward reads x and writes y, backward reads x and dy and writes dx. Several sets of
// arrays, together four times the cache, are used in turn, so that none is cached from the last call. Times are the
// median of ROUNDS (21) rounds. Exits with 77 if there is no device.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "device.hpp"
#include "rectifier_gpu.hpp"

namespace {

using device::Array;
using device::Check;

const size_t kCalls = 20;  // per round

/// Seconds per call; calls are numbered from 0 in each round.
double Time(int rounds, const std::function<void(size_t)>& call) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  std::vector<float> times;
  for (int round = -2; round < rounds; ++round) {  // two for warm-up
    Check(cudaEventRecord(begin));
    for (size_t i = 0; i < kCalls; ++i) call(i);
    Check(cudaEventRecord(end));
    Check(cudaEventSynchronize(end));
    float milliseconds;
    Check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 0) times.push_back(milliseconds);
  }
  Check(cudaGetLastError());
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2] / 1e3 / kCalls;
}

struct Shape {
  const char* name;
  size_t outer, channels, inner;
};

void Print(const char* name, const char* what, size_t bytes, double time, double copy_time) {
  std::printf("%-22s %-28s %8.1f us %8.1f GB/s %8.2f of copy (%.1f GB/s)\n", name, what, 1e6 * time, bytes / time / 1e9,
              copy_time / time, bytes / copy_time / 1e9);
}

template <typename T>
void Measure(const Shape& s, size_t cache, int rounds) {
  const size_t count = s.outer * s.channels * s.inner;
  const size_t sets = 4 * cache / (3 * count * sizeof(T)) + 1;
  std::vector<std::unique_ptr<Array<T>>> x, dy, dx;
  const std::vector<T> values(2 * count, T(-1));  // a backward pass moves 1.5 times the bytes of a copy
  for (size_t i = 0; i < sets; ++i) {
    for (auto* arrays : {&x, &dy, &dx}) arrays->emplace_back(new Array<T>(values));
  }
  Array<T> slopes(std::vector<T>(s.channels, T(0.25))), dslopes(std::vector<T>(s.channels, T(0)));
  Array<T> workspace(caffe::RectifierWorkspaceBytes<T>(s.outer, s.channels, s.inner) / sizeof(T));
  const auto copy = [&](size_t bytes) {
    return Time(rounds, [&, bytes](size_t i) {
      Check(cudaMemcpyAsync(dx[i % sets]->get(), x[i % sets]->get(), bytes, cudaMemcpyDeviceToDevice, nullptr));
    });
  };
  const auto forward = [&](bool keep) {
    return Time(rounds, [&, keep](size_t i) {
      caffe::RectifierForwardGpu<T>(s.outer, s.channels, s.inner, slopes.get(), x[i % sets]->get(), dx[i % sets]->get(),
                                    keep ? dy[i % sets]->get() : nullptr, nullptr);
    });
  };
  const auto backward = [&](bool to_bottom, bool to_slopes) {
    return Time(rounds, [&, to_bottom, to_slopes](size_t i) {
      caffe::RectifierBackwardGpu<T>(s.outer, s.channels, s.inner, slopes.get(), x[i % sets]->get(),
                                     dy[i % sets]->get(), to_bottom ? dx[i % sets]->get() : nullptr,
                                     to_slopes ? dslopes.get() : nullptr, workspace.get(), nullptr);
    });
  };
  const size_t two = 2 * count * sizeof(T), three = 3 * count * sizeof(T);
  const double copy_two = copy(two / 2), copy_three = copy(three / 2);
  const std::string name = s.name + std::string(sizeof(T) == 4 ? " float" : " double");
  Print(name.c_str(), "forward", two, forward(false), copy_two);
  Print(name.c_str(), "forward, x kept", three, forward(true), copy_three);
  Print(name.c_str(), "backward", three, backward(true, true), copy_three);
  Print(name.c_str(), "backward, frozen slopes", three, backward(true, false), copy_three);
  Print(name.c_str(), "backward, slopes alone", two, backward(false, true), copy_two);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 21;
  if (rounds < 1) {
    std::fprintf(stderr, "ROUNDS is %s, a number from 1 is needed\n", argv[1]);
    return 2;
  }
  const std::string problem = device::Problem();
  if (!problem.empty()) {
    std::printf("Skipped: %s\n", problem.c_str());
    return 77;
  }
  try {
    cudaDeviceProp properties;
    Check(cudaGetDeviceProperties(&properties, 0));
    std::printf("%s, compute capability %d.%d, cache %.0f MB\n", properties.name, properties.major, properties.minor,
                properties.l2CacheSize / 1e6);
    const Shape shapes[] = {{"200x64x56x56", 200, 64, 56 * 56},
                            {"200x256x14x14", 200, 256, 14 * 14},
                            {"200x512x7x7", 200, 512, 7 * 7},
                            {"200x4096", 200, 4096, 1},
                            {"shared 200x64x56x56", 1, 1, 200 * 64 * 56 * 56}};
    for (const Shape& shape : shapes) Measure<float>(shape, properties.l2CacheSize, rounds);
    Measure<double>(shapes[0], properties.l2CacheSize, rounds);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
