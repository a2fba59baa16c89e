// Text that Python can show: prototxts and file names may hold any bytes.

#ifndef CAFFE_LAYERS_COMPAT_UTF8_HPP_
#define CAFFE_LAYERS_COMPAT_UTF8_HPP_

#include <string>

namespace caffe {

bool IsUtf8(const std::string& text);

/// `text` with a ? in place of each byte that is not part of a UTF-8 character.
std::string ToUtf8(const std::string& text);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_UTF8_HPP_
