// Quotients that are rounded up.
#pragma once

#include <cstddef>

namespace caffe {

inline size_t DivideUp(size_t a, size_t b) { return (a + b - 1) / b; }

/// The first multiple of b that is not below a.
inline size_t RoundUp(size_t a, size_t b) { return DivideUp(a, b) * b; }

}  // namespace caffe
