// Writing weights and solver states so that a file is whole or not there.

#ifndef CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_
#define CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_

#include <google/protobuf/message.h>

#include <string>

namespace caffe {

/// Writes `message` in protobuf's binary format under a temporary name beside `filename` and renames it when it is
/// whole; what is no ordinary file (a device, a pipe) is written as it stands.
/// Throws caffe::Error with the reason (full disk, missing folder, more than the 2 GB of a message); `filename` is then
/// as it was before, and no other file is left.
void WriteWhole(const google::protobuf::Message& message, const std::string& filename);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_
