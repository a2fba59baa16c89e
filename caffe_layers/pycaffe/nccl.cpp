// NCCL: several GPUs, one process per GPU. Has the interface of upstream's _caffe.cpp and parallel.hpp.

#include "caffe/parallel.hpp"
#include "pycaffe.hpp"

namespace pycaffe {

void BindNccl(py::module_* module) {
#ifdef USE_NCCL
  typedef caffe::NCCL<Dtype> Nccl;
  module->def(
      "has_nccl", [] { return true; }, "Whether this build can train on several GPUs.");
  py::class_<Nccl, boost::shared_ptr<Nccl>>(*module, "NCCL", R"(Sums the gradients of several GPUs, one process per GPU.

    caffe.set_multiprocess(True), caffe.set_solver_count(n), caffe.set_solver_rank(rank), caffe.set_device(rank)
    solver = caffe.get_solver("solver.prototxt")
    nccl = caffe.NCCL(solver, uid)              # uid: NCCL.new_uid() of one of the processes
    nccl.bcast(); solver.add_callback(nccl); solver.step(n))")
      .def(py::init([](const boost::shared_ptr<Solver>& solver, const std::string& uid) {
             CHECK_EQ(uid.size(), size_t{NCCL_UNIQUE_ID_BYTES}) << "size of the uid in bytes: use NCCL.new_uid()";
             return Owned(new Nccl(solver, uid));  // its destructor may wait for the other processes
           }),
           ReleaseGil(), py::arg("solver").none(false), py::arg("uid"),
           "Join the processes with this uid; returns when all have joined.")
      .def_static(
          "new_uid", [] { return py::bytes(Nccl::new_uid()); }, "A unique name of a group of processes, bytes.")
      .def("bcast", &Nccl::Broadcast, ReleaseGil(), "Copy the weights of rank 0 to all processes.");
  const auto solver = module->attr("Solver"), net = module->attr("Net");
  solver.attr("add_callback") = py::cpp_function(
      [](const py::object& self, const boost::shared_ptr<Nccl>& nccl) {
        Kept(self, "callbacks").append(nccl);
        self.cast<Solver&>().add_callback(nccl.get());
      },
      py::name("add_callback"), py::is_method(solver), py::sibling(solver.attr("add_callback")),
      py::arg("nccl").none(false), "Sum the gradients over all GPUs before each update.");
  net.attr("after_backward") = py::cpp_function(
      [](const py::object& self, const boost::shared_ptr<Nccl>& nccl) {
        Kept(self, "callbacks").append(nccl);
        self.cast<Net&>().add_after_backward(nccl.get());
      },
      py::name("after_backward"), py::is_method(net), py::sibling(net.attr("after_backward")),
      py::arg("nccl").none(false), "Sum each layer's gradients over all GPUs as soon as they are computed.");
#else
  struct Nccl {};
  module->def(
      "has_nccl", [] { return false; }, "Whether this build can train on several GPUs.");
  py::class_<Nccl>(*module, "NCCL", "Not supported by this build.")
      .def(py::init([](const py::args&, const py::kwargs&) -> Nccl* {
        LOG(FATAL) << "this build of Caffe has no NCCL: train on one GPU";
        return nullptr;
      }));
#endif
}

}  // namespace pycaffe
