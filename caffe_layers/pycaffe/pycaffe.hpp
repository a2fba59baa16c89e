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
#include <optional>
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

/// Waits for the GIL, as py::gil_scoped_acquire does. Once the interpreter ends, no other thread gets it again: such a
/// thread stops here for good, where Python before 3.14 would end it in the midst of C++.
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

/// Throws caffe::Error where `filename` cannot be opened for reading.
void CheckFile(const Path& filename);

/// Throws caffe::Error where the rank of this thread's solver is none of the solvers'.
void CheckRank();

/// The Python object that `layer` is where it is written in Python, else null; borrowed.
PyObject* InstanceOf(const boost::shared_ptr<Layer>& layer);

/// For the class_ of an object that C++ makes: until __init__ of the bound class has run, nothing of it can be asked.
/// @param traverse visits also what the C++ object alone holds, and ends with VisitAttributes
py::custom_type_setup Built(traverseproc traverse = nullptr);

/// Visits the attributes of `self`, once: Python 3.11 itself visits those of a subclass that is written in Python,
/// and pybind11's own function would visit them again, which makes the garbage collector keep them for ever.
/// @param own the tp_traverse of the bound class
int VisitAttributes(PyObject* self, traverseproc own, visitproc visit, void* arg);

/// The C++ object behind a Python one, null before its __init__ has run.
void* ValueOf(PyObject* object);

/// The shape that the arguments of a reshape() name. Throws TypeError where one is no integer.
std::vector<int> ShapeOf(const py::args& args);

/// The path that `source` is. Throws TypeError, "needs a path <or>", where it is none.
Path PathOf(const py::object& source, const char* or_what = "");

/// The message that `source` is (of caffe_pb2, so that no file need be written) or that its prototxt holds.
/// @param read upstream's reader of such a file
/// @param upgrade upstream's upgrade of a message in an older format
/// Throws TypeError for a message of another type, caffe::Error for a file that does not parse.
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
  if (type != param.GetTypeName()) throw py::type_error("needs a " + param.GetTypeName() + ", not a " + type);
  CHECK(param.ParsePartialFromString(source.attr("SerializePartialToString")().cast<std::string>()))
      << "a " << type << " that cannot be read";
  CHECK(param.IsInitialized()) << "a " << type << " without its " << param.InitializationErrorString();
  upgrade(&param);
  return param;
}

/// The net of a prototxt or message in today's format. Throws as ReadParam.
caffe::NetParameter ReadNet(const py::object& source);

/// As above, with the state that include and exclude rules ask for. Throws caffe::Error for a phase that is none.
caffe::NetParameter ReadNet(const py::object& source, int phase, int level, const std::vector<std::string>& stages);

/// `param` as a message of caffe_pb2.
template <typename Param>
py::object ToMessage(const Param& param) {
  const py::object pb2 = py::module_::import("caffe.proto.caffe_pb2");
  return pb2.attr(param.GetDescriptor()->name().c_str()).attr("FromString")(py::bytes(param.SerializeAsString()));
}

/// Throws caffe::Error where another thread uses the net or solver at `object`: neither is made for two at once. The
/// same thread may come back to it from a callback.
class __attribute__((visibility("hidden"))) InUse {
 public:
  InUse(const void* object, const char* what);
  ~InUse();
  InUse(const InUse&) = delete;

 private:
  const void* const object_;
};

/// What the Python object keeps for the C++ one behind it: a list that the garbage collector sees, under a name that no
/// attribute can have.
py::list Kept(const py::object& object, const char* what);

/// `object` with a deleter that lets other threads run, for it may wait for threads of its own.
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

/// Hands a callback to the C++ object behind `owner`, which knows only its address: it lives as long as that. `owner`
/// keeps the Python functions that it calls, and the callback nothing but their addresses.
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
