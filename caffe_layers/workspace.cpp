#include "workspace.hpp"

#include <hwy/aligned_allocator.h>

#include <new>

namespace caffe {

float* Workspace(size_t floats) {
  static thread_local hwy::AlignedFreeUniquePtr<float[]> memory;
  static thread_local size_t size = 0;
  if (size < floats) {
    memory.reset();
    size = 0;
    memory = hwy::AllocateAligned<float>(floats);
    if (!memory) throw std::bad_alloc();
    size = floats;
  }
  return memory.get();
}

}  // namespace caffe
