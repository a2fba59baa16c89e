// Arrays on the GPU, and the reason if there is none, for the GPU test and benchmark.

#ifndef TESTS_CPP_CUDA_DEVICE_HPP_
#define TESTS_CPP_CUDA_DEVICE_HPP_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace device {

inline void Check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

/// The reason why nothing can run on a GPU; empty if it can.
inline std::string Problem() {
  int count = 0, driver = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no CUDA device: there is no NVIDIA driver";
  if (error != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(error);
  return count == 0 ? "no CUDA device" : "";
}

/// `count` values on the GPU, `offset` values after a multiple of 256 bytes. All bits around them are set, so that Read
/// detects a write outside the array.
template <typename T>
class Array {
 public:
  explicit Array(size_t count, size_t offset = 0)
      : count_(count), first_(kAround + offset), all_(count + offset + 2 * kAround) {
    Check(cudaMalloc(reinterpret_cast<void**>(&memory_), all_ * sizeof(T)));
    Check(cudaMemset(memory_, 0xff, all_ * sizeof(T)));
  }
  explicit Array(const std::vector<T>& values, size_t offset = 0) : Array(values.size(), offset) { Write(values); }
  ~Array() { cudaFree(memory_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* get() const { return memory_ + first_; }

  void Write(const std::vector<T>& values) {
    Check(cudaMemcpy(get(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }

  /// The values, after all work of the GPU.
  std::vector<T> Read() const {
    Check(cudaDeviceSynchronize());
    std::vector<T> all(all_);
    Check(cudaMemcpy(all.data(), memory_, all_ * sizeof(T), cudaMemcpyDeviceToHost));
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(all.data());
    for (size_t i = 0; i < all_ * sizeof(T); ++i) {
      if (i == first_ * sizeof(T)) i += count_ * sizeof(T);
      if (i < all_ * sizeof(T) && bytes[i] != 0xff) throw std::runtime_error("a value outside the array was written");
    }
    return std::vector<T>(all.begin() + first_, all.begin() + first_ + count_);
  }

 private:
  static const size_t kAround = 256 / sizeof(T);
  size_t count_, first_, all_;
  T* memory_ = nullptr;
};

}  // namespace device

#endif  // TESTS_CPP_CUDA_DEVICE_HPP_
