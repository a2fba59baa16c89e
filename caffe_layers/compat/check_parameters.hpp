// Checks of net and solver messages before anything is built from them.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_

#include <google/protobuf/message.h>

namespace caffe {

/// Throws caffe::Error if `message` (a NetParameter or SolverParameter) contains a value that no layer or solver
/// supports: unsigned numbers that exceed int, text that is not UTF-8, or numbers outside the ranges in
/// check_parameters.cpp. The error names the layer, the field, its value and the range. Nets inside a SolverParameter
/// are checked when they are built.
void CheckParameters(const google::protobuf::Message& message);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_
