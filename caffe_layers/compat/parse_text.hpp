// Parsing of prototxt with the position of errors.

#ifndef CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_
#define CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_

#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/message.h>

#include <string>

namespace caffe {

/// Parse a prototxt into `message`.
/// @return true; throws caffe::Error with "file:line:column: message" if the text does not parse
bool ParseText(google::protobuf::io::ZeroCopyInputStream* input, const std::string& filename,
               google::protobuf::Message* message);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_
