// The shapes used in a layer's forward pass, which its backward pass requires.

#ifndef CAFFE_LAYERS_COMPAT_LAYER_SHAPES_HPP_
#define CAFFE_LAYERS_COMPAT_LAYER_SHAPES_HPP_

#include <vector>

#include "caffe/blob.hpp"

namespace caffe {

/// The current shapes of a layer's bottoms and tops, or of its parameters.
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
