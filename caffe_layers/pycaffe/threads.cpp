// Python threads and Caffe: the GIL, the end of the interpreter, forks, objects in use.

#include <hdf5.h>
#include <omp.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "pycaffe.hpp"

namespace pycaffe {
namespace {

std::atomic<bool> ending{false};
std::thread::id ender;          // the thread that ends the interpreter
std::atomic<int> waiting{0};    // threads that are about to take the GIL
std::atomic<int> computing{0};  // calls into Caffe without the GIL
thread_local int computes = 0;  // of those, this thread's

void StopForGood() {
  while (true) pause();
}

// Called before the interpreter ends, with the GIL: lets waiting threads take it, and daemon threads finish computing,
// since the libraries that they use release their memory at exit.
void BeforeTheEnd() {
  ender = std::this_thread::get_id();
  ending = true;
  py::gil_scoped_release release;
  for (int i = 0; i < 10000 && (waiting > 0 || computing > 0); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Count a thread that waits for the GIL; stop it if the interpreter is ending.
struct Waiting {
  Waiting() {
    ++waiting;
    if (ending && ender != std::this_thread::get_id() && !PyGILState_Check()) {
      --waiting;
      computing -= computes;
      StopForGood();
    }
  }
  ~Waiting() { --waiting; }
};

// A forked process does not have OpenMP's threads, and OpenMP would wait for them; one thread is safe.
void AfterFork() { omp_set_num_threads(1); }

struct User {
  std::thread::id thread;
  int depth;
};
std::mutex users_mutex;
std::map<const void*, User> users;

}  // namespace

AcquireGil::AcquireGil() {
  const Waiting waits;
  gil_.emplace();
}

Compute::Compute() : thread_(PyEval_SaveThread()) {
  ++computing;
  ++computes;
  // HDF5 prints a page per error unless disabled in each thread; Caffe's checks report what matters.
  static thread_local const herr_t quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  (void)quiet;
}

Compute::~Compute() {
  --computing;
  --computes;
  const Waiting waits;
  PyEval_RestoreThread(thread_);
}

InUse::InUse(const void* object, const char* what) : object_(object) {
  const std::lock_guard<std::mutex> lock(users_mutex);
  User& user = users.emplace(object, User{std::this_thread::get_id(), 0}).first->second;
  LOG_IF(FATAL, user.thread != std::this_thread::get_id())
      << "this " << what << " is computing in another thread: wait for it, or build another " << what;
  ++user.depth;
}

InUse::~InUse() {
  const std::lock_guard<std::mutex> lock(users_mutex);
  const auto found = users.find(object_);
  if (--found->second.depth == 0) users.erase(found);
}

py::list Kept(const py::object& object, const char* what) {
  const py::dict attributes = object.attr("__dict__");
  const std::string name = std::string("<") + what + ">";
  if (!attributes.contains(name.c_str())) attributes[name.c_str()] = py::list();
  return attributes[name.c_str()];
}

void BindThreads(py::module_* module) {
  py::module_::import("atexit").attr("register")(py::cpp_function(&BeforeTheEnd));
  pthread_atfork(nullptr, nullptr, &AfterFork);
}

}  // namespace pycaffe
