// Shapes of nets without their weights, data or files, for tools that read prototxt.

#include "no_fill.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

py::object Upgrade(const py::object& net) { return ToMessage(ReadNet(net)); }

py::object Resolve(const py::object& net, int phase, int level, const std::vector<std::string>& stages) {
  caffe::NetParameter filtered;
  Net::FilterNet(ReadNet(net, phase, level, stages), &filtered);
  return ToMessage(filtered);
}

boost::shared_ptr<Net> Outline(const py::object& net) {
  const caffe::NetParameter param = ReadNet(net);
  const Compute compute;
  const caffe::NoFill no_fill;
  return boost::shared_ptr<Net>(new Net(param));
}

}  // namespace

void BindInspect(py::module_* module) {
  py::module_ m = module->def_submodule("_inspect", "Nets without weights, data or files.");
  m.def("upgrade", &Upgrade, py::arg("net"),
        "The NetParameter of a net in today's format. `net` is a path or a NetParameter. Raises CaffeError.");
  m.def("resolve", &Resolve, py::arg("net"), py::arg("phase"), py::arg("level") = 0,
        py::arg("stages") = std::vector<std::string>(),
        R"(The NetParameter that Caffe builds in that phase: old formats upgraded, include and exclude rules followed.

`net` is a path or a NetParameter. Raises CaffeError.)");
  m.def("outline", &Outline, py::arg("net"),
        R"(A Net whose parameters have shapes and no values: nothing is filled, so no memory is taken for them.

`net` is what resolve() returned. Raises CaffeError as Net does.)");
}

}  // namespace pycaffe
