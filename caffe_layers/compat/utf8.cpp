#include "utf8.hpp"

namespace caffe {
namespace {

/// The length in bytes of the character at `i`; 0 if it is invalid.
int Length(const std::string& text, size_t i) {
  const auto byte = [&](size_t j) { return j < text.size() ? static_cast<unsigned char>(text[j]) : 0u; };
  const unsigned first = byte(i), second = byte(i + 1);
  const int length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
  for (int j = 1; j < length; ++j) {
    if (byte(i + j) >> 6 != 2) return 0;
  }
  // overlong forms, UTF-16 surrogates, and values above the last character
  if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0)) return 0;
  if ((first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90)) return 0;
  return length;
}

}  // namespace

bool IsUtf8(const std::string& text) {
  for (size_t i = 0; i < text.size();) {
    const int length = Length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string ToUtf8(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const int length = Length(text, i);
    result += length == 0 ? "?" : text.substr(i, length);
    i += length == 0 ? 1 : length;
  }
  return result;
}

}  // namespace caffe
