// What the files of pycaffe's module share.

#ifndef CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
#define CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl_bind.h>

#include <boost/shared_ptr.hpp>
#include <string>
#include <vector>

#include "caffe/caffe.hpp"

PYBIND11_DECLARE_HOLDER_TYPE(T, boost::shared_ptr<T>)

namespace pycaffe {

namespace py = pybind11;

typedef float Dtype;  // pycaffe computes in float32, as upstream's does
typedef caffe::Blob<Dtype> Blob;
typedef caffe::Layer<Dtype> Layer;
typedef caffe::Net<Dtype> Net;
typedef caffe::Solver<Dtype> Solver;
typedef std::vector<boost::shared_ptr<Blob>> BlobVec;

typedef py::call_guard<py::gil_scoped_release> ReleaseGil;

void BindNet(py::module_* module);
void BindSolvers(py::module_* module);
void BindKernels(py::module_* module);

/// Throws caffe::Error where `filename` cannot be opened for reading.
void CheckFile(const std::string& filename);

}  // namespace pycaffe

PYBIND11_MAKE_OPAQUE(pycaffe::BlobVec)

#endif  // CAFFE_LAYERS_PYCAFFE_PYCAFFE_HPP_
