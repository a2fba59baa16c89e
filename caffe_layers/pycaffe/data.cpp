// Pictures as CropData reads and crops them.

#include "crop_copy.hpp"
#include "datum_view.hpp"
#include "lmdb_records.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

using caffe::LmdbRecords;

uint32_t NumberOf(const LmdbRecords& records, int64_t record) {
  if (record < 0 || record >= records.size()) {
    throw py::index_error("record " + std::to_string(record) + " of " + records.path() + ", which has " +
                          std::to_string(records.size()));
  }
  return static_cast<uint32_t>(record);
}

py::object Key(const LmdbRecords& records, int64_t record) {
  const std::string key = records.key(NumberOf(records, record));
  return py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefaultAndSize(key.data(), key.size()));
}

// Calls read(view) with the Datum of a record; an error names the record.
template <typename Read>
auto WithDatum(const LmdbRecords& records, int64_t record, const Read& read) {
  const uint32_t number = NumberOf(records, record);
  records.CheckWhole();
  try {
    const auto value = records.value(number);
    return read(caffe::DatumView(value.first, value.second));
  } catch (const caffe::Error& error) {
    throw caffe::Error("record " + records.key(number) + " of " + records.path() + ": " + error.what(), error.file(),
                       error.line());
  }
}

int Label(const LmdbRecords& records, int64_t record) {
  return WithDatum(records, record, [](const caffe::DatumView& datum) { return datum.label; });
}

py::array_t<uint8_t> Image(const LmdbRecords& records, int64_t record) {
  return WithDatum(records, record, [](const caffe::DatumView& datum) {
    if (!datum.encoded) {
      LOG_IF(FATAL, datum.channels < 1 || datum.height < 1 || datum.width < 1)
          << "its shape is " << caffe::ShapeString(datum.channels, datum.height, datum.width);
      caffe::CheckCount(datum, "bytes of data", datum.data_size);
      return py::array_t<uint8_t>({datum.channels, datum.height, datum.width}, datum.data);
    }
    caffe::TransformationParameter colour;
    colour.set_force_color(true);
    const cv::Mat picture = caffe::DecodePicture(datum, colour);
    py::array_t<uint8_t> image({3, picture.rows, picture.cols});
    auto to = image.mutable_unchecked<3>();
    for (int h = 0; h < picture.rows; ++h) {
      for (int w = 0; w < picture.cols; ++w) {
        for (int c = 0; c < 3; ++c) to(c, h, w) = picture.ptr(h)[3 * w + c];
      }
    }
    return image;
  });
}

typedef py::array_t<float, py::array::c_style | py::array::forcecast> Floats;

py::array_t<float> CropImage(const py::array& image, int crop_size, const std::optional<Floats>& mean, float scale,
                             bool ten_crop) {
  LOG_IF(FATAL, !py::isinstance<py::array_t<uint8_t>>(image) || image.ndim() != 3)
      << "the image must be uint8 of shape (channels, height, width)";
  const int channels = image.shape(0), height = image.shape(1), width = image.shape(2);
  LOG_IF(FATAL, crop_size < 1 || crop_size > std::min(height, width))
      << "crop_size is " << crop_size << ": expected 1 to " << std::min(height, width) << " for an image of "
      << caffe::ShapeString(channels, height, width);
  const bool is_image = mean && mean->ndim() == 3;
  LOG_IF(FATAL, mean && (is_image ? !std::equal(image.shape(), image.shape() + 3, mean->shape())
                                  : mean->ndim() != 1 || mean->shape(0) != channels))
      << "the mean must have the image's shape, " << caffe::ShapeString(channels, height, width) << ", or " << channels
      << " values";
  const caffe::Picture<uint8_t> picture = {static_cast<const uint8_t*>(image.data()),
                                           channels,
                                           height,
                                           width,
                                           static_cast<int>(image.strides(0)),
                                           static_cast<int>(image.strides(1)),
                                           static_cast<int>(image.strides(2))};
  const caffe::Normalisation<float> normalisation = {is_image ? mean->data() : nullptr,
                                                     mean && !is_image ? mean->data() : nullptr, scale};
  const int count = ten_crop ? caffe::kTenCrops : 1;
  py::array_t<float> crops({count, channels, crop_size, crop_size});
  for (int i = 0; i < count; ++i) {
    const caffe::Crop crop = ten_crop ? caffe::TenCrop(i, height, width, crop_size, crop_size)
                                      : caffe::CentreCrop(height, width, crop_size, crop_size);
    caffe::CopyCrop(picture, crop, crop_size, crop_size, normalisation, crops.mutable_data(i));
  }
  return crops;
}

}  // namespace

void BindData(py::module_* module) {
  py::class_<LmdbRecords, boost::shared_ptr<LmdbRecords>>(*module, "LmdbRecords", Built(),
                                                          R"(The records of an LMDB, in the order of their keys.

    records = caffe.LmdbRecords("data/val.lmdb")
    records.key(0), records.label(0), records.image(0)

`path` is a folder with data.mdb, or a file written with MDB_NOSUBDIR. len(records) is their number. A record that is
not a Datum raises CaffeError, a number out of range IndexError.)")
      .def(py::init([](const Path& path) { return boost::shared_ptr<LmdbRecords>(new LmdbRecords(path.string())); }),
           py::arg("path"))
      .def("__len__", &LmdbRecords::size)
      .def("key", &Key, py::arg("record"), "Key of a record.")
      .def("label", &Label, py::arg("record"), "Label of a record.")
      .def("image", &Image, py::arg("record"),
           "Image of a record, a uint8 array (channels, height, width); encoded ones are decoded to BGR.");
  module->def("crop_image", &CropImage, py::arg("image"), py::arg("crop_size"), py::arg("mean") = py::none(),
              py::arg("scale") = 1.0f, py::arg("ten_crop") = false,
              R"(Crop and normalise an image as CropData does in testing: (image - mean) * scale.

image: uint8 (channels, height, width), of any strides. mean: an image of that shape, or a value per channel. Returns
float32 (1, channels, crop_size, crop_size), the centre; with ten_crop (10, ...), the four corners, the centre and their
mirrors.)");
}

}  // namespace pycaffe
