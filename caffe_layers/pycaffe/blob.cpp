// Blob, and BlobVec, the parameters of a layer.

#include <boost/make_shared.hpp>
#include <climits>
#include <sstream>

#include "pycaffe.hpp"

namespace pycaffe {
namespace {

// A view that keeps its memory alive, also if the blob grows and allocates another.
py::array View(const Blob& blob, const boost::shared_ptr<caffe::SyncedMemory>& memory, Dtype* values) {
  const std::vector<py::ssize_t> shape(blob.shape().begin(), blob.shape().end());
  typedef boost::shared_ptr<caffe::SyncedMemory> Owner;
  const py::capsule owner(new Owner(memory), [](void* p) { delete static_cast<Owner*>(p); });
  return py::array_t<Dtype>(shape, values, owner);
}

std::string ShapeText(const Blob& blob) {
  std::ostringstream text;
  text << "(";
  for (int i = 0; i < blob.num_axes(); ++i) text << (i ? ", " : "") << blob.shape(i);
  text << (blob.num_axes() == 1 ? ",)" : ")");
  return text.str();
}

int Index(const BlobVec& blobs, py::ssize_t index) {
  const py::ssize_t size = blobs.size();
  if (index < -size || index >= size) {
    throw py::index_error("blob index " + std::to_string(index) + " is out of range: there are " +
                          std::to_string(size));
  }
  return index < 0 ? index + size : index;
}

void Append(BlobVec* blobs, const boost::shared_ptr<Blob>& blob) {
  if (!blob) throw py::type_error("expected a Blob, got None");
  blobs->push_back(blob);
}

}  // namespace

std::vector<int> ShapeOf(const py::args& args) {
  std::vector<int> shape;
  for (const py::handle& arg : args) {
    const py::object index = py::reinterpret_steal<py::object>(PyNumber_Index(arg.ptr()));
    if (!index) throw py::error_already_set();
    const long size = PyLong_AsLong(index.ptr());
    const bool fits = !PyErr_Occurred() && size >= 0 && size <= INT_MAX;
    PyErr_Clear();
    LOG_IF(FATAL, !fits) << "a blob's axis cannot have " << py::str(arg).cast<std::string>() << " elements";
    shape.push_back(size);
  }
  return shape;
}

void BindBlob(py::module_* module) {
  py::class_<Blob, boost::shared_ptr<Blob>>(*module, "Blob", Built(),
                                            R"(A float32 array of a net: values and gradients.

`blob.data` and `blob.diff` are numpy views of the blob's own memory: write into them with `blob.data[...] = values`.
Views stay valid after the net is deleted; after a reshape to more elements, take a new view.)")
      .def_property_readonly(
          "shape", [](const Blob& blob) { return blob.shape(); }, "The sizes of the axes, a list of int.")
      .def_property_readonly("num", &Blob::num, "The size of axis 0; 1 if it does not exist. At most 4 axes.")
      .def_property_readonly("channels", &Blob::channels, "The size of axis 1; 1 if it does not exist.")
      .def_property_readonly("height", &Blob::height, "The size of axis 2; 1 if it does not exist.")
      .def_property_readonly("width", &Blob::width, "The size of axis 3; 1 if it does not exist.")
      .def_property_readonly(
          "count", [](const Blob& blob) { return blob.count(); }, "The number of elements.")
      .def(
          "reshape", [](Blob* blob, const py::args& args) { blob->Reshape(ShapeOf(args)); },
          R"(reshape(*shape): change the shape; net.reshape() and net.forward() propagate it.

Existing views keep the old shape, and the old memory if the blob has grown. Raises CaffeError for a negative size or
more elements than an int can count.)")
#ifndef CPU_ONLY
      .def_property_readonly(
          "_gpu_data_ptr", [](Blob* blob) { return reinterpret_cast<uintptr_t>(blob->mutable_gpu_data()); },
          "The address of the values on the device.")
      .def_property_readonly(
          "_gpu_diff_ptr", [](Blob* blob) { return reinterpret_cast<uintptr_t>(blob->mutable_gpu_diff()); },
          "The address of the gradients on the device.")
#endif
      .def_property_readonly(
          "data",
          [](Blob* blob) {
            Dtype* values = blob->mutable_cpu_data();
            return View(*blob, blob->data(), values);
          },
          "The values: a float32 view of shape `shape`.")
      .def_property_readonly(
          "diff",
          [](Blob* blob) {
            Dtype* values = blob->mutable_cpu_diff();
            return View(*blob, blob->diff(), values);
          },
          "The gradients: a float32 view of shape `shape`.")
      .def("__repr__", [](const Blob& blob) { return "<caffe.Blob " + ShapeText(blob) + ">"; });

  // Items cannot be removed or replaced: a layer would read past the end, or a solver update the old one.
  py::class_<BlobVec>(*module, "BlobVec", Built(), "The parameters of a layer: a list of Blob that can be extended.")
      .def("__len__", [](const BlobVec& blobs) { return blobs.size(); })
      .def(
          "__getitem__", [](const BlobVec& blobs, py::ssize_t index) { return blobs[Index(blobs, index)]; },
          py::arg("index"))
      .def(
          "__getitem__",
          [](const py::object& self, const py::slice& slice) {
            const py::list blobs(self);
            return py::list(blobs[slice]);
          },
          py::arg("index"))
      .def("append", &Append, py::arg("blob").none(false), "Append a blob.")
      .def(
          "extend",
          [](BlobVec* blobs, const py::iterable& more) {
            BlobVec added;  // all or none; `more` may be these blobs themselves
            for (const py::handle& blob : more) Append(&added, blob.cast<boost::shared_ptr<Blob>>());
            blobs->insert(blobs->end(), added.begin(), added.end());
          },
          py::arg("blobs"), "Append several blobs.")
      .def(
          "add_blob",
          [](BlobVec* blobs, const py::args& args) { Append(blobs, boost::make_shared<Blob>(ShapeOf(args))); },
          "add_blob(*shape): append a blob of zeros, in the setup() of a Python layer.");
}

}  // namespace pycaffe
