// Shadows upstream's header of this name on the include path and has the same interface for cuDNN 8 and 9. Upstream's
// uses status codes that cuDNN 8 removed.

#ifndef CAFFE_LAYERS_COMPAT_CAFFE_UTIL_CUDNN_HPP_
#define CAFFE_LAYERS_COMPAT_CAFFE_UTIL_CUDNN_HPP_
#ifdef USE_CUDNN

#include <cudnn.h>
#include <glog/logging.h>

#include <string>

#include "caffe/proto/caffe.pb.h"
#include "gpu_settings.hpp"

/// Whether cuDNN's headers have at least this version.
#define CUDNN_VERSION_MIN(major, minor, patch) (CUDNN_VERSION >= (major)*1000 + (minor)*100 + (patch))

/// Throws caffe::Error with cuDNN's message if a call fails.
#define CUDNN_CHECK(condition)                                                                                \
  do {                                                                                                        \
    const cudnnStatus_t cudnn_status = (condition);                                                           \
    LOG_IF(FATAL, cudnn_status != CUDNN_STATUS_SUCCESS) << ::caffe::cudnn::Problem(cudnn_status, #condition); \
  } while (0)

namespace caffe {
namespace cudnn {

/// The description of a failed call: status, function name, and from cuDNN 9 the reason.
std::string Problem(cudnnStatus_t status, const std::string& call);

/// The type of a tensor of Dtype, and pointers to 1 and 0, which cuDNN takes as factors.
template <typename Dtype>
class dataType;
template <>
class dataType<float> {
 public:
  static const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  static float oneval, zeroval;  // defined in upstream's cudnn.cpp
  static const void *one, *zero;
};
template <>
class dataType<double> {
 public:
  static const cudnnDataType_t type = CUDNN_DATA_DOUBLE;
  static double oneval, zeroval;
  static const void *one, *zero;
};

/// The size of one of a blob's four axes for cuDNN: 1 if the blob has fewer; the last one combines all that follow.
template <typename Blob>  // its header includes this one
int AxisOfFour(const Blob& blob, int axis) {
  if (axis >= blob.num_axes()) return 1;
  return axis == 3 ? blob.count(3) : blob.shape(axis);
}

template <typename Dtype>
void createTensor4dDesc(cudnnTensorDescriptor_t* tensor) {
  CUDNN_CHECK(cudnnCreateTensorDescriptor(tensor));
}

/// Describe a contiguous tensor. The descriptor of an empty tensor is left unchanged, because cuDNN rejects size 0.
template <typename Dtype>
void setTensor4dDesc(cudnnTensorDescriptor_t* tensor, int n, int c, int h, int w) {
  if (n == 0 || c == 0 || h == 0 || w == 0) return;
  CUDNN_CHECK(cudnnSetTensor4dDescriptor(*tensor, CUDNN_TENSOR_NCHW, dataType<Dtype>::type, n, c, h, w));
}

template <typename Dtype>
void createPoolingDesc(cudnnPoolingDescriptor_t* pooling, PoolingParameter_PoolMethod method, cudnnPoolingMode_t* mode,
                       int kernel_h, int kernel_w, int pad_h, int pad_w, int stride_h, int stride_w) {
  LOG_IF(FATAL, method != PoolingParameter_PoolMethod_MAX && method != PoolingParameter_PoolMethod_AVE)
      << "cuDNN supports only MAX and AVE pooling: remove engine";
  *mode = method == PoolingParameter_PoolMethod_AVE ? CUDNN_POOLING_AVERAGE_COUNT_INCLUDE_PADDING
          : gpu_settings::Deterministic()           ? CUDNN_POOLING_MAX_DETERMINISTIC
                                                    : CUDNN_POOLING_MAX;
  CUDNN_CHECK(cudnnCreatePoolingDescriptor(pooling));
  CUDNN_CHECK(cudnnSetPooling2dDescriptor(*pooling, *mode, CUDNN_PROPAGATE_NAN, kernel_h, kernel_w, pad_h, pad_w,
                                          stride_h, stride_w));
}

template <typename Dtype>
void createActivationDescriptor(cudnnActivationDescriptor_t* activation, cudnnActivationMode_t mode) {
  CUDNN_CHECK(cudnnCreateActivationDescriptor(activation));
  CUDNN_CHECK(cudnnSetActivationDescriptor(*activation, mode, CUDNN_PROPAGATE_NAN, 0));
}

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
#endif  // CAFFE_LAYERS_COMPAT_CAFFE_UTIL_CUDNN_HPP_
