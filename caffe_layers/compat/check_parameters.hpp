// What the messages of nets and solvers are asked before anything is built from them.

#ifndef CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_
#define CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_

#include <google/protobuf/message.h>

namespace caffe {

/// Throws caffe::Error where a value of `message` (a NetParameter or a SolverParameter) is one that no layer or solver
/// can work with: unsigned numbers beyond an int's, text that is not UTF-8, and numbers outside the ranges of
/// check_parameters.cpp. The text names the layer, the field, its value and what is allowed.
/// The nets within a SolverParameter are left out: each is checked when it is built.
void CheckParameters(const google::protobuf::Message& message);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_CHECK_PARAMETERS_HPP_
