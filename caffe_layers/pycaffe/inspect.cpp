// Nets without weights, data or files, for tools that read prototxt.

#include <google/protobuf/text_format.h>

#include "no_fill.hpp"
#include "parse_text.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

typedef google::protobuf::TextFormat::ParseInfoTree Tree;

// Positions of `tree`'s fields, such as "layer[2].bottom[0]" -> line, counted from 1.
void Places(const google::protobuf::Message& message, const Tree& tree, const std::string& path, py::dict* places) {
  const auto& get = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  get.ListFields(message, &fields);
  for (const auto* field : fields) {
    const int count = field->is_repeated() ? get.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      const int index = field->is_repeated() ? i : -1;
      std::string name = path + field->name();
      if (field->is_repeated()) name += "[" + std::to_string(i) + "]";
      const auto place = tree.GetLocation(field, index);
      if (place.line >= 0) (*places)[name.c_str()] = place.line + 1;
      const Tree* nested = tree.GetTreeForNested(field, index);
      if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE || nested == nullptr) continue;
      const auto& inner =
          field->is_repeated() ? get.GetRepeatedMessage(message, field, i) : get.GetMessage(message, field);
      Places(inner, *nested, name + ".", places);
    }
  }
}

template <typename Param>
py::dict PlacesIn(const std::string& text, const std::string& filename) {
  Param param;
  Tree tree;
  caffe::ParseText(text, filename, &param, &tree);
  py::dict places;
  Places(param, tree, "", &places);
  return places;
}

py::dict PlacesOf(const std::string& text, const std::string& message, const std::string& filename) {
  return message == "SolverParameter" ? PlacesIn<caffe::SolverParameter>(text, filename)
                                      : PlacesIn<caffe::NetParameter>(text, filename);
}

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
  m.def("places", &PlacesOf, py::arg("text"), py::arg("message"), py::arg("filename"),
        R"(The lines of a prototxt's fields, {"layer[2].bottom[0]": 17, ...}. `message` is "NetParameter" or
"SolverParameter". Raises CaffeError if the text does not parse.)");
  m.def("upgrade", &Upgrade, py::arg("net"),
        "The NetParameter of a net in the current format. `net` is a path or a NetParameter. Raises CaffeError.");
  m.def("resolve", &Resolve, py::arg("net"), py::arg("phase"), py::arg("level") = 0,
        py::arg("stages") = std::vector<std::string>(),
        R"(The NetParameter that Caffe builds in a phase: upgraded, and filtered by include and exclude rules.

`net` is a path or a NetParameter. Raises CaffeError.)");
  m.def("outline", &Outline, py::arg("net"),
        R"(A Net whose parameters have shapes but no values, and take no memory.

`net` is a result of resolve(). Raises CaffeError as Net does.)");
}

}  // namespace pycaffe
