// Layer, and layers written in Python: type "Python".

#include "pycaffe.hpp"

namespace pycaffe {
namespace {

typedef std::vector<Blob*> Blobs;

// Blobs of a net know their owner (CMakeLists.txt), so that a layer may keep one after the net is deleted.
py::list ToPython(const Blobs& blobs) {
  py::list list;
  for (Blob* blob : blobs) {
    if (const boost::shared_ptr<Blob> owner = blob->weak_from_this().lock()) {
      list.append(owner);
    } else {
      list.append(py::cast(blob, py::return_value_policy::reference));
    }
  }
  return list;
}

/// The C++ object of an instance of a subclass of caffe.Layer; both have the same lifetime.
/// Has the interface of upstream's include/caffe/layers/python_layer.hpp. Python exceptions pass through the net.
class PythonLayer : public Layer {
 public:
  using Layer::Layer;

  const char* type() const override { return "Python"; }

  void LayerSetUp(const Blobs& bottom, const Blobs& top) override {
    const AcquireGil gil;
    const py::object self = Self();
    self.attr("param_str") = layer_param_.python_param().param_str();
    self.attr("phase") = static_cast<int>(phase_);
    self.attr("setup")(ToPython(bottom), ToPython(top));
  }
  void Reshape(const Blobs& bottom, const Blobs& top) override {
    const AcquireGil gil;
    Self().attr("reshape")(ToPython(bottom), ToPython(top));
  }

 protected:
  void Forward_cpu(const Blobs& bottom, const Blobs& top) override {
    const AcquireGil gil;
    Self().attr("forward")(ToPython(bottom), ToPython(top));
  }
  void Backward_cpu(const Blobs& top, const std::vector<bool>& propagate_down, const Blobs& bottom) override {
    const AcquireGil gil;
    Self().attr("backward")(ToPython(top), propagate_down, ToPython(bottom));
  }

 private:
  py::object Self() { return py::cast(static_cast<Layer*>(this), py::return_value_policy::reference); }
};

// The net's reference to a Python layer.
struct Release {
  PyObject* instance;
  void operator()(Layer*) const {
    if (!Py_IsInitialized()) return;
    const AcquireGil gil;
    Py_DECREF(instance);
  }
};

caffe::LayerParameter FromPython(const py::object& message) {
  if (!py::hasattr(message, "SerializeToString")) throw py::type_error("expected a caffe.LayerParameter");
  return ReadParam<caffe::LayerParameter>(
      message, [](const std::string&, caffe::LayerParameter*) {}, [](caffe::LayerParameter*) {});
}

boost::shared_ptr<Layer> CreatePythonLayer(const caffe::LayerParameter& param) {
  const AcquireGil gil;
  const std::string module = param.python_param().module(), name = param.python_param().layer();
  LOG_IF(FATAL, module.empty() || name.empty())
      << "python_param { module: \"...\" layer: \"...\" } is required: a Python module and its class";
  const py::object type = py::module_::import(module.c_str()).attr(name.c_str());
  py::object instance = type(ToMessage(param));
  LOG_IF(FATAL, !py::isinstance<Layer>(instance) || !dynamic_cast<PythonLayer*>(instance.cast<Layer*>()))
      << module << "." << name << " is not a subclass of caffe.Layer";
  Layer* layer = instance.cast<Layer*>();
  return boost::shared_ptr<Layer>(layer, Release{instance.release().ptr()});
}

caffe::LayerRegisterer<Dtype> register_python_layer("Python", &CreatePythonLayer);

// For a Python class without the method. A layer of Caffe would access invalid memory with blobs that are not those of
// its net.
void SetUp(Layer* layer, const py::object& bottom, const py::object& top) {
  LOG_IF(FATAL, !dynamic_cast<PythonLayer*>(layer))
      << "a layer of type " << layer->type() << " can only be set up by its net";
}

void Reshape(const py::object& self, const py::object& bottom, const py::object& top) {
  const Layer* layer = self.cast<Layer*>();
  LOG_IF(FATAL, !dynamic_cast<const PythonLayer*>(layer))
      << "a layer of type " << layer->type() << " can only be reshaped by its net: net.reshape()";
  const std::string name = py::str(py::type::of(self).attr("__name__"));
  PyErr_SetString(PyExc_NotImplementedError, (name + " has no method reshape(self, bottom, top)").c_str());
  throw py::error_already_set();
}

}  // namespace

PyObject* InstanceOf(const boost::shared_ptr<Layer>& layer) {
  const Release* release = boost::get_deleter<Release>(layer);
  return release == nullptr ? nullptr : release->instance;
}

void BindLayer(py::module_* module) {
  py::class_<Layer, PythonLayer, boost::shared_ptr<Layer>>(*module, "Layer", py::dynamic_attr(), Built(),
                                                           R"(A layer of a net, and the base class of layers in Python.

    class Double(caffe.Layer):                      # in a module that Python can import, or in __main__
        def setup(self, bottom, top): ...           # once; self.param_str, self.phase; self.blobs.add_blob(*shape)
        def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
        def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
        def backward(self, top, propagate_down, bottom):
            if propagate_down[0]: bottom[0].diff[...] = 2 * top[0].diff

    layer { name: "double" type: "Python" bottom: "x" top: "y"
            python_param { module: "my_layers" layer: "Double" param_str: "..." } }

`bottom` and `top` are lists of Blob. An exception that a method raises comes out of the call that ran the net.
net.layers contains the instance. The `caffe` program does not support Python layers.)")
      .def(py::init([](const py::object& param) { return new PythonLayer(FromPython(param)); }), py::arg("param"),
           "Called by the net; `param` is the caffe_pb2.LayerParameter of the prototxt.")
      .def_property_readonly(
          "blobs", [](Layer* layer) -> BlobVec& { return layer->blobs(); }, py::return_value_policy::reference_internal,
          "The parameters, a BlobVec: weights and biases for a convolution.")
      .def("setup", &SetUp, py::arg("bottom"), py::arg("top"), "Called once, when the net is built.")
      .def("reshape", &Reshape, py::arg("bottom"), py::arg("top"),
           "Set the shapes of the tops; called before each forward pass.")
      .def_property_readonly("type", &Layer::type, "The name of the type, as in a prototxt.");
}

}  // namespace pycaffe
