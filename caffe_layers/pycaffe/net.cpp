// Blob, Layer and Net.

#include "caffe/layers/memory_data_layer.hpp"
#include "caffe/util/io.hpp"
#include "pycaffe.hpp"

namespace pycaffe {
namespace {

// A view that keeps its memory alive, also when the blob grows and takes another.
py::array View(const Blob& blob, const boost::shared_ptr<caffe::SyncedMemory>& memory, Dtype* values) {
  const std::vector<py::ssize_t> shape(blob.shape().begin(), blob.shape().end());
  typedef boost::shared_ptr<caffe::SyncedMemory> Owner;
  const py::capsule owner(new Owner(memory), [](void* p) { delete static_cast<Owner*>(p); });
  return py::array_t<Dtype>(shape, values, owner);
}

std::vector<int> Shape(const py::args& args) {
  std::vector<int> shape;
  for (const py::handle& arg : args) shape.push_back(arg.cast<int>());
  return shape;
}

boost::shared_ptr<Net> Build(const std::string& filename, int phase, int level, const std::vector<std::string>& stages,
                             const std::string& weights) {
  CheckFile(filename);
  if (!weights.empty()) CheckFile(weights);
  boost::shared_ptr<Net> net(new Net(filename, static_cast<caffe::Phase>(phase), level, &stages));
  if (!weights.empty()) net->CopyTrainedLayersFrom(weights);
  return net;
}

void Save(const Net& net, const std::string& filename) {
  caffe::NetParameter param;
  net.ToProto(&param, false);
  caffe::WriteProtoToBinaryFile(param, filename.c_str());
}

// Interface of upstream's Net._set_input_arrays. The layer reads the arrays' own memory, so the net keeps them.
void SetInputArrays(py::object self, const py::array& data, const py::array& labels) {
  Net* net = self.cast<Net*>();
  auto layer = net->layers().empty() ? boost::shared_ptr<caffe::MemoryDataLayer<Dtype>>()
                                     : boost::dynamic_pointer_cast<caffe::MemoryDataLayer<Dtype>>(net->layers()[0]);
  CHECK(layer) << "set_input_arrays needs a net whose first layer is a MemoryData layer";
  for (const py::array& array : {data, labels}) {
    CHECK(py::isinstance<py::array_t<Dtype>>(array)) << "data and labels must be float32";
    CHECK(array.flags() & py::array::c_style) << "data and labels must be C contiguous";
  }
  CHECK_EQ(data.ndim(), 4) << "data must have 4 axes (N x C x H x W)";
  CHECK_EQ(data.shape(1), layer->channels()) << "data has the wrong number of channels";
  CHECK_EQ(data.shape(2), layer->height()) << "data has the wrong height";
  CHECK_EQ(data.shape(3), layer->width()) << "data has the wrong width";
  CHECK_EQ(labels.size(), data.shape(0)) << "there must be one label for each image";
  CHECK_EQ(data.shape(0) % layer->batch_size(), 0) << "the number of images must be a multiple of the batch size";
  layer->Reset(static_cast<Dtype*>(const_cast<void*>(data.data())),
               static_cast<Dtype*>(const_cast<void*>(labels.data())), data.shape(0));
  self.attr("_input_arrays") = py::make_tuple(data, labels);
}

void CheckRange(const Net& net, int start, int end) {
  const int count = net.layers().size();
  CHECK(start >= 0 && start < count) << "there is no layer " << start << ": the net has " << count;
  CHECK(end >= 0 && end < count) << "there is no layer " << end << ": the net has " << count;
}

class PyNetCallback : public Net::Callback {
 public:
  explicit PyNetCallback(py::function run) : run_(std::move(run)) {}

 protected:
  void run(int layer) override {
    py::gil_scoped_acquire gil;
    run_(layer);
  }
  py::function run_;
};

}  // namespace

void BindNet(py::module_* module) {
  py::module_& m = *module;

  py::class_<Blob, boost::shared_ptr<Blob>>(m, "Blob", "Values and gradients of one array, float32.")
      .def_property_readonly("shape", [](const Blob& blob) { return blob.shape(); })
      .def_property_readonly("num", &Blob::num)
      .def_property_readonly("channels", &Blob::channels)
      .def_property_readonly("height", &Blob::height)
      .def_property_readonly("width", &Blob::width)
      .def_property_readonly("count", [](const Blob& blob) { return blob.count(); })
      .def(
          "reshape", [](Blob* blob, const py::args& args) { blob->Reshape(Shape(args)); },
          "Give the blob a new shape; views taken before are no longer its memory when it grows.")
      .def_property_readonly(
          "data",
          [](Blob* blob) {
            Dtype* values = blob->mutable_cpu_data();
            return View(*blob, blob->data(), values);
          },
          "The values: a float32 view of the blob's own memory.")
      .def_property_readonly(
          "diff",
          [](Blob* blob) {
            Dtype* values = blob->mutable_cpu_diff();
            return View(*blob, blob->diff(), values);
          },
          "The gradients: a float32 view of the blob's own memory.");

  py::bind_vector<BlobVec>(m, "BlobVec").def("add_blob", [](BlobVec* blobs, const py::args& args) {
    blobs->push_back(boost::shared_ptr<Blob>(new Blob(Shape(args))));
  });

  py::class_<Layer, boost::shared_ptr<Layer>>(m, "Layer", "One layer of a net.")
      .def_property_readonly(
          "blobs", [](Layer* layer) -> BlobVec& { return layer->blobs(); }, py::return_value_policy::reference_internal)
      .def_property_readonly("type", &Layer::type);

  py::class_<Net, boost::shared_ptr<Net>>(m, "Net", "A net built from a prototxt.", py::dynamic_attr())
      .def(py::init([](const std::string& network_file, int phase, int level, const py::object& stages,
                       const py::object& weights) {
             const auto names = stages.is_none() ? std::vector<std::string>() : stages.cast<std::vector<std::string>>();
             const auto file = weights.is_none() ? std::string() : py::str(weights).cast<std::string>();
             py::gil_scoped_release release;
             return Build(network_file, phase, level, names, file);
           }),
           py::arg("network_file"), py::arg("phase"), py::arg("level") = 0, py::arg("stages") = py::none(),
           py::arg("weights") = py::none(),
           "Build the net of a prototxt for caffe.TRAIN or caffe.TEST. Raises CaffeError.")
      .def(py::init([](const std::string& network_file, const std::string& weights, int phase) {
             return Build(network_file, phase, 0, {}, weights);
           }),
           ReleaseGil(), py::arg("network_file"), py::arg("weights"), py::arg("phase"), "Upstream's older form.")
      .def(
          "_forward",
          [](Net* net, int start, int end) {
            CheckRange(*net, start, end);
            return net->ForwardFromTo(start, end);
          },
          ReleaseGil())
      .def(
          "_backward",
          [](Net* net, int start, int end) {
            CheckRange(*net, start, end);
            net->BackwardFromTo(start, end);
          },
          ReleaseGil())
      .def("reshape", &Net::Reshape, "Carry new input shapes through all layers.")
      .def("clear_param_diffs", &Net::ClearParamDiffs, "Set the parameters' gradients to zero.")
      .def(
          "copy_from",
          [](Net* net, const std::string& filename) {
            CheckFile(filename);
            net->CopyTrainedLayersFrom(filename);
          },
          ReleaseGil(), py::arg("filename"), "Take over the weights of layers with the same name.")
      .def("share_with", &Net::ShareTrainedLayersWith, py::arg("other").none(false))
      .def_property_readonly("_blob_loss_weights", &Net::blob_loss_weights)
      .def("_bottom_ids", &Net::bottom_ids, py::arg("layer"))
      .def("_top_ids", &Net::top_ids, py::arg("layer"))
      .def_property_readonly("_blobs", [](const Net& net) { return net.blobs(); })
      .def_property_readonly("layers", [](const Net& net) { return net.layers(); })
      .def_property_readonly("_blob_names", &Net::blob_names)
      .def_property_readonly("_layer_names", &Net::layer_names)
      .def_property_readonly("_inputs", &Net::input_blob_indices)
      .def_property_readonly("_outputs", &Net::output_blob_indices)
      .def("_set_input_arrays", &SetInputArrays)
      .def("save", &Save, ReleaseGil(), py::arg("filename"), "Write the weights as a .caffemodel.")
      .def("save_hdf5", &Net::ToHDF5, ReleaseGil(), py::arg("filename"), py::arg("write_diff") = false)
      .def(
          "load_hdf5",
          [](Net* net, const std::string& filename) {
            CheckFile(filename);
            net->CopyTrainedLayersFromHDF5(filename);
          },
          ReleaseGil(), py::arg("filename"))
      .def("before_forward", [](Net* net, py::function f) { net->add_before_forward(new PyNetCallback(std::move(f))); })
      .def("after_forward", [](Net* net, py::function f) { net->add_after_forward(new PyNetCallback(std::move(f))); })
      .def("before_backward",
           [](Net* net, py::function f) { net->add_before_backward(new PyNetCallback(std::move(f))); })
      .def("after_backward",
           [](Net* net, py::function f) { net->add_after_backward(new PyNetCallback(std::move(f))); });
}

}  // namespace pycaffe
