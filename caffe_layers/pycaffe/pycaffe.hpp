// Declarations shared by the files of the pycaffe module.

#ifndef CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
#define CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_

#include <hdf5.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <boost/shared_ptr.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, boost::shared_ptr<T>)

namespace pycaffe {

namespace py = pybind11;

typedef float Dtype;  // pycaffe computes in float32, like upstream's
typedef caffe::Blob<Dtype> Blob;
typedef caffe::Layer<Dtype> Layer;
typedef caffe::Net<Dtype> Net;
typedef caffe::Solver<Dtype> Solver;
typedef std::vector<boost::shared_ptr<Blob>> BlobVec;
typedef std::filesystem::path Path;  // from Python a str, bytes or os.PathLike

/// Waits for the GIL, like py::gil_scoped_acquire. Once the interpreter ends, a thread that waits stops here forever,
/// while Python before 3.14 would terminate it inside C++.
class __attribute__((visibility("hidden"))) AcquireGil {
 public:
  AcquireGil();

 private:
  std::optional<py::gil_scoped_acquire> gil_;
};

/// Lets other Python threads run while Caffe computes in this one.
class __attribute__((visibility("hidden"))) Compute {
 public:
  Compute();
  ~Compute();
  Compute(const Compute&) = delete;

 private:
  PyThreadState* const thread_;
};

typedef py::call_guard<Compute> ReleaseGil;

void BindBlob(py::module_* module);
void BindData(py::module_* module);
void BindLayer(py::module_* module);
void BindNet(py::module_* module);
void BindSolvers(py::module_* module);
void BindNccl(py::module_* module);
void BindThreads(py::module_* module);
void BindGpu(py::module_* module);
void BindInspect(py::module_* module);
void BindKernels(py::module_* module);

/// Throws caffe::Error if `filename` cannot be opened for reading.
void CheckFile(const Path& filename);

/// Throws caffe::Error if the rank of this thread's solver is not less than the number of solvers.
void CheckRank();

/// The Python object of a layer written in Python (borrowed), else null.
PyObject* InstanceOf(const boost::shared_ptr<Layer>& layer);

/// For the class_ of an object created in C++: it cannot be used until __init__ of the bound class has run.
/// @param traverse also visits objects that only the C++ object holds, and ends with VisitAttributes
py::custom_type_setup Built(traverseproc traverse = nullptr);

/// Visit the attributes of `self` once. Python 3.11 visits those of subclasses itself; pybind11's function would visit
/// them again, and the garbage collector would never free them.
/// @param own the tp_traverse of the bound class
int VisitAttributes(PyObject* self, traverseproc own, visitproc visit, void* arg);

/// The C++ object of a Python object; null before its __init__ has run.
void* ValueOf(PyObject* object);

/// The shape given by the arguments of a reshape(). Throws TypeError if one is not an integer.
std::vector<int> ShapeOf(const py::args& args);

/// The path given by `source`. Throws TypeError, "expected a path <or>", if it is not one.
Path PathOf(const py::object& source, const char* or_what = "");

/// The message `source` (of caffe_pb2), or the message in the prototxt that it names.
/// @param read upstream's reader of such a file
/// @param upgrade upstream's upgrade of old formats
/// Throws TypeError for a message of another type, and caffe::Error if the file does not parse.
template <typename Param>
Param ReadParam(const py::object& source, void (*read)(const std::string&, Param*), void (*upgrade)(Param*)) {
  Param param;
  if (!py::hasattr(source, "SerializeToString")) {
    const Path filename = PathOf(source, ("or a " + param.GetTypeName()).c_str());
    CheckFile(filename);
    read(filename.string(), &param);
    return param;
  }
  const std::string type = py::str(source.attr("DESCRIPTOR").attr("full_name"));
  if (type != param.GetTypeName()) throw py::type_error("expected a " + param.GetTypeName() + ", got a " + type);
  CHECK(param.ParsePartialFromString(source.attr("SerializePartialToString")().cast<std::string>()))
      << "a " << type << " that cannot be read";
  CHECK(param.IsInitialized()) << "a " << type << " without its " << param.InitializationErrorString();
  upgrade(&param);
  return param;
}

/// The net of a prototxt or message, in the current format. Throws like ReadParam.
caffe::NetParameter ReadNet(const py::object& source);

/// The same, with the state that include and exclude rules need. Throws caffe::Error for an invalid phase.
caffe::NetParameter ReadNet(const py::object& source, int phase, int level, const std::vector<std::string>& stages);

/// `param` as a message of caffe_pb2.
template <typename Param>
py::object ToMessage(const Param& param) {
  const py::object pb2 = py::module_::import("caffe.proto.caffe_pb2");
  return pb2.attr(param.GetDescriptor()->name().c_str()).attr("FromString")(py::bytes(param.SerializeAsString()));
}

/// Throws caffe::Error if another thread uses the net or solver at `object`, which are not thread-safe. Callbacks in
/// the same thread may use it.
class __attribute__((visibility("hidden"))) InUse {
 public:
  InUse(const void* object, const char* what);
  ~InUse();
  InUse(const InUse&) = delete;

 private:
  const void* const object_;
};

/// Objects that a Python object keeps for its C++ object: a list that the garbage collector sees, under a name that no
/// attribute can have.
py::list Kept(const py::object& object, const char* what);

/// `object` with a deleter that lets other threads run, because it may wait for its threads.
template <typename T>
boost::shared_ptr<T> Owned(T* object) {
  return boost::shared_ptr<T>(object, [](T* p) {
    if (PyGILState_Check()) {
      const Compute compute;
      delete p;
    } else {
      delete p;
    }
  });
}

/// Pass a callback to the C++ object of `owner`, which stores only its address, so it lives as long as that. `owner`
/// keeps the Python functions, and the callback only their addresses.
template <typename Callback>
Callback* KeepCallback(const py::object& owner, Callback* callback, const py::tuple& functions) {
  Kept(owner, "callbacks").append(functions);
  const py::capsule capsule(callback, [](void* p) { delete static_cast<Callback*>(p); });
  Kept(owner, "callbacks").append(capsule);
  return callback;
}

}  // namespace pycaffe

PYBIND11_MAKE_OPAQUE(pycaffe::BlobVec)

#endif  // CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
