// The module caffe._caffe: names and behaviour follow upstream's python/caffe/_caffe.cpp.

#include <google/protobuf/stubs/logging.h>
#include <hdf5.h>
#include <sys/stat.h>

#include <fstream>

#include "pycaffe.hpp"

namespace pycaffe {

using caffe::Caffe;

namespace {

bool g_log_is_initialized = false;

// glog ends the process when it is initialized twice; a notebook's cell may well run twice.
void InitLog(int level, bool to_stderr) {
  FLAGS_minloglevel = level;
  FLAGS_logtostderr = to_stderr;
  if (!g_log_is_initialized) {
    google::InitGoogleLogging("pycaffe");
    g_log_is_initialized = true;
  }
}

// protobuf writes to stderr by itself; what it has to say goes the way of all messages.
void LogOfProtobuf(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  if (level == google::protobuf::LOGLEVEL_FATAL) throw caffe::Error(message, file, line);
  LOG(INFO) << message;
}

}  // namespace

void CheckFile(const std::string& filename) {
  struct stat status;
  const bool regular = stat(filename.c_str(), &status) == 0 && S_ISREG(status.st_mode);
  if (!regular || !std::ifstream(filename.c_str()).good()) {
    LOG(FATAL) << "Could not open file " << filename << (regular ? ": it may not be read" : ": there is no such file");
  }
}

PYBIND11_MODULE(_caffe, m) {
  m.doc() = "Caffe's nets and solvers in Python; every failed check raises CaffeError.";
  m.attr("__version__") = AS_STRING(CAFFE_VERSION);
  py::register_exception<caffe::Error>(m, "CaffeError", PyExc_RuntimeError);

  InitLog(google::GLOG_WARNING, true);
  google::protobuf::SetLogHandler(&LogOfProtobuf);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);  // HDF5 prints a page for each error; Caffe's checks say what matters

  m.def("init_log", &InitLog, py::arg("level") = 0, py::arg("stderr") = true,
        "Show glog's messages from `level` up (0: all, 1: warnings, 2: errors). May be called again.");
  m.def(
      "log", [](const std::string& text) { LOG(INFO) << text; }, py::arg("s"), "Write an INFO message to the log.");
  m.def(
      "has_nccl", []() { return false; }, "Whether this build can use several GPUs.");
  m.def(
      "set_mode_cpu", []() { Caffe::set_mode(Caffe::CPU); }, "Compute on the CPU.");
  m.def(
      "set_mode_gpu",
      []() {
#ifdef CPU_ONLY
        LOG(FATAL) << "this build of Caffe has no GPU support: stay with caffe.set_mode_cpu()";
#else
        Caffe::set_mode(Caffe::GPU);
#endif
      },
      "Compute on the GPU. Raises CaffeError in a build for the CPU alone.");
  m.def(
      "set_device",
      [](int device) {
#ifdef CPU_ONLY
        LOG(FATAL) << "this build of Caffe has no GPU support, device " << device << " cannot be set";
#else
        Caffe::SetDevice(device);
#endif
      },
      py::arg("device_id"), "Choose the GPU.");
  m.def("set_random_seed", &Caffe::set_random_seed, py::arg("seed"), "Seed the generator of this thread.");
  m.def("solver_count", &Caffe::solver_count);
  m.def("set_solver_count", &Caffe::set_solver_count, py::arg("count"));
  m.def("solver_rank", &Caffe::solver_rank);
  m.def("set_solver_rank", &Caffe::set_solver_rank, py::arg("rank"));
  m.def("set_multiprocess", &Caffe::set_multiprocess, py::arg("multiprocess"));
  m.def("layer_type_list", &caffe::LayerRegistry<Dtype>::LayerTypeList, "The names of all layer types.");

  BindNet(&m);
  BindSolvers(&m);
  BindKernels(&m);

  py::class_<caffe::Timer, boost::shared_ptr<caffe::Timer>>(m, "Timer", "A stop watch.")
      .def(py::init<>())
      .def("start", &caffe::Timer::Start)
      .def("stop", &caffe::Timer::Stop)
      .def_property_readonly("ms", &caffe::Timer::MilliSeconds, "Milliseconds from start to stop.");

  struct Nccl {};
  py::class_<Nccl>(m, "NCCL", "Several GPUs; not in this build.").def(py::init([](py::args, py::kwargs) -> Nccl* {
    LOG(FATAL) << "this build of Caffe has no NCCL: train on one device";
    return nullptr;
  }));
}

}  // namespace pycaffe
