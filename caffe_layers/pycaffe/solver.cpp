// Solver and its kinds.

#include <Python.h>

#include "caffe/sgd_solvers.hpp"
#include "caffe/util/upgrade_proto.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

// Asked once an iteration: a Ctrl-C that Python has seen stops the solver after it.
class Interrupt {
 public:
  caffe::SolverAction::Enum operator()() {
    py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() == 0 ? caffe::SolverAction::NONE : caffe::SolverAction::STOP;
  }
};

void RaiseIfInterrupted() {
  py::gil_scoped_acquire gil;
  if (PyErr_Occurred()) throw py::error_already_set();
}

void Step(Solver* solver, int iterations) {
  CHECK_GE(iterations, 0) << "the number of iterations to step";
  solver->SetActionFunction(Interrupt());
  solver->Step(iterations);
  RaiseIfInterrupted();
}

void Solve(Solver* solver, const std::string& resume_file) {
  if (!resume_file.empty()) CheckFile(resume_file);
  solver->SetActionFunction(Interrupt());
  solver->Solve(resume_file.empty() ? NULL : resume_file.c_str());
  RaiseIfInterrupted();
}

// The solver keeps its parameters const to the outside, yet reads the rate from them at every iteration.
caffe::SolverParameter* MutableParam(const Solver& solver) {
  return const_cast<caffe::SolverParameter*>(&solver.param());
}

caffe::SolverParameter ReadParam(const std::string& filename) {
  CheckFile(filename);
  caffe::SolverParameter param;
  caffe::ReadSolverParamsFromTextFileOrDie(filename, &param);
  return param;
}

class PySolverCallback : public Solver::Callback {
 public:
  PySolverCallback(py::function on_start, py::function on_gradients_ready)
      : on_start_(std::move(on_start)), on_gradients_ready_(std::move(on_gradients_ready)) {}

 protected:
  void on_start() override { Call(on_start_); }
  void on_gradients_ready() override { Call(on_gradients_ready_); }

 private:
  static void Call(const py::function& function) {
    py::gil_scoped_acquire gil;
    function();
  }
  py::function on_start_, on_gradients_ready_;
};

// Names the rate that SGDSolver keeps to itself and its kin.
struct Rate : public caffe::SGDSolver<Dtype> {
  static Dtype Of(caffe::SGDSolver<Dtype>* solver) { return (solver->*&Rate::GetLearningRate)(); }
};

template <typename SolverType, typename Base>
py::class_<SolverType, Base, boost::shared_ptr<SolverType>> BindSolver(py::module_* m, const char* name) {
  return py::class_<SolverType, Base, boost::shared_ptr<SolverType>>(*m, name).def(
      py::init([](const std::string& solver_file) {
        return boost::shared_ptr<SolverType>(new SolverType(ReadParam(solver_file)));
      }),
      ReleaseGil(), py::arg("solver_file"), "Build the solver of a prototxt and its nets. Raises CaffeError.");
}

}  // namespace

void BindSolvers(py::module_* module) {
  py::module_& m = *module;

  py::class_<caffe::SolverParameter>(m, "SolverParameter",
                                     "A solver's parameters; base_lr and snapshot_prefix may be set while it trains.")
      .def_property("base_lr", &caffe::SolverParameter::base_lr, &caffe::SolverParameter::set_base_lr)
      .def_property_readonly("max_iter", &caffe::SolverParameter::max_iter)
      .def_property_readonly("display", &caffe::SolverParameter::display)
      .def_property_readonly("layer_wise_reduce", &caffe::SolverParameter::layer_wise_reduce)
      .def_property(
          "snapshot_prefix", [](const caffe::SolverParameter& p) { return p.snapshot_prefix(); },
          [](caffe::SolverParameter* p, const std::string& prefix) { p->set_snapshot_prefix(prefix); });

  py::class_<Solver, boost::shared_ptr<Solver>>(m, "Solver", "What all solvers share.", py::dynamic_attr())
      .def_property_readonly("net", [](Solver* solver) { return solver->net(); })
      .def_property_readonly("test_nets", [](Solver* solver) { return solver->test_nets(); })
      .def_property_readonly("iter", &Solver::iter)
      .def_property_readonly("type", &Solver::type)
      .def_property_readonly("param", &MutableParam, py::return_value_policy::reference_internal)
      .def("step", &Step, ReleaseGil(), py::arg("iterations"),
           "Train for so many iterations. Ctrl-C raises KeyboardInterrupt after the iteration that is under way.")
      .def("solve", &Solve, ReleaseGil(), py::arg("resume_file") = "", "Train to max_iter.")
      .def(
          "restore",
          [](Solver* solver, const std::string& filename) {
            CheckFile(filename);
            solver->Restore(filename.c_str());
          },
          ReleaseGil(), py::arg("state_file"), "Go on from a .solverstate.")
      .def("snapshot", &Solver::Snapshot, ReleaseGil(), "Write weights and state under snapshot_prefix.")
      .def("apply_update", &Solver::ApplyUpdate, ReleaseGil(), "Update the parameters from their gradients.")
      .def(
          "share_weights", [](Solver* solver, Net* net) { net->ShareTrainedLayersWith(solver->net().get()); },
          py::arg("net").none(false))
      .def("add_callback", [](Solver* solver, py::function on_start, py::function on_gradients_ready) {
        solver->add_callback(new PySolverCallback(std::move(on_start), std::move(on_gradients_ready)));
      });

  typedef caffe::SGDSolver<Dtype> SGD;
  BindSolver<SGD, Solver>(module, "SGDSolver")
      .def_property_readonly("learning_rate", &Rate::Of,
                             "The rate of the coming iteration, as lr_policy and base_lr have it.");
  BindSolver<caffe::NesterovSolver<Dtype>, SGD>(module, "NesterovSolver");
  BindSolver<caffe::AdaGradSolver<Dtype>, SGD>(module, "AdaGradSolver");
  BindSolver<caffe::RMSPropSolver<Dtype>, SGD>(module, "RMSPropSolver");
  BindSolver<caffe::AdaDeltaSolver<Dtype>, SGD>(module, "AdaDeltaSolver");
  BindSolver<caffe::AdamSolver<Dtype>, SGD>(module, "AdamSolver");

  m.def(
      "get_solver",
      [](const std::string& filename) {
        return boost::shared_ptr<Solver>(caffe::SolverRegistry<Dtype>::CreateSolver(ReadParam(filename)));
      },
      ReleaseGil(), py::arg("solver_file"), "The solver of the type that a solver prototxt names. Raises CaffeError.");
}

}  // namespace pycaffe
