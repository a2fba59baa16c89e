// What the files of pycaffe's module share.

#ifndef CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
#define CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_

#include <hdf5.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <boost/shared_ptr.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, boost::shared_ptr<T>)

namespace pycaffe {

namespace py = pybind11;

typedef float Dtype;  // pycaffe computes in float32, as upstream's does
typedef caffe::Blob<Dtype> Blob;
typedef caffe::Layer<Dtype> Layer;
typedef caffe::Net<Dtype> Net;
typedef caffe::Solver<Dtype> Solver;
typedef std::vector<boost::shared_ptr<Blob>> BlobVec;
typedef std::filesystem::path Path;  // from Python a str, bytes or os.PathLike

/// Lets other Python threads run while Caffe computes in this one.
class __attribute__((visibility("hidden"))) Compute {  // as pybind11 is
 public:
  // HDF5 prints a page for each error, until told not to in each thread; Caffe's checks say what matters.
  Compute() {
    static thread_local const herr_t quiet = H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)quiet;
  }

 private:
  const py::gil_scoped_release release_;
};

typedef py::call_guard<Compute> ReleaseGil;

void BindBlob(py::module_* module);
void BindLayer(py::module_* module);
void BindNet(py::module_* module);
void BindSolvers(py::module_* module);
void BindNccl(py::module_* module);
void BindInspect(py::module_* module);
void BindKernels(py::module_* module);

/// Throws caffe::Error where `filename` cannot be opened for reading.
void CheckFile(const Path& filename);

/// The shape that the arguments of a reshape() name. Throws TypeError where one is no integer.
std::vector<int> ShapeOf(const py::args& args);

/// The message that `source` is (of caffe_pb2, so that no file need be written) or that its prototxt holds.
/// @param read upstream's reader of such a file
/// @param upgrade upstream's upgrade of a message in an older format
/// Throws TypeError for a message of another type, caffe::Error for a file that does not parse.
template <typename Param>
Param ReadParam(const py::object& source, void (*read)(const std::string&, Param*), void (*upgrade)(Param*)) {
  Param param;
  if (!py::hasattr(source, "SerializeToString")) {
    const Path filename = source.cast<Path>();
    CheckFile(filename);
    read(filename.string(), &param);
    return param;
  }
  const std::string type = py::str(source.attr("DESCRIPTOR").attr("full_name"));
  if (type != param.GetTypeName()) throw py::type_error("needs a " + param.GetTypeName() + ", not a " + type);
  CHECK(param.ParsePartialFromString(source.attr("SerializePartialToString")().cast<std::string>()))
      << "a " << type << " that cannot be read";
  CHECK(param.IsInitialized()) << "a " << type << " without its " << param.InitializationErrorString();
  upgrade(&param);
  return param;
}

/// `param` as a message of caffe_pb2.
template <typename Param>
py::object ToMessage(const Param& param) {
  const py::object pb2 = py::module_::import("caffe.proto.caffe_pb2");
  return pb2.attr(param.GetDescriptor()->name().c_str()).attr("FromString")(py::bytes(param.SerializeAsString()));
}

/// `object.name = value`: the Python object keeps what the C++ one behind it points to.
template <typename T>
py::object Keep(const py::object& object, const char* name, T&& value) {
  py::object kept = py::cast(std::forward<T>(value));
  object.attr(name) = kept;
  return kept;
}

/// Hands a callback of upstream's to the C++ object behind `owner`, which keeps only its address: `owner` keeps it
/// and, where the garbage collector can see them, the Python functions that it calls.
template <typename Callback>
Callback* KeepCallback(const py::object& owner, Callback* callback, const py::tuple& functions) {
  const py::capsule capsule(callback, [](void* p) { delete static_cast<Callback*>(p); });
  if (!py::hasattr(owner, "_callbacks")) owner.attr("_callbacks") = py::list();
  owner.attr("_callbacks").cast<py::list>().append(py::make_tuple(functions, capsule));
  return callback;
}

}  // namespace pycaffe

PYBIND11_MAKE_OPAQUE(pycaffe::BlobVec)

#endif  // CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
