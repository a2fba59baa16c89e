// Net. Names with an underscore are used by upstream's pycaffe.py, which defines the public ones.

#include "caffe/layers/crop_data_layer.hpp"
#include "caffe/layers/memory_data_layer.hpp"
#include "caffe/util/io.hpp"
#include "caffe/util/upgrade_proto.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

boost::shared_ptr<Net> Build(const py::object& source, int phase, int level, const std::vector<std::string>& stages,
                             const Path& weights) {
  const caffe::NetParameter param = ReadNet(source, phase, level, stages);
  if (!weights.empty()) CheckFile(weights);
  CheckRank();
  const Compute compute;
  const boost::shared_ptr<Net> net = Owned(new Net(param));
  if (!weights.empty()) net->CopyTrainedLayersFrom(weights.string());
  return net;
}

void Save(const Net& net, const Path& filename) {
  caffe::NetParameter param;
  net.ToProto(&param, false);
  caffe::WriteProtoToBinaryFile(param, filename.c_str());
}

// Has the interface of upstream's Net._set_input_arrays. The layer reads the arrays' memory, so the net keeps them.
void SetInputArrays(py::object self, const py::array& data, const py::array& labels) {
  Net* net = self.cast<Net*>();
  auto layer = net->layers().empty() ? boost::shared_ptr<caffe::MemoryDataLayer<Dtype>>()
                                     : boost::dynamic_pointer_cast<caffe::MemoryDataLayer<Dtype>>(net->layers()[0]);
  LOG_IF(FATAL, !layer) << "set_input_arrays needs a net whose first layer is a MemoryData layer";
  for (const py::array& array : {data, labels}) {
    LOG_IF(FATAL, !py::isinstance<py::array_t<Dtype>>(array)) << "data and labels must be float32";
    LOG_IF(FATAL, !(array.flags() & py::array::c_style)) << "data and labels must be C contiguous";
  }
  CHECK_EQ(data.ndim(), 4) << "data must have 4 axes (N x C x H x W)";
  CHECK_EQ(data.shape(1), layer->channels()) << "data has the wrong number of channels";
  CHECK_EQ(data.shape(2), layer->height()) << "data has the wrong height";
  CHECK_EQ(data.shape(3), layer->width()) << "data has the wrong width";
  CHECK_EQ(labels.size(), data.shape(0)) << "one label per image is required";
  CHECK_GT(data.shape(0), 0) << "number of images";
  CHECK_EQ(data.shape(0) % layer->batch_size(), 0) << "the number of images must be a multiple of the batch size";
  layer->Reset(static_cast<Dtype*>(const_cast<void*>(data.data())),
               static_cast<Dtype*>(const_cast<void*>(labels.data())), data.shape(0));
  py::list kept = Kept(self, "input arrays");
  kept.attr("clear")();
  kept.append(py::make_tuple(data, labels));
}

void CheckRange(const Net& net, int start, int end) {
  const int count = net.layers().size();
  LOG_IF(FATAL, start < 0 || start >= count) << "layer index " << start << " is out of range: the net has " << count;
  LOG_IF(FATAL, end < 0 || end >= count) << "layer index " << end << " is out of range: the net has " << count;
}

template <const std::vector<int>& (Net::*ids)(int) const>
std::vector<int> Ids(const Net& net, int layer) {
  CheckRange(net, layer, layer);
  return (net.*ids)(layer);
}

// The net's references to the instances of its Python layers, for the garbage collector: an instance may refer to the
// net.
int Traverse(PyObject* self, visitproc visit, void* arg) {
  if (const auto* net = static_cast<const Net*>(ValueOf(self))) {
    for (const auto& layer : net->layers()) Py_VISIT(InstanceOf(layer));
  }
  return VisitAttributes(self, &Traverse, visit, arg);
}

class PyNetCallback : public Net::Callback {
 public:
  explicit PyNetCallback(py::handle function) : function_(function) {}

 protected:
  void run(int layer) override {
    const AcquireGil gil;
    function_(layer);
  }
  const py::handle function_;
};

// before_forward and the other three callbacks
void BindCallback(py::class_<Net, boost::shared_ptr<Net>>* net, const char* name, void (Net::*add)(Net::Callback*),
                  const char* when) {
  const std::string doc = std::string("Call f(index of the layer) ") + when + " each layer; exceptions are passed on.";
  net->def(
      name,
      [add](const py::object& self, const py::function& f) {
        (self.cast<Net&>().*add)(KeepCallback(self, new PyNetCallback(f), py::make_tuple(f)));
      },
      py::arg("f"), doc.c_str());
}

}  // namespace

caffe::NetParameter ReadNet(const py::object& source) {
  return ReadParam<caffe::NetParameter>(source, &caffe::ReadNetParamsFromTextFileOrDie,
                                        [](auto* param) { caffe::UpgradeNetAsNeeded("the message", param); });
}

caffe::NetParameter ReadNet(const py::object& source, int phase, int level, const std::vector<std::string>& stages) {
  LOG_IF(FATAL, !caffe::Phase_IsValid(phase)) << "the phase is " << phase << ": it must be caffe.TRAIN ("
                                              << caffe::TRAIN << ") or caffe.TEST (" << caffe::TEST << ")";
  caffe::NetParameter param = ReadNet(source);
  param.mutable_state()->set_phase(static_cast<caffe::Phase>(phase));
  param.mutable_state()->set_level(level);
  for (const std::string& stage : stages) param.mutable_state()->add_stage(stage);
  return param;
}

void BindNet(py::module_* module) {
  py::class_<Net, boost::shared_ptr<Net>> net(*module, "Net", py::dynamic_attr(), Built(&Traverse),
                                              R"(A net, built from its prototxt.

    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="weights.caffemodel")
    scores = net.forward(data=images)["prob"]       # images: float32, of the shape of net.blobs["data"]

net.blobs[name] is a Blob, net.params[layer] the BlobVec of its weights and biases. Two threads may run two nets, but not
the same net (CaffeError). Modes, devices and seeds belong to a thread.)");
  net.def(py::init([](const py::object& network_file, int phase, int level,
                      const std::optional<std::vector<std::string>>& stages, const py::object& weights) {
            return Build(network_file, phase, level, stages.value_or(std::vector<std::string>()),
                         weights.is_none() ? Path() : PathOf(weights));
          }),
          py::arg("network_file"), py::arg("phase"), py::arg("level") = 0, py::arg("stages") = py::none(),
          py::arg("weights") = py::none(),
          R"(Build a net from a prototxt or a caffe_pb2.NetParameter.

phase: caffe.TRAIN or caffe.TEST. level, stages: for include and exclude rules. weights: a .caffemodel or .h5.
Raises CaffeError; if a prototxt does not parse, the message starts with file:line:column.)")
      .def(py::init([](const py::object& network_file, const Path& weights, int phase) {
             return Build(network_file, phase, 0, {}, weights);
           }),
           py::arg("network_file"), py::arg("weights"), py::arg("phase"), "The old order of arguments.")
      .def(
          "_forward",
          [](Net* net, int start, int end) {
            CheckRange(*net, start, end);
            const InUse in_use(net, "net");
            return net->ForwardFromTo(start, end);
          },
          ReleaseGil(), py::arg("start"), py::arg("end"), "Run layers start to end (both included); returns the loss.")
      .def(
          "_backward",
          [](Net* net, int start, int end) {
            CheckRange(*net, start, end);
            const InUse in_use(net, "net");
            net->BackwardFromTo(start, end);
          },
          ReleaseGil(), py::arg("start"), py::arg("end"), "Run layers start down to end (both included) backward.")
      .def(
          "reshape",
          [](Net* net) {
            const InUse in_use(net, "net");
            net->Reshape();
          },
          ReleaseGil(), "Propagate new input shapes through all layers, as forward() also does.")
      .def(
          "seek_data",
          [](Net* net, uint64_t batch) {
            const InUse in_use(net, "net");
            caffe::SeekCropData(*net, batch);
          },
          ReleaseGil(), py::arg("batch"),
          "Continue reading at batch number `batch` in each CropData layer, counted from its own "
          "crop_data_param.iteration.")
      .def("clear_param_diffs", &Net::ClearParamDiffs, ReleaseGil(), "Set the parameters' gradients to zero.")
      .def(
          "copy_from",
          [](Net* net, const Path& filename) {
            const InUse in_use(net, "net");
            CheckFile(filename);
            net->CopyTrainedLayersFrom(filename.string());
          },
          ReleaseGil(), py::arg("filename"),
          R"(Load the weights of layers with the same name from a .caffemodel or .h5.

Raises CaffeError if shapes differ; nothing is then copied.)")
      .def("share_with", &Net::ShareTrainedLayersWith, py::arg("other").none(false),
           "Share the parameters of another net, by layer name. Raises CaffeError if shapes differ.")
      .def_property_readonly("_blob_loss_weights", &Net::blob_loss_weights, "The loss weight of each blob.")
      .def("_bottom_ids", &Ids<&Net::bottom_ids>, py::arg("layer"), "The indices of a layer's bottoms.")
      .def("_top_ids", &Ids<&Net::top_ids>, py::arg("layer"), "The indices of a layer's tops.")
      .def_property_readonly("_blobs", [](const Net& net) { return net.blobs(); })
      .def_property_readonly(
          "layers", [](const Net& net) { return net.layers(); },
          "The layers in order, a list of Layer; a Python layer is the instance of its class.")
      .def_property_readonly("_blob_names", &Net::blob_names)
      .def_property_readonly("_layer_names", &Net::layer_names)
      .def_property_readonly("_inputs", &Net::input_blob_indices)
      .def_property_readonly("_outputs", &Net::output_blob_indices)
      .def("_set_input_arrays", &SetInputArrays, py::arg("data"), py::arg("labels"))
      .def("save", &Save, ReleaseGil(), py::arg("filename"),
           "Write the weights as a .caffemodel. Raises CaffeError and leaves the old file unchanged if it fails.")
      .def(
          "save_hdf5",
          [](const Net& net, const Path& filename, bool write_diff) { net.ToHDF5(filename.string(), write_diff); },
          ReleaseGil(), py::arg("filename"), py::arg("write_diff") = false,
          "Write the weights, and with write_diff the gradients, as HDF5. Raises CaffeError.")
      .def(
          "load_hdf5",
          [](Net* net, const Path& filename) {
            const InUse in_use(net, "net");
            CheckFile(filename);
            net->CopyTrainedLayersFromHDF5(filename.string());
          },
          ReleaseGil(), py::arg("filename"), "Load weights written by save_hdf5. Raises CaffeError.");
  BindCallback(&net, "before_forward", &Net::add_before_forward, "before the forward pass of");
  BindCallback(&net, "after_forward", &Net::add_after_forward, "after the forward pass of");
  BindCallback(&net, "before_backward", &Net::add_before_backward, "before the backward pass of");
  BindCallback(&net, "after_backward", &Net::add_after_backward, "after the backward pass of");
}

}  // namespace pycaffe
