// The number of values of a blob in a file.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_VALUES_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_VALUES_HPP_

#include <glog/logging.h>

#include "caffe/proto/caffe.pb.h"

namespace caffe {

/// Throws caffe::Error unless `blob` has `count` values and either `count` gradients or none.
inline void CheckValues(const BlobProto& blob, int count) {
  const int values = blob.double_data_size() > 0 ? blob.double_data_size() : blob.data_size();
  LOG_IF(FATAL, values != count) << "a blob has " << values << " values, expected " << count;
  const int gradients = blob.double_diff_size() > 0 ? blob.double_diff_size() : blob.diff_size();
  LOG_IF(FATAL, gradients > 0 && gradients != count) << "a blob has " << gradients << " gradients, expected " << count;
}

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_VALUES_HPP_
