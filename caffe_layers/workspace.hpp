// Memory for intermediate results on the CPU.
#pragma once

#include <cstddef>

namespace caffe {

/// So many floats, aligned for vectors, of the calling thread: the next call in the same thread returns the same memory
/// and may move it. All layers share it, so it is no larger than the layer needs that needs most. It is freed when the
/// thread ends. Throws std::bad_alloc.
float* Workspace(size_t floats);

}  // namespace caffe
