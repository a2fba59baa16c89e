// The module caffe._caffe: names and behaviour follow upstream's python/caffe/_caffe.cpp.

#include <google/protobuf/stubs/logging.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <fstream>
#include <new>
#include <string>

#include "pycaffe.hpp"
#include "utf8.hpp"

namespace pycaffe {

using caffe::Caffe;

namespace {

const char* const kLevels[] = {"info", "warning", "error", "fatal"};

// glog ends the process if it is initialised twice, which a notebook may do.
void InitLog(int level, bool to_stderr) {
  static const bool once = (google::InitGoogleLogging("pycaffe"), true);
  (void)once;
  FLAGS_minloglevel = level;
  FLAGS_logtostderr = to_stderr;
}

std::string LogLevel(const py::object& level) {
  const int before = std::min<int>(std::max<int>(FLAGS_minloglevel, google::GLOG_INFO), google::GLOG_FATAL);
  if (!level.is_none()) {
    const std::string name = py::str(level).attr("lower")().cast<std::string>();
    const auto found = std::find(std::begin(kLevels), std::end(kLevels), name);
    CHECK(found != std::end(kLevels)) << "the log level is " << py::repr(level).cast<std::string>()
                                      << ": it must be \"info\", \"warning\", \"error\" or \"fatal\"";
    FLAGS_minloglevel = found - std::begin(kLevels);
  }
  return kLevels[before];
}

// Send protobuf's messages, which it writes to stderr, to the log.
void LogOfProtobuf(google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
  if (level == google::protobuf::LOGLEVEL_FATAL) throw caffe::Error(message, file, line);
  LOG(INFO) << message;
}

// Exceptions of the library become CaffeError; pybind11's own exceptions (invalid arguments, Python exceptions) are not
// changed.
void Translate(std::exception_ptr thrown) {
  const auto raise = [](const std::string& text, const caffe::TextPlace& place = {}, const std::string& layer = "") {
    // a file name may contain any bytes
    const py::object type = py::module_::import("caffe._caffe").attr("CaffeError");
    const py::object error = type(py::str(caffe::ToUtf8(text)));
    if (place.line > 0) {
      error.attr("file") = caffe::ToUtf8(place.file);
      error.attr("line") = place.line;
      error.attr("column") = place.column;
    }
    if (!layer.empty()) error.attr("layer") = caffe::ToUtf8(layer);
    PyErr_SetObject(type.ptr(), error.ptr());
  };
  try {
    std::rethrow_exception(thrown);
  } catch (const py::builtin_exception&) {
    throw;
  } catch (const py::error_already_set&) {
    throw;
  } catch (const caffe::Error& error) {
    raise(error.what(), error.place(), error.layer());
  } catch (const std::bad_alloc&) {
    raise("there is not enough memory");
  } catch (const std::exception& error) {
    raise(error.what());
  }
}

}  // namespace

void CheckFile(const Path& filename) {
  struct stat status;
  const char* problem = nullptr;
  if (stat(filename.c_str(), &status) != 0) {
    problem = std::strerror(errno);
  } else if (S_ISDIR(status.st_mode)) {
    problem = std::strerror(EISDIR);
  } else if (S_ISREG(status.st_mode) && !std::ifstream(filename.c_str()).good()) {
    problem = std::strerror(errno);
  }
  LOG_IF(FATAL, problem) << "Could not open file " << filename.string() << ": " << problem;
}

Path PathOf(const py::object& source, const char* or_what) {
  try {
    return source.cast<Path>();
  } catch (const py::cast_error&) {
    const std::string type = py::str(py::type::of(source).attr("__name__"));
    throw py::type_error("expected a path (str, bytes or os.PathLike) " + std::string(or_what) + ", got a " + type);
  }
}

void CheckRank() {
  LOG_IF(FATAL, Caffe::solver_rank() >= Caffe::solver_count())
      << "the solver's rank is " << Caffe::solver_rank() << ": with " << Caffe::solver_count()
      << " solvers it must be 0 to " << Caffe::solver_count() - 1 << " (set_solver_rank, set_solver_count)";
}

PYBIND11_MODULE(_caffe, m) {
  m.doc() = "Caffe's nets and solvers in Python; failed checks raise CaffeError.";
  m.attr("__version__") = AS_STRING(CAFFE_VERSION);
  py::exception<caffe::Error> error(m, "CaffeError", PyExc_RuntimeError);
  error.attr("__doc__") =
      R"(A failed check of Caffe.

file, line, column: the place in a prototxt that does not parse, counted from 1. layer: the name of the layer that was
being built or run. Each is None if it is not known.)";
  for (const char* name : {"file", "line", "column", "layer"}) error.attr(name) = py::none();
  py::register_local_exception_translator(&Translate);

  InitLog(google::GLOG_WARNING, true);
  google::protobuf::SetLogHandler(&LogOfProtobuf);

  m.def("log_level", &LogLevel, py::arg("level") = py::none(),
        R"(Show Caffe's messages on stderr from `level` up: "info", "warning" (as at import), "error" or "fatal".

Returns the level until now, so that caffe.log_level(before) brings it back; without an argument only tells it.
"info" shows the messages of the caffe program: the net when it is built, and the loss every `display` iterations.)");
  m.def("init_log", &InitLog, py::arg("level") = 0, py::arg("stderr") = true,
        "Upstream's function for the log: the lowest level shown (0: info, 1: warnings, 2: errors), on stderr or in "
        "glog's files. May be called again.");
  m.def(
      "log", [](const std::string& text) { LOG(INFO) << text; }, py::arg("s"), "Write an info message to the log.");
  m.def(
      "set_mode_cpu", [] { Caffe::set_mode(Caffe::CPU); },
      "Compute on the CPU. Applies to this thread, like all settings.");
  m.def("set_random_seed", &Caffe::set_random_seed, py::arg("seed"),
        "Seed this thread's random numbers: fillers, dropout, and upstream's data layers.");
  m.def("solver_count", &Caffe::solver_count, "The number of solvers that train together.");
  m.def(
      "set_solver_count",
      [](int count) {
        LOG_IF(FATAL, count < 1) << "the number of solvers is " << count << ": it must be at least 1";
        Caffe::set_solver_count(count);
      },
      py::arg("count"), "Set the number of solvers that train together.");
  m.def("solver_rank", &Caffe::solver_rank, "The rank of this solver, from 0.");
  m.def(
      "set_solver_rank",
      [](int rank) {
        LOG_IF(FATAL, rank < 0) << "the rank of a solver is " << rank << ": it must be at least 0";
        Caffe::set_solver_rank(rank);
      },
      py::arg("rank"), "Set the rank of this solver, from 0.");
  m.def("set_multiprocess", &Caffe::set_multiprocess, py::arg("multiprocess"),
        "Set whether each solver has its own process.");
  m.def("layer_type_list", &caffe::LayerRegistry<Dtype>::LayerTypeList, "The names of all layer types, a list of str.");

  BindThreads(&m);
  BindGpu(&m);
  BindBlob(&m);
  BindData(&m);
  BindLayer(&m);
  BindNet(&m);
  BindSolvers(&m);
  BindNccl(&m);
  BindInspect(&m);
  BindKernels(&m);

  py::class_<caffe::Timer, boost::shared_ptr<caffe::Timer>>(m, "Timer", Built(),
                                                            "A stopwatch; in GPU mode it measures the GPU's time.")
      .def(py::init<>())
      .def("start", &caffe::Timer::Start, "Start measuring.")
      .def("stop", &caffe::Timer::Stop, "Stop measuring.")
      .def_property_readonly("ms", &caffe::Timer::MilliSeconds, "Milliseconds from start to stop.");

  // Upstream's names that are plain Python here.
  for (const char* name : {"StringVec", "IntVec", "DtypeVec", "BoolVec", "RawBlobVec", "LayerVec", "NetVec"}) {
    m.attr(name) = py::type::of(py::list());
  }
  m.attr("LayerParameter") = py::module_::import("caffe.proto.caffe_pb2").attr("LayerParameter");
}

}  // namespace pycaffe
