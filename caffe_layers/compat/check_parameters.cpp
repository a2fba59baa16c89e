#include "check_parameters.hpp"

#include <glog/logging.h>

#include <cstdint>
#include <iomanip>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "utf8.hpp"

namespace caffe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

struct Range {
  double least, most;
};

constexpr double kIntMax = std::numeric_limits<int32_t>::max();
constexpr double kMostSize = 1 << 20;  // of kernels and pads: products with a dilation fit an int
constexpr double kMostAxes = 32;

/// Limits by "Message.field", or by "field" if it means the same in all messages.
const std::map<std::string, Range>& Ranges() {
  static const std::map<std::string, Range> ranges = {
      // divisors
      {"kernel_size", {1, kMostSize}},
      {"kernel_h", {1, kMostSize}},
      {"kernel_w", {1, kMostSize}},
      {"stride", {1, kMostSize}},
      {"stride_h", {1, kMostSize}},
      {"stride_w", {1, kMostSize}},
      {"group", {1, kIntMax}},
      {"SolverParameter.iter_size", {1, kIntMax}},
      // sums and products that are stored in an int
      {"pad", {0, kMostSize}},
      {"pad_h", {0, kMostSize}},
      {"pad_w", {0, kMostSize}},
      {"dilation", {1, 1024}},
      {"LRNParameter.local_size", {1, kMostSize}},
      {"RecurrentParameter.num_output", {0, 1 << 28}},
      {"SPPParameter.pyramid_height", {1, 30}},
      {"axis", {-kMostAxes - 1, kMostAxes}},
      {"end_axis", {-kMostAxes - 1, kMostAxes}},
      {"num_axes", {-1, kMostAxes}},
      {"BlobShape.dim", {-1, kIntMax}},
      // without batches, waiting for one never ends
      {"DataParameter.prefetch", {1, 1024}},
      // shares
      {"DropoutParameter.dropout_ratio", {0, 0.9999999}},
      {"WindowDataParameter.fg_fraction", {0, 1}},
      // the range of random values is stored in a float; with an infinite range, drawing never ends
      {"FillerParameter.value", {-1e38, 1e38}},
      {"FillerParameter.min", {-1e38, 1e38}},
      {"FillerParameter.max", {-1e38, 1e38}},
      {"FillerParameter.mean", {-1e38, 1e38}},
      {"FillerParameter.std", {-1e38, 1e38}},
  };
  return ranges;
}

const Range* RangeOf(const FieldDescriptor& field) {
  auto found = Ranges().find(field.containing_type()->name() + "." + field.name());
  if (found == Ranges().end()) found = Ranges().find(field.name());
  return found == Ranges().end() ? nullptr : &found->second;
}

/// The values of a field, repeated or not, as numbers; false if it is not numeric.
template <typename Visit>
bool ForEachNumber(const Message& message, const FieldDescriptor& field, const Visit& visit) {
  const Reflection& get = *message.GetReflection();
#define CAFFE_NUMBERS(CPPTYPE, Type)                                                                             \
  case FieldDescriptor::CPPTYPE_##CPPTYPE:                                                                       \
    if (!field.is_repeated()) {                                                                                  \
      visit(get.Get##Type(message, &field));                                                                     \
    } else {                                                                                                     \
      for (int i = 0; i < get.FieldSize(message, &field); ++i) visit(get.GetRepeated##Type(message, &field, i)); \
    }                                                                                                            \
    return true
  switch (field.cpp_type()) {
    CAFFE_NUMBERS(INT32, Int32);
    CAFFE_NUMBERS(INT64, Int64);
    CAFFE_NUMBERS(UINT32, UInt32);
    CAFFE_NUMBERS(FLOAT, Float);
    CAFFE_NUMBERS(DOUBLE, Double);
    default:
      return false;
  }
#undef CAFFE_NUMBERS
}

void Check(const Message& message, const std::string& path);

void CheckField(const Message& message, const FieldDescriptor& field, const std::string& path) {
  const Reflection& get = *message.GetReflection();
  const int size = field.is_repeated() ? get.FieldSize(message, &field) : 1;
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    const std::string& type = field.message_type()->name();
    if (type == "NetParameter" || type == "BlobProto") return;
    for (int i = 0; i < size; ++i) {
      const Message& inner =
          field.is_repeated() ? get.GetRepeatedMessage(message, &field, i) : get.GetMessage(message, &field);
      Check(inner, path + field.name() + ".");
    }
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    for (int i = 0; i < size; ++i) {
      const std::string& text =
          field.is_repeated() ? get.GetRepeatedString(message, &field, i) : get.GetString(message, &field);
      CHECK(IsUtf8(text)) << path << field.name() << " is \"" << ToUtf8(text) << "\", which is not UTF-8";
    }
  } else {
    const Range* range = RangeOf(field);
    const bool is_unsigned = field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32;
    if (range == nullptr && !is_unsigned) return;
    const Range allowed = range != nullptr ? *range : Range{0, kIntMax};  // layers store them in an int
    ForEachNumber(message, field, [&](double value) {
      LOG_IF(FATAL, !(value >= allowed.least && value <= allowed.most))  // also true for NaN
          << path << field.name() << " is " << std::setprecision(10) << value << ": it must be " << allowed.least
          << " to " << allowed.most;
    });
  }
}

void Check(const Message& message, const std::string& path) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  std::string here = path;
  if (message.GetDescriptor()->name() == "LayerParameter") {
    const auto text = [&](const char* name) {
      const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
      return ToUtf8(message.GetReflection()->GetString(message, field));
    };
    here = "layer " + text("name") + " (" + text("type") + "): ";
  }
  for (const FieldDescriptor* field : fields) CheckField(message, *field, here);
}

}  // namespace

void CheckParameters(const Message& message) { Check(message, ""); }

}  // namespace caffe
