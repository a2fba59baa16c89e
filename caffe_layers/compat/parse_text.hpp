// Reading prototxt with errors that say where.

#ifndef CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_
#define CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_

#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <string>

namespace caffe {

/// Parses a prototxt into `message`.
/// @return true: a text that does not parse throws caffe::Error with "file:line:column: what is wrong"
bool ParseText(google::protobuf::io::ZeroCopyInputStream* input, const std::string& filename,
               google::protobuf::Message* message);

/// The same for a text that is at hand; `places` becomes where each field stands.
/// Throws caffe::Error as above.
void ParseText(const std::string& text, const std::string& filename, google::protobuf::Message* message,
               google::protobuf::TextFormat::ParseInfoTree* places);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_PARSE_TEXT_HPP_
