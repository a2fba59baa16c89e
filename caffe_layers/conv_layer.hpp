// Replaces upstream's header of the same name and has the interface of include/caffe/layers/conv_layer.hpp.
#ifndef CAFFE_LAYERS_CONV_LAYER_HPP_
#define CAFFE_LAYERS_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/base_conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "convolution_shape.hpp"

namespace caffe {

/// Convolution with upstream's convolution_param: num_output, kernel_size (kernel_h, kernel_w), stride, pad, dilation,
/// group, bias_term.
///
/// bottom: N x C x H x W (or any number of spatial axes), top: N x num_output x H' x W'. Several bottoms give as many
/// tops, with the same weights. A top must not be a bottom. blobs: weights (num_output x C / group x kernel_h x
/// kernel_w) and, with bias_term, bias (num_output). Gradients are added to those of the blobs.
///
/// On the CPU, `engine` selects the algorithm:
///   DEFAULT  float32 with two spatial axes: Winograd's minimal filtering (winograd.hpp) if it is faster, else one
///            image per thread (image_convolution.hpp). Otherwise the same as CAFFE. caffe_layers/SPEED.md compares
///            them.
///   CAFFE    upstream's algorithm: one matrix product per image
/// Results agree up to rounding. With DEFAULT, infinities and NaN may spread to more neighbours than with CAFFE.
template <typename Dtype>
class ConvolutionLayer : public BaseConvolutionLayer<Dtype> {
 public:
  explicit ConvolutionLayer(const LayerParameter& param) : BaseConvolutionLayer<Dtype>(param) {}

  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  const char* type() const override { return "Convolution"; }

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override;
  bool reverse_dimensions() override { return false; }
  void compute_output_shape() override;

  /// The sizes of the convolution, if it has two spatial axes.
  ConvolutionShape shape();

 private:
  /// @return the sizes of the convolution on the CPU; with 0 images if upstream's algorithm is used
  ConvolutionShape cpu_shape();
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_CONV_LAYER_HPP_
