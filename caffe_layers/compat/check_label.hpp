// Labels as losses take them: a float that points to a class.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_

#include <glog/logging.h>

namespace caffe {

/// The class that `label` names. Throws caffe::Error where it is not one of 0 to classes - 1.
template <typename Dtype>
int CheckLabel(Dtype label, int classes) {
  LOG_IF(FATAL, !(label > -1 && label < classes))  // NaN too
      << "a label is " << label << ": it must be 0 to " << classes - 1;
  return static_cast<int>(label);
}

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_
