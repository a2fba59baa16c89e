// Solver and its kinds.

#include <limits>
#include <memory>

#include "caffe/layers/crop_data_layer.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/util/upgrade_proto.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

/// Asked once an iteration (and once a batch of a test): a Ctrl-C that Python has seen stops the solver after it.
class Interrupt {
 public:
  caffe::SolverAction::Enum operator()() {
    py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return caffe::SolverAction::NONE;
    raised_ = std::make_shared<py::error_already_set>();
    return caffe::SolverAction::STOP;
  }
  /// Raises what a signal handler has raised, KeyboardInterrupt as a rule.
  void Raise() const {
    if (raised_) throw *raised_;
  }

 private:
  std::shared_ptr<py::error_already_set> raised_;
};

struct Internals : public Solver {  // names what Solver keeps to itself and its kin
  // A solver once stopped would not test again, and stop at its next test.
  static void GoOn(Solver* solver) { solver->*& Internals::requested_early_exit_ = false; }

  // Where Restore would put it: the learning rate and CropData's records follow.
  static void SetIteration(Solver* solver, int iteration) {
    const caffe::SolverParameter& param = solver->param();
    int steps = 0;
    while (steps < param.stepvalue_size() && param.stepvalue(steps) <= iteration) ++steps;
    solver->*& Internals::iter_ = iteration;
    solver->*& Internals::current_step_ = steps;
    caffe::SeekCropData(*solver->net(), static_cast<uint64_t>(iteration) * param.iter_size());
  }
};

// An update walks over a parameter and its history together.
void CheckHistory(Solver* solver) {
  auto* sgd = dynamic_cast<caffe::SGDSolver<Dtype>*>(solver);
  if (sgd == NULL) return;
  const std::vector<Blob*>& params = solver->net()->learnable_params();
  for (size_t i = 0; i < params.size(); ++i) {
    CHECK_EQ(params[i]->count(), sgd->history()[i]->count())
        << "learnable parameter " << i << " has been reshaped since the solver was made: build a new solver";
  }
}

template <typename Run>
void Interruptible(Solver* solver, const Run& run) {
  CheckHistory(solver);
  const auto interrupt = std::make_shared<Interrupt>();
  Internals::GoOn(solver);
  solver->SetActionFunction([interrupt] { return (*interrupt)(); });
  run();
  interrupt->Raise();
}

void Step(Solver* solver, int iterations) {
  CHECK_GE(iterations, 0) << "the number of iterations to step";
  CHECK_LE(iterations, std::numeric_limits<int>::max() - solver->iter()) << "the number of iterations to step";
  Interruptible(solver, [&] { solver->Step(iterations); });
}

void Solve(Solver* solver, const Path& resume_file) {
  if (!resume_file.empty()) CheckFile(resume_file);
  Interruptible(solver, [&] { solver->Solve(resume_file.empty() ? NULL : resume_file.c_str()); });
}

void SetIteration(Solver* solver, int iteration) {
  CHECK_GE(iteration, 0) << "the solver's iteration";
  Internals::SetIteration(solver, iteration);
}

caffe::SolverParameter ReadSolver(const py::object& source) {
  return ReadParam<caffe::SolverParameter>(source, &caffe::ReadSolverParamsFromTextFileOrDie, [](auto* param) {
    caffe::UpgradeSolverAsNeeded("the message", param);
    if (!param->has_snapshot_prefix()) param->set_snapshot_prefix("solver");  // a file's own name is the default
  });
}

// The solver keeps its parameters const to the outside, yet reads the rate from them at every iteration.
caffe::SolverParameter* MutableParam(const Solver& solver) {
  return const_cast<caffe::SolverParameter*>(&solver.param());
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
    py::gil_scoped_acquire gil;
    function();
  }
  const py::handle on_start_, on_gradients_ready_;
};

template <typename SolverType, typename Base>
py::class_<SolverType, Base, boost::shared_ptr<SolverType>> BindSolver(py::module_* m, const char* name,
                                                                       const char* doc) {
  return py::class_<SolverType, Base, boost::shared_ptr<SolverType>>(*m, name, doc)
      .def(py::init([](const py::object& solver_file) {
             const caffe::SolverParameter param = ReadSolver(solver_file);
             const Compute compute;
             return boost::shared_ptr<SolverType>(new SolverType(param));
           }),
           py::arg("solver_file"),
           "Build the solver of a prototxt, or of a caffe_pb2.SolverParameter, and its nets. Raises CaffeError.");
}

void BindParameter(py::module_* module) {
  typedef caffe::SolverParameter Param;
  py::class_<Param>(*module, "SolverParameter", R"(A solver's parameters, as solver.param.

Those that can be set hold from the next iteration on. All others are fixed when the solver is built: to_proto().)")
      .def_property("base_lr", &Param::base_lr, &Param::set_base_lr, "The rate that lr_policy starts from.")
      .def_property("momentum", &Param::momentum, &Param::set_momentum, "The share of the last update that is kept.")
      .def_property("weight_decay", &Param::weight_decay, &Param::set_weight_decay, "The regularization's factor.")
      .def_property("max_iter", &Param::max_iter, &Param::set_max_iter, "The iteration at which solve() ends.")
      .def_property("display", &Param::display, &Param::set_display, "Iterations between log lines; 0: none.")
      .def_property("test_interval", &Param::test_interval, &Param::set_test_interval,
                    "Iterations between tests of the test nets; 0: none.")
      .def_property("snapshot", &Param::snapshot, &Param::set_snapshot, "Iterations between snapshots; 0: none.")
      .def_property(
          "snapshot_prefix", [](const Param& p) { return p.snapshot_prefix(); },
          [](Param* p, const Path& prefix) { p->set_snapshot_prefix(prefix.string()); },
          "Snapshots are PREFIX_iter_N.caffemodel and .solverstate.")
      .def_property_readonly("layer_wise_reduce", &Param::layer_wise_reduce,
                             "Whether gradients travel layer by layer between several GPUs.")
      .def("to_proto", &ToMessage<caffe::SolverParameter>, "A copy of all parameters, a caffe_pb2.SolverParameter.");
}

}  // namespace

void BindSolvers(py::module_* module) {
  BindParameter(module);

  py::class_<Solver, boost::shared_ptr<Solver>>(*module, "Solver", py::dynamic_attr(), R"(What all solvers share.

    solver = caffe.get_solver("solver.prototxt")
    solver.step(100)
    solver.net.blobs["loss"].data, solver.iter
    solver.snapshot()

Ctrl-C raises KeyboardInterrupt after the iteration that is under way; the solver can then step on or snapshot.)")
      // Kept by the solver: what Python has set on them (callbacks, input arrays) must live as long as they do.
      .def_property_readonly(
          "net", [](const py::object& self) { return Keep(self, "_net", self.cast<Solver&>().net()); },
          "The net that is trained.")
      .def_property_readonly(
          "test_nets",
          [](const py::object& self) { return Keep(self, "_test_nets", self.cast<Solver&>().test_nets()); },
          "The nets that test, a list of Net; test() shares the trained net's weights with them.")
      .def_property("iter", &Solver::iter, &SetIteration,
                    "The number of iterations done. Setting it moves the learning rate and the records that CropData "
                    "reads along, as restore() does; weights and history stay.")
      .def_property_readonly("type", &Solver::type, "The type's name, as in a prototxt.")
      .def_property_readonly("param", &MutableParam, py::return_value_policy::reference_internal,
                             "The parameters, a SolverParameter.")
      .def("step", &Step, ReleaseGil(), py::arg("iterations"), "Train for so many iterations. Raises CaffeError.")
      .def("solve", &Solve, ReleaseGil(), py::arg("resume_file") = "",
           "Train to max_iter, from a .solverstate where one is given. Writes a snapshot at the end, also when Ctrl-C "
           "ends it, unless snapshot_after_train is false. Raises CaffeError.")
      .def(
          "restore",
          [](Solver* solver, const Path& filename) {
            CheckFile(filename);
            solver->Restore(filename.c_str());
          },
          ReleaseGil(), py::arg("state_file"), "Go on from a .solverstate, its weights included. Raises CaffeError.")
      .def("snapshot", &Solver::Snapshot, ReleaseGil(),
           "Write weights and state under param.snapshot_prefix. Raises CaffeError.")
      .def(
          "apply_update",
          [](Solver* solver) {
            CheckHistory(solver);
            solver->ApplyUpdate();
          },
          ReleaseGil(), "Update the parameters from their gradients; one more iteration is then done.")
      .def(
          "share_weights", [](Solver* solver, Net* net) { net->ShareTrainedLayersWith(solver->net().get()); },
          py::arg("net").none(false), "Let `net` use the memory of the trained parameters.")
      .def(
          "add_callback",
          [](const py::object& self, const py::function& on_start, const py::function& on_gradients_ready) {
            auto* callback = new PySolverCallback(on_start, on_gradients_ready);
            self.cast<Solver&>().add_callback(
                KeepCallback(self, callback, py::make_tuple(on_start, on_gradients_ready)));
          },
          py::arg("on_start"), py::arg("on_gradients_ready"),
          "Call on_start() before each iteration and on_gradients_ready() before each update. What one of them raises "
          "comes out of step().");

  typedef caffe::SGDSolver<Dtype> SGD;
  BindSolver<SGD, Solver>(module, "SGDSolver", "Stochastic gradient descent with momentum.")
      .def_property_readonly("lr", &SGD::GetLearningRate,
                             "The rate of the coming iteration, as lr_policy and base_lr have it.");
  BindSolver<caffe::NesterovSolver<Dtype>, SGD>(module, "NesterovSolver", "Nesterov's accelerated gradient.");
  BindSolver<caffe::AdaGradSolver<Dtype>, SGD>(module, "AdaGradSolver", "AdaGrad; momentum must be 0.");
  BindSolver<caffe::RMSPropSolver<Dtype>, SGD>(module, "RMSPropSolver", "RMSProp; momentum must be 0.");
  BindSolver<caffe::AdaDeltaSolver<Dtype>, SGD>(module, "AdaDeltaSolver", "AdaDelta.");
  BindSolver<caffe::AdamSolver<Dtype>, SGD>(module, "AdamSolver", "Adam.");

  module->def(
      "get_solver",
      [](const py::object& solver_file) {
        const caffe::SolverParameter param = ReadSolver(solver_file);
        const Compute compute;
        return boost::shared_ptr<Solver>(caffe::SolverRegistry<Dtype>::CreateSolver(param));
      },
      py::arg("solver_file"),
      "The solver of the type that a prototxt, or a caffe_pb2.SolverParameter, names. Raises CaffeError.");
}

}  // namespace pycaffe
