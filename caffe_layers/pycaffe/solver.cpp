// Solver and its subclasses.

#include <limits>
#include <optional>
#include <utility>

#include "caffe/layers/crop_data_layer.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/upgrade_proto.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

/// Polled once per iteration (and per batch of a test): a Ctrl-C that Python has received stops the solver.
class Interrupt {
 public:
  caffe::SolverAction::Enum operator()() {
    const AcquireGil gil;
    if (raised_ || PyErr_CheckSignals() == 0) return caffe::SolverAction::NONE;
    raised_.emplace();
    return caffe::SolverAction::STOP;  // once: a test polls until no request is left
  }
  /// Raise the exception of a signal handler, usually KeyboardInterrupt.
  void Raise() {
    if (raised_) throw py::error_already_set(std::move(*raised_));
  }
  /// As Raise(), chained with a later error.
  void RaiseWith(const std::exception& error) {
    if (!raised_) return;
    const AcquireGil gil;
    const std::string also = std::string("and then: ") + error.what();
    if (py::hasattr(raised_->value(), "add_note")) raised_->value().attr("add_note")(also);  // from Python 3.11
    Raise();
  }

 private:
  std::optional<py::error_already_set> raised_;
};

struct Internals : public Solver {  // access to protected members of Solver
  // After a stop, a solver would skip its tests and stop at the next one.
  static void GoOn(Solver* solver) { solver->*& Internals::requested_early_exit_ = false; }

  static caffe::ActionCallback& Action(Solver* solver) { return solver->*&Internals::action_request_function_; }

  // As after Restore: the learning rate and CropData's position follow.
  static void SetIteration(Solver* solver, int iteration) {
    const caffe::SolverParameter& param = solver->param();
    int steps = 0;
    while (steps < param.stepvalue_size() && param.stepvalue(steps) <= iteration) ++steps;
    solver->*& Internals::iter_ = iteration;
    solver->*& Internals::current_step_ = steps;
    caffe::SeekCropData(*solver->net(), static_cast<uint64_t>(iteration) * param.iter_size());
  }
};

// The solver must not keep the exception of a run, which refers to the frames it passed.
struct KeepAction {
  explicit KeepAction(Solver* s) : solver(s), former(Internals::Action(s)) {}
  ~KeepAction() { Internals::Action(solver) = former; }
  Solver* const solver;
  const caffe::ActionCallback former;  // of an outer step() whose callback called this one
};

template <typename Run>
void Interruptible(Solver* solver, const Run& run) {
  const InUse in_use(solver, "solver");
  const KeepAction keep(solver);
  Interrupt interrupt;
  Internals::GoOn(solver);
  Internals::Action(solver) = [&interrupt] { return interrupt(); };
  try {
    run();
  } catch (const caffe::Error& error) {
    interrupt.RaiseWith(error);
    throw;
  }
  interrupt.Raise();
}

void Step(Solver* solver, int64_t iterations) {
  const int most = std::numeric_limits<int>::max() - solver->iter();
  LOG_IF(FATAL, iterations < 0 || iterations > most)
      << "cannot step " << iterations << " iterations: it must be 0 to " << most;
  Interruptible(solver, [&] { solver->Step(iterations); });
}

void Solve(Solver* solver, const Path& resume_file) {
  if (!resume_file.empty()) CheckFile(resume_file);
  Interruptible(solver, [&] { solver->Solve(resume_file.empty() ? nullptr : resume_file.c_str()); });
}

void SetIteration(Solver* solver, int64_t iteration) {
  LOG_IF(FATAL, iteration < 0 || iteration > std::numeric_limits<int>::max())
      << "the iteration is " << iteration << ": it must be 0 to " << std::numeric_limits<int>::max();
  const InUse in_use(solver, "solver");
  Internals::SetIteration(solver, iteration);
}

// A property of SolverParameter that accepts only values supported by the solver.
template <typename T>
auto Setter(void (caffe::SolverParameter::*set)(T), const char* name, T least) {
  return [=](caffe::SolverParameter* param, T value) {
    LOG_IF(FATAL, !(value >= least) || value > std::numeric_limits<T>::max())
        << name << " is " << value << ": it must be a number of at least " << least;
    (param->*set)(value);
  };
}

caffe::SolverParameter ReadSolver(const py::object& source) {
  return ReadParam<caffe::SolverParameter>(source, &caffe::ReadSolverParamsFromTextFileOrDie, [](auto* param) {
    caffe::UpgradeSolverAsNeeded("the message", param);
    if (!param->has_snapshot_prefix()) param->set_snapshot_prefix("solver");  // the default for a file is its own name
  });
}

template <typename Create>
auto BuildSolver(const py::object& source, const Create& create) {
  const caffe::SolverParameter param = ReadSolver(source);
  CheckRank();
  const Compute compute;
  return Owned(create(param));
}

// The solver's parameters are const for callers, but it reads the rate in each iteration.
caffe::SolverParameter* MutableParam(const Solver& solver) {
  return const_cast<caffe::SolverParameter*>(&solver.param());
}

// The Python object of a solver's net, kept with its attributes.
py::object KeepOnce(const py::object& self, const boost::shared_ptr<Net>& net) {
  const py::object object = py::cast(net);
  py::list nets = Kept(self, "nets");
  for (const py::handle& kept : nets) {
    if (kept.is(object)) return object;
  }
  nets.append(object);
  return object;
}

class PySolverCallback : public Solver::Callback {
 public:
  PySolverCallback(py::handle on_start, py::handle on_gradients_ready)
      : on_start_(on_start), on_gradients_ready_(on_gradients_ready) {}

 protected:
  void on_start() override { Call(on_start_); }
  void on_gradients_ready() override { Call(on_gradients_ready_); }

 private:
  static void Call(py::handle function) {
    const AcquireGil gil;
    function();
  }
  const py::handle on_start_, on_gradients_ready_;
};

template <typename SolverType, typename Base>
py::class_<SolverType, Base, boost::shared_ptr<SolverType>> BindSolver(py::module_* m, const char* name,
                                                                       const char* doc) {
  return py::class_<SolverType, Base, boost::shared_ptr<SolverType>>(*m, name, Built(), doc)
      .def(py::init([](const py::object& solver_file) {
             return BuildSolver(solver_file, [](const auto& param) { return new SolverType(param); });
           }),
           py::arg("solver_file"),
           "Build a solver and its nets from a prototxt or a caffe_pb2.SolverParameter. Raises CaffeError.");
}

void BindParameter(py::module_* module) {
  typedef caffe::SolverParameter Param;
  py::class_<Param>(*module, "SolverParameter", Built(), R"(A solver's parameters, as solver.param.

Changes apply from the next iteration. Other parameters are fixed when the solver is built: see to_proto().)")
      .def_property("base_lr", &Param::base_lr, Setter(&Param::set_base_lr, "base_lr", 0.f),
                    "The initial learning rate of lr_policy.")
      .def_property("momentum", &Param::momentum, Setter(&Param::set_momentum, "momentum", 0.f),
                    "The factor of the previous update.")
      .def_property("weight_decay", &Param::weight_decay, Setter(&Param::set_weight_decay, "weight_decay", 0.f),
                    "The factor of the regularization.")
      .def_property("max_iter", &Param::max_iter, Setter(&Param::set_max_iter, "max_iter", 0),
                    "The iteration at which solve() ends.")
      .def_property("display", &Param::display, Setter(&Param::set_display, "display", 0),
                    "Iterations between log lines; 0: never.")
      .def_property("test_interval", &Param::test_interval, Setter(&Param::set_test_interval, "test_interval", 0),
                    "Iterations between tests of the test nets; 0: never.")
      .def_property("snapshot", &Param::snapshot, Setter(&Param::set_snapshot, "snapshot", 0),
                    "Iterations between snapshots; 0: never.")
      .def_property(
          "snapshot_prefix", [](const Param& p) { return p.snapshot_prefix(); },
          [](Param* p, const Path& prefix) { p->set_snapshot_prefix(prefix.string()); },
          "Snapshots are PREFIX_iter_N.caffemodel and .solverstate.")
      .def_property_readonly("layer_wise_reduce", &Param::layer_wise_reduce,
                             "Whether gradients are summed over several GPUs layer by layer.")
      .def("to_proto", &ToMessage<caffe::SolverParameter>, "A copy of all parameters, a caffe_pb2.SolverParameter.");
}

}  // namespace

void BindSolvers(py::module_* module) {
  BindParameter(module);

  py::class_<Solver, boost::shared_ptr<Solver>>(*module, "Solver", py::dynamic_attr(), Built(),
                                                R"(Base class of the solvers.

    solver = caffe.get_solver("solver.prototxt")
    solver.step(100)
    solver.net.blobs["loss"].data, solver.iter
    solver.snapshot()

Ctrl-C raises KeyboardInterrupt after the current iteration; the solver can then continue or snapshot.)")
      // Kept by the solver, because attributes set in Python (callbacks, input arrays) must live as long.
      .def_property_readonly(
          "net", [](const py::object& self) { return KeepOnce(self, self.cast<Solver&>().net()); }, "The training net.")
      .def_property_readonly(
          "test_nets",
          [](const py::object& self) {
            py::list nets;
            for (const auto& net : self.cast<Solver&>().test_nets()) nets.append(KeepOnce(self, net));
            return nets;
          },
          "The test nets, a list of Net; test() shares the training net's weights with them.")
      .def_property(
          "iter", &Solver::iter, &SetIteration,
          "The number of completed iterations. Setting it also moves the learning rate and CropData's position, like "
          "restore(), but not weights and history.")
      .def_property_readonly("type", &Solver::type, "The type's name, as in a prototxt.")
      .def_property_readonly("param", &MutableParam, py::return_value_policy::reference_internal,
                             "The parameters, a SolverParameter.")
      .def("step", &Step, ReleaseGil(), py::arg("iterations"), "Train for a number of iterations. Raises CaffeError.")
      .def("solve", &Solve, ReleaseGil(), py::arg("resume_file") = "",
           "Train to max_iter, optionally from a .solverstate. Writes a snapshot at the end, also after Ctrl-C, unless "
           "snapshot_after_train is false. Raises CaffeError.")
      .def(
          "restore",
          [](Solver* solver, const Path& filename) {
            const InUse in_use(solver, "solver");
            CheckFile(filename);
            solver->Restore(filename.c_str());
          },
          ReleaseGil(), py::arg("state_file"), "Resume from a .solverstate and its weights. Raises CaffeError.")
      .def(
          "snapshot",
          [](Solver* solver) {
            const InUse in_use(solver, "solver");
            solver->Snapshot();
          },
          ReleaseGil(), "Write weights and state to param.snapshot_prefix. Raises CaffeError.")
      .def(
          "apply_update",
          [](Solver* solver) {
            const InUse in_use(solver, "solver");
            solver->ApplyUpdate();
          },
          ReleaseGil(), "Update the parameters from their gradients and count an iteration.")
      .def(
          "share_weights", [](Solver* solver, Net* net) { net->ShareTrainedLayersWith(solver->net().get()); },
          py::arg("net").none(false), "Share the trained parameters with `net`.")
      .def(
          "add_callback",
          [](const py::object& self, const py::function& on_start, const py::function& on_gradients_ready) {
            auto* callback = new PySolverCallback(on_start, on_gradients_ready);
            self.cast<Solver&>().add_callback(
                KeepCallback(self, callback, py::make_tuple(on_start, on_gradients_ready)));
          },
          py::arg("on_start"), py::arg("on_gradients_ready"),
          "Call on_start() before each iteration and on_gradients_ready() before each update. step() raises their "
          "exceptions.");

  typedef caffe::SGDSolver<Dtype> SGD;
  BindSolver<SGD, Solver>(module, "SGDSolver", "Stochastic gradient descent with momentum.")
      .def_property_readonly("lr", &SGD::GetLearningRate, "The learning rate of the next iteration.");
  BindSolver<caffe::NesterovSolver<Dtype>, SGD>(module, "NesterovSolver", "Nesterov's accelerated gradient.");
  BindSolver<caffe::AdaGradSolver<Dtype>, SGD>(module, "AdaGradSolver", "AdaGrad; momentum must be 0.");
  BindSolver<caffe::RMSPropSolver<Dtype>, SGD>(module, "RMSPropSolver", "RMSProp; momentum must be 0.");
  BindSolver<caffe::AdaDeltaSolver<Dtype>, SGD>(module, "AdaDeltaSolver", "AdaDelta.");
  BindSolver<caffe::AdamSolver<Dtype>, SGD>(module, "AdamSolver", "Adam.");

  module->def(
      "get_solver",
      [](const py::object& solver_file) {
        return BuildSolver(solver_file, &caffe::SolverRegistry<Dtype>::CreateSolver);
      },
      py::arg("solver_file"),
      "Build the solver of the type given in a prototxt or caffe_pb2.SolverParameter. Raises CaffeError.");
}

}  // namespace pycaffe
