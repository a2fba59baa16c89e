// Scratch memory on the CPU.
#ifndef CAFFE_WORKSPACE_HPP_
#define CAFFE_WORKSPACE_HPP_

#include <cstddef>

namespace caffe {

/// Memory for `floats` values, aligned for vectors, of the calling thread. The next call in the same thread returns the
/// same memory and may move it. All layers share it; it is freed when the thread ends. Throws std::bad_alloc.
float* Workspace(size_t floats);

}  // namespace caffe

#endif  // CAFFE_WORKSPACE_HPP_
