#include "datum_view.hpp"

#include <glog/logging.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <limits>
#include <opencv2/imgcodecs.hpp>
#include <string>

namespace caffe {
namespace {

using google::protobuf::internal::WireFormatLite;

uint32_t Tag(int field, WireFormatLite::WireType type) { return WireFormatLite::MakeTag(field, type); }

/// Return false if the message contains more than integers and data; protobuf must then parse it.
bool ReadPlain(const void* bytes, size_t size, DatumView* view) {
  google::protobuf::io::CodedInputStream input(static_cast<const uint8_t*>(bytes), static_cast<int>(size));
  while (const uint32_t tag = input.ReadTag()) {
    if (tag == Tag(Datum::kDataFieldNumber, WireFormatLite::WIRETYPE_LENGTH_DELIMITED)) {
      uint32_t length;
      const void* data;
      int left;
      if (!input.ReadVarint32(&length) || length > static_cast<uint32_t>(input.BytesUntilTotalBytesLimit()))
        return false;
      view->data_size = length;
      if (length == 0) continue;
      if (!input.GetDirectBufferPointer(&data, &left) || static_cast<uint32_t>(left) < length) return false;
      view->data = static_cast<const uint8_t*>(data);
      input.Skip(length);
      continue;
    }
    uint64_t value;
    if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_VARINT || !input.ReadVarint64(&value))
      return false;
    const int number = static_cast<int>(value);
    switch (WireFormatLite::GetTagFieldNumber(tag)) {
      case Datum::kChannelsFieldNumber:
        view->channels = number;
        break;
      case Datum::kHeightFieldNumber:
        view->height = number;
        break;
      case Datum::kWidthFieldNumber:
        view->width = number;
        break;
      case Datum::kLabelFieldNumber:
        view->label = number;
        break;
      case Datum::kEncodedFieldNumber:
        view->encoded = value != 0;
        break;
      default:
        return false;
    }
  }
  return input.ConsumedEntireMessage();
}

}  // namespace

DatumView::DatumView(const void* bytes, size_t size) {
  LOG_IF(FATAL, size > static_cast<size_t>(std::numeric_limits<int>::max()))
      << "it is not a Datum: it has " << size << " bytes";
  if (ReadPlain(bytes, size, this)) return;
  static thread_local Datum datum;
  LOG_IF(FATAL, !datum.ParseFromArray(bytes, static_cast<int>(size))) << "it is not a Datum";
  channels = datum.channels();
  height = datum.height();
  width = datum.width();
  label = datum.label();
  encoded = datum.encoded();
  data = reinterpret_cast<const uint8_t*>(datum.data().data());
  data_size = datum.data().size();
  float_data = datum.float_data().data();
  float_data_size = datum.float_data_size();
}

cv::Mat DecodePicture(const DatumView& datum, const TransformationParameter& transform) {
  LOG_IF(FATAL, datum.data_size == 0) << "it is an encoded Datum without data";
  const cv::Mat encoded(1, static_cast<int>(datum.data_size), CV_8UC1, const_cast<uint8_t*>(datum.data));
  const cv::Mat picture = cv::imdecode(encoded, transform.force_color()  ? cv::IMREAD_COLOR
                                                : transform.force_gray() ? cv::IMREAD_GRAYSCALE
                                                                         : cv::IMREAD_UNCHANGED);
  LOG_IF(FATAL, picture.empty()) << "its image does not decode";
  LOG_IF(FATAL, picture.depth() != CV_8U) << "its image has more than 8 bits per value: convert it to 8";
  return picture;
}

void CheckCount(const DatumView& datum, const char* what, size_t count) {
  LOG_IF(FATAL, count != static_cast<uint64_t>(datum.channels) * datum.height * datum.width)
      << "it has " << count << " " << what << " for a shape of "
      << ShapeString(datum.channels, datum.height, datum.width);
}

std::string ShapeString(int channels, int height, int width) {
  return std::to_string(channels) + " x " + std::to_string(height) + " x " + std::to_string(width);
}

}  // namespace caffe
