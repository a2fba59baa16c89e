// Writing of weights and solver states: files are complete or do not exist.

#ifndef CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_
#define CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_

#include <google/protobuf/message.h>

#include <string>

namespace caffe {

/// Write `message` in protobuf's binary format to a temporary file next to `filename` and rename it when it is
/// complete. Anything but a regular file (a device, a pipe) is written directly.
/// Throws caffe::Error with the reason (full disk, missing folder, message larger than 2 GB); `filename` is then
/// unchanged and no other file remains.
void WriteWhole(const google::protobuf::Message& message, const std::string& filename);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_WRITE_WHOLE_HPP_
