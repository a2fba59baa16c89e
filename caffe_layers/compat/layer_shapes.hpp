// What a layer's backward pass takes for granted: the shapes that its forward pass worked with.

#ifndef CAFFE_LAYERS_COMPAT_LAYER_SHAPES_HPP_
#define CAFFE_LAYERS_COMPAT_LAYER_SHAPES_HPP_

#include <vector>

#include "caffe/blob.hpp"

namespace caffe {

/// The shapes of a layer's bottoms and tops, or of its parameters, at one moment.
class LayerShapes {
 public:
  template <typename Dtype>
  LayerShapes(const std::vector<Blob<Dtype>*>& bottom, const std::vector<Blob<Dtype>*>& top) {
    for (const auto* blobs : {&bottom, &top}) {
      for (const Blob<Dtype>* blob : *blobs) shapes_.push_back(blob->shape());
    }
  }

  /// Of a layer's parameters.
  template <typename Dtype>
  explicit LayerShapes(const std::vector<shared_ptr<Blob<Dtype>>>& blobs) {
    for (const auto& blob : blobs) shapes_.push_back(blob->shape());
  }

  bool operator!=(const LayerShapes& other) const { return shapes_ != other.shapes_; }

 private:
  std::vector<std::vector<int>> shapes_;
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_LAYER_SHAPES_HPP_
