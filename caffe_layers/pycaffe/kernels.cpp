// The layers' kernels on numpy arrays; kernels.py checks the arguments.

#include "pycaffe.hpp"
#include "rectifier.hpp"

namespace pycaffe {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

/// The array's memory; null for None.
template <typename T>
T* Values(const py::object& array) {
  return array.is_none() ? nullptr : static_cast<T*>(array.cast<py::array>().mutable_data());
}

struct Sizes {
  size_t outer, channels, inner;
};

/// One slope: all values belong to one channel. Otherwise axis 1 contains the channels.
Sizes SizesOf(const py::array& x, const py::array& slopes) {
  if (slopes.size() == 1) return {1, 1, static_cast<size_t>(x.size())};
  LOG_IF(FATAL, x.ndim() < 2 || slopes.size() != x.shape(1)) << "expected one slope, or one per channel";
  Sizes sizes = {static_cast<size_t>(x.shape(0)), static_cast<size_t>(x.shape(1)), 1};
  for (py::ssize_t axis = 2; axis < x.ndim(); ++axis) sizes.inner *= x.shape(axis);
  return sizes;
}

template <typename T>
void Forward(const Array<T>& x, const Array<T>& slopes, Array<T>& y) {
  const Sizes n = SizesOf(x, slopes);
  const T* a = slopes.data();
  const T* from = x.data();
  T* to = y.mutable_data();
  py::gil_scoped_release release;
  caffe::RectifierForward(n.outer, n.channels, n.inner, a, from, to);
}

template <typename T>
void Backward(const Array<T>& x, const Array<T>& slopes, const Array<T>& dy, const py::object& dx,
              const py::object& dslopes) {
  const Sizes n = SizesOf(x, slopes);
  const T* a = slopes.data();
  const T* from = x.data();
  const T* gradient = dy.data();
  T* to_x = Values<T>(dx);
  T* to_slopes = Values<T>(dslopes);
  py::gil_scoped_release release;
  caffe::RectifierBackward(n.outer, n.channels, n.inner, a, from, gradient, to_x, to_slopes);
}

template <typename T>
void Bind(py::module_* module) {
  module->def("rectifier_forward", &Forward<T>, py::arg("x").noconvert(), py::arg("slopes").noconvert(),
              py::arg("y").noconvert());
  module->def("rectifier_backward", &Backward<T>, py::arg("x").noconvert(), py::arg("slopes").noconvert(),
              py::arg("dy").noconvert(), py::arg("dx"), py::arg("dslopes"));
}

}  // namespace

void BindKernels(py::module_* module) {
  py::module_ kernels = module->def_submodule("_kernels");
  Bind<float>(&kernels);
  Bind<double>(&kernels);
}

}  // namespace pycaffe
