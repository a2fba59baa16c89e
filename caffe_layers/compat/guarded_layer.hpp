// A net's calls of its layers: errors that name the layer, and checks of the blobs' shapes.

#ifndef CAFFE_LAYERS_COMPAT_GUARDED_LAYER_HPP_
#define CAFFE_LAYERS_COMPAT_GUARDED_LAYER_HPP_

#include <glog/logging.h>

#include <algorithm>
#include <new>
#include <opencv2/core.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "caffe/layer.hpp"
#include "layer_shapes.hpp"

namespace caffe {

/// Run `run`; errors are thrown as caffe::Error that starts with "layer NAME (TYPE): ". Other exceptions (of a Python
/// layer) are not changed.
template <typename Run>
auto OfLayer(const LayerParameter& param, const Run& run) -> decltype(run()) {
  const AtLayer at_layer(param.name());
  const auto prefix = [&param] { return "layer " + param.name() + " (" + param.type() + "): "; };
  try {
    return run();
  } catch (const Error& error) {
    throw Error(prefix() + error.what(), error.file(), error.line(), error.place());
  } catch (const std::bad_alloc&) {
    throw Error(prefix() + "there is not enough memory", __FILE__, __LINE__);
  } catch (const std::length_error&) {
    throw Error(prefix() + "its shapes are too large", __FILE__, __LINE__);
  } catch (const cv::Exception& error) {
    throw Error(prefix() + error.what(), __FILE__, __LINE__);
  }
}

/// Throws caffe::Error if a bottom is empty and the layer divides by its sizes or reads its first value.
template <typename Dtype>
void CheckBottoms(const LayerParameter& param, const std::vector<Blob<Dtype>*>& bottom) {
  static const std::set<std::string> needs_values = {"Accuracy",
                                                     "ArgMax",
                                                     "BatchNorm",
                                                     "Bias",
                                                     "ContrastiveLoss",
                                                     "HDF5Output",
                                                     "HingeLoss",
                                                     "InfogainLoss",
                                                     "LRN",
                                                     "LSTM",
                                                     "LSTMUnit",
                                                     "MVN",
                                                     "MultinomialLogisticLoss",
                                                     "RNN",
                                                     "SPP",
                                                     "Scale",
                                                     "Softmax",
                                                     "SoftmaxWithLoss"};
  if (needs_values.count(param.type()) == 0) return;
  for (size_t i = 0; i < bottom.size(); ++i) {
    LOG_IF(FATAL, bottom[i]->count() == 0)
        << "its bottom " << (i < param.bottom_size() ? param.bottom(i) : std::to_string(i)) << " is empty, of shape "
        << bottom[i]->shape_string();
  }
}

/// Run a layer's SetUp or Reshape. Throws caffe::Error if this changes the shape of a blob that is both top and bottom,
/// because the layer would read it with wrong sizes.
template <typename Dtype, typename Run>
void ShapeLayer(const LayerParameter& param, const std::vector<Blob<Dtype>*>& bottom,
                const std::vector<Blob<Dtype>*>& top, const Run& run) {
  OfLayer(param, [&] {
    CheckBottoms(param, bottom);
    const LayerShapes before(bottom, std::vector<Blob<Dtype>*>());
    run();
    const bool in_place = std::any_of(top.begin(), top.end(), [&](Blob<Dtype>* blob) {
      return std::find(bottom.begin(), bottom.end(), blob) != bottom.end();
    });
    LOG_IF(FATAL, in_place && before != LayerShapes(bottom, std::vector<Blob<Dtype>*>()))
        << "it cannot work in place, because its top has another shape than its bottom: give the top another name";
  });
}

/// Throws caffe::Error if parameters have been reshaped since SetUp, whose sizes the layer still uses. Python layers
/// may do this.
template <typename Dtype>
void CheckParameterShapes(Layer<Dtype>* layer, const LayerShapes& after_set_up) {
  LOG_IF(FATAL, after_set_up != LayerShapes(layer->blobs()) && std::string(layer->type()) != "Python")
      << "its parameters have been reshaped since it was built: build a new net";
}

/// Run a layer's Forward. `last`: the shapes of its blobs after its last Reshape; `parameters`: the shapes of its
/// parameters after SetUp.
template <typename Dtype>
Dtype ForwardLayer(Layer<Dtype>* layer, const std::vector<Blob<Dtype>*>& bottom, const std::vector<Blob<Dtype>*>& top,
                   const LayerShapes& last, const LayerShapes& parameters) {
  const LayerParameter& param = layer->layer_param();
  OfLayer(param, [&] { CheckParameterShapes(layer, parameters); });
  if (last != LayerShapes(bottom, top)) ShapeLayer(param, bottom, top, [&] { layer->Reshape(bottom, top); });
  return OfLayer(param, [&] {
    CheckBottoms(param, bottom);
    return layer->Forward(bottom, top);
  });
}

/// `param` without its blobs, whose shapes many layers do not check; see TakeBlobs.
inline LayerParameter WithoutBlobs(const LayerParameter& param) {
  LayerParameter result(param);
  result.clear_blobs();
  return result;
}

/// Copy the blobs given in `param` to the layer's own blobs. Throws caffe::Error if the shapes differ.
template <typename Dtype>
void TakeBlobs(const LayerParameter& param, const std::vector<shared_ptr<Blob<Dtype>>>& blobs) {
  if (param.blobs_size() == 0) return;
  OfLayer(param, [&] {
    CHECK_EQ(param.blobs_size(), blobs.size()) << "number of blobs given, and of the layer";
    for (size_t i = 0; i < blobs.size(); ++i) {
      LOG_IF(FATAL, !blobs[i]->ShapeEquals(param.blobs(i)))
          << "blob " << i << " is given with another shape than " << blobs[i]->shape_string();
      blobs[i]->FromProto(param.blobs(i), false);
    }
  });
}

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_GUARDED_LAYER_HPP_
