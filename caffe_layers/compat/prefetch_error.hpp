// Passes an error in a data layer's prefetch thread to the thread that waits for a batch.

#ifndef CAFFE_LAYERS_COMPAT_PREFETCH_ERROR_HPP_
#define CAFFE_LAYERS_COMPAT_PREFETCH_ERROR_HPP_

#include <string>

namespace caffe {

/// Store the message of the error that ended the prefetch thread of `layer`.
void KeepPrefetchError(const void* layer, const std::string& message);

/// The stored message of `layer`.
std::string PrefetchError(const void* layer);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_PREFETCH_ERROR_HPP_
