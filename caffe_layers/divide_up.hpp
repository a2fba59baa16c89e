// Division with rounding up.
#ifndef CAFFE_DIVIDE_UP_HPP_
#define CAFFE_DIVIDE_UP_HPP_

#include <cstddef>

namespace caffe {

inline size_t DivideUp(size_t a, size_t b) { return (a + b - 1) / b; }

/// The smallest multiple of b that is at least a.
inline size_t RoundUp(size_t a, size_t b) { return DivideUp(a, b) * b; }

}  // namespace caffe

#endif  // CAFFE_DIVIDE_UP_HPP_
