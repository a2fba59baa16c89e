// How Caffe computes on the GPU: gpu_settings.hpp in Python, and the choice of the device.

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
      "Compute on the GPU. Raises CaffeError where there is none: no driver, no device, a build for the CPU alone.");
  module->def(
      "set_device",
      [](int device) {
        caffe::CheckGpu();
        Caffe::SetDevice(device);
      },
      py::arg("device_id"),
      "Choose the GPU by its number from 0. Raises CaffeError where there is none of that number.");

  module->def("tf32", &settings::Tf32, "Whether products on the GPU may round their factors to TF32.");
  module->def("set_tf32", &settings::SetTf32, py::arg("on").noconvert(),
              R"(Let products on the GPU round their factors to TF32: 10 bits of mantissa, and several times as fast.

Of this process, from the next pass on. Off, unless CAFFE_TF32=1 was in the environment. Raises CaffeError for True in a
build without CUDA.)");
  module->def("workspace_limit", &settings::WorkspaceLimit,
              "How many bytes of the GPU cuDNN's convolutions may take beside the blobs, all layers together.");
  module->def("set_workspace_limit", &settings::SetWorkspaceLimit, py::arg("bytes").noconvert(),
              R"(Say how many bytes of the GPU cuDNN's convolutions may take beside the blobs, all layers together.

Of this process, from the next pass on; each thread that computes has a workspace of its own. 512 MiB, unless
CAFFE_CUDNN_WORKSPACE_MB was in the environment; 0 allows only algorithms that need none. Raises CaffeError for less, and
for more in a build without CUDA.)");
  module->def("deterministic", &settings::Deterministic,
              "Whether layers only use algorithms that give the same bits in every run.");
  module->def("set_deterministic", &settings::SetDeterministic, py::arg("on").noconvert(),
              R"(Let layers only use algorithms that give the same bits in every run: Convolution, Deconvolution, Embed.

Of this process, from the next pass on; Pooling with engine: CUDNN takes it from when it is made. Off, unless
CAFFE_CUDNN_DETERMINISTIC=1 was in the environment. Raises CaffeError for True in a build without CUDA.)");
}

}  // namespace pycaffe
