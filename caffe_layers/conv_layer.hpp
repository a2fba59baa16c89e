// Stands in the place of upstream's header of the same name; the interface is that of
// include/caffe/layers/conv_layer.hpp.
#ifndef CAFFE_LAYERS_CONV_LAYER_HPP_
#define CAFFE_LAYERS_CONV_LAYER_HPP_

#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/base_conv_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "convolution_shape.hpp"

namespace caffe {

/// Convolution, with convolution_param as upstream has it: num_output, kernel_size (kernel_h, kernel_w), stride, pad,
/// dilation, group, bias_term.
///
/// bottom: N x C x H x W (or any number of spatial axes), top: N x num_output x H' x W'; several bottoms give as many
/// tops, with the same weights; a top that is a bottom is refused. blobs: weights (num_output x C / group x kernel_h x
/// kernel_w) and, with bias_term, bias (num_output). Gradients are added to those of the blobs.
///
/// On the CPU `engine` chooses how it is computed:
///   DEFAULT  float32 in two spatial axes: by Winograd's minimal filtering where that is faster (winograd.hpp), else an
///            image a thread (image_convolution.hpp); anything else as with CAFFE. caffe_layers/SPEED.md has figures.
///   CAFFE    upstream's way: one image after the other, a matrix product each
/// The two agree to rounding. An infinite value or NaN may reach neighbours with DEFAULT that it does not with CAFFE.
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

  /// What is computed, where there are two spatial axes.
  ConvolutionShape shape();

 private:
  /// @return what is computed on the CPU; with 0 images where upstream's way is to be taken
  ConvolutionShape cpu_shape();
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_CONV_LAYER_HPP_
