// Text that Python can decode; prototxt and file names may contain any bytes.

#ifndef CAFFE_LAYERS_COMPAT_UTF8_HPP_
#define CAFFE_LAYERS_COMPAT_UTF8_HPP_

#include <string>

namespace caffe {

bool IsUtf8(const std::string& text);

/// `text` with each byte that is not part of a valid UTF-8 character replaced by "?".
std::string ToUtf8(const std::string& text);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_UTF8_HPP_
