// gpu_settings.hpp and the choice of the device in Python.

#include "gpu_device.hpp"
#include "gpu_settings.hpp"
#include "pycaffe.hpp"

namespace pycaffe {

using caffe::Caffe;
namespace settings = caffe::gpu_settings;

void BindGpu(py::module_* module) {
  module->def(
      "set_mode_gpu",
      [] {
        caffe::CheckGpu();
        Caffe::set_mode(Caffe::GPU);
      },
      "Compute on the GPU. Raises CaffeError without a driver or device, or in a build without CUDA.");
  module->def(
      "set_device",
      [](int device) {
        caffe::CheckGpu();
        Caffe::SetDevice(device);
      },
      py::arg("device_id"), "Select the GPU by its number from 0. Raises CaffeError if it does not exist.");

  module->def("tf32", &settings::Tf32, "Whether products on the GPU round their factors to TF32.");
  module->def(
      "set_tf32", &settings::SetTf32, py::arg("on").noconvert(),
      R"(Set whether products on the GPU round their factors to TF32 (10 bits of mantissa), which is several times as fast.

Applies to this process from the next pass. The default is the environment variable CAFFE_TF32, else False. Raises
CaffeError for True in a build without CUDA.)");
  module->def("workspace_limit", &settings::WorkspaceLimit, "The maximum workspace of cuDNN's convolutions in bytes.");
  module->def("set_workspace_limit", &settings::SetWorkspaceLimit, py::arg("bytes").noconvert(),
              R"(Set the maximum workspace of cuDNN's convolutions in bytes.

Applies to this process from the next pass; each thread has its own workspace, shared by all layers. The default is the
environment variable CAFFE_CUDNN_WORKSPACE_MB, else 512 MiB; 0 allows only algorithms without a workspace. Raises
CaffeError for negative values, and for positive ones in a build without CUDA.)");
  module->def("deterministic", &settings::Deterministic, "Whether layers use only reproducible algorithms.");
  module->def("set_deterministic", &settings::SetDeterministic, py::arg("on").noconvert(),
              R"(Set whether layers use only reproducible algorithms: Convolution, Deconvolution, Embed.

Applies to this process from the next pass; Pooling with engine: CUDNN reads it when it is created. The default is the
environment variable CAFFE_CUDNN_DETERMINISTIC, else False. Raises CaffeError for True in a build without CUDA.)");
}

}  // namespace pycaffe
