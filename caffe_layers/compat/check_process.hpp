// Layers with threads after a fork.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_PROCESS_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_PROCESS_HPP_

#include <glog/logging.h>
#include <unistd.h>

namespace caffe {

/// Throws caffe::Error in a forked process, which does not have the layer's threads.
inline void CheckProcess(pid_t made_in) {
  LOG_IF(FATAL, getpid() != made_in)
      << "its prefetch threads do not exist in a forked process: build the net after the fork";
}

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_PROCESS_HPP_
