// Include before Highway's headers in files that keep vectors in arrays, which vectors of unknown length do not allow.
// Processors with such vectors (arm64 with SVE) also have NEON, which these files use.
#ifndef CAFFE_FIXED_VECTORS_HPP_
#define CAFFE_FIXED_VECTORS_HPP_

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#endif  // CAFFE_FIXED_VECTORS_HPP_
