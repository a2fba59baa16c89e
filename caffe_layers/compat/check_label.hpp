// Conversion of labels, which are floats, to classes.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_

#include <glog/logging.h>

namespace caffe {

/// The class of `label`. Throws caffe::Error unless it is in 0 ... classes - 1.
template <typename Dtype>
int CheckLabel(Dtype label, int classes) {
  LOG_IF(FATAL, !(label > -1 && label < classes))  // also true for NaN
      << "label is " << label << ": it must be 0 to " << classes - 1;
  return static_cast<int>(label);
}

/// Throws caffe::Error for the first of `count` labels that is neither valid nor ignored.
template <typename Dtype>
void CheckLabels(const Dtype* labels, int count, int classes, bool has_ignore_label, int ignore_label) {
  for (int i = 0; i < count; ++i) {
    if (has_ignore_label && labels[i] == ignore_label) continue;
    CheckLabel(labels[i], classes);
  }
}

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_LABEL_HPP_
