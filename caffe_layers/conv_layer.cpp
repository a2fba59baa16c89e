#include "conv_layer.hpp"

#include <algorithm>
#include <type_traits>

#include "image_convolution.hpp"
#include "winograd.hpp"

namespace caffe {
namespace {

enum class Engine { kWinograd, kImage, kUpstream };

Engine Choose(const ConvolutionShape& s) {
  if (s.images * s.out_height * s.out_width == 0) return Engine::kUpstream;
  if (WinogradFits(s)) return Engine::kWinograd;
  return ImageConvolutionFits(s) ? Engine::kImage : Engine::kUpstream;
}

}  // namespace

template <typename Dtype>
void ConvolutionLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LOG_IF(FATAL, std::find_first_of(top.begin(), top.end(), bottom.begin(), bottom.end()) != top.end())
      << "Convolution cannot work in place: give the top another name";
  BaseConvolutionLayer<Dtype>::LayerSetUp(bottom, top);
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::compute_output_shape() {
  this->output_shape_.clear();
  for (int i = 0; i < this->num_spatial_axes_; ++i) {
    const int extent = this->dilation_.cpu_data()[i] * (this->kernel_shape_.cpu_data()[i] - 1) + 1;
    const int inputs = this->input_shape(i + 1);
    const int output_dim = (inputs + 2 * this->pad_.cpu_data()[i] - extent) / this->stride_.cpu_data()[i] + 1;
    LOG_IF(FATAL, output_dim <= 0) << "its kernel of size " << extent << " is larger than its input of size "
                                   << inputs + 2 * this->pad_.cpu_data()[i];
    this->output_shape_.push_back(output_dim);
  }
}

template <typename Dtype>
ConvolutionShape ConvolutionLayer<Dtype>::shape() {
  const int out[] = {this->num_output_, this->output_shape_[0], this->output_shape_[1]};
  return ShapeOf(this->num_, this->conv_input_shape_.cpu_data(), out, this->kernel_shape_.cpu_data(),
                 this->pad_.cpu_data(), this->stride_.cpu_data(), this->dilation_.cpu_data(), this->group_);
}

template <typename Dtype>
ConvolutionShape ConvolutionLayer<Dtype>::cpu_shape() {
  const bool caffe = this->layer_param_.convolution_param().engine() == ConvolutionParameter_Engine_CAFFE;
  if (!std::is_same<Dtype, float>::value || caffe || this->num_spatial_axes_ != 2) return {};
  return shape();
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const ConvolutionShape s = cpu_shape();
  const Engine engine = Choose(s);
  const Dtype* weights = this->blobs_[0]->cpu_data();
  const Dtype* bias = this->bias_term_ ? this->blobs_[1]->cpu_data() : nullptr;
  for (size_t i = 0; i < bottom.size(); ++i) {
    const Dtype* x = bottom[i]->cpu_data();
    Dtype* y = top[i]->mutable_cpu_data();
    if (engine == Engine::kUpstream) {
      for (int n = 0; n < this->num_; ++n) {
        this->forward_cpu_gemm(x + n * this->bottom_dim_, weights, y + n * this->top_dim_);
        if (bias != nullptr) this->forward_cpu_bias(y + n * this->top_dim_, bias);
      }
    } else if constexpr (std::is_same<Dtype, float>::value) {
      engine == Engine::kWinograd ? WinogradForward(s, x, weights, bias, y)
                                  : ImageConvolutionForward(s, x, weights, bias, y);
    }
  }
}

template <typename Dtype>
void ConvolutionLayer<Dtype>::Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                                           const vector<Blob<Dtype>*>& bottom) {
  const ConvolutionShape s = cpu_shape();
  const Engine engine = Choose(s);
  const bool to_weights = this->param_propagate_down_[0];
  const bool to_bias = this->bias_term_ && this->param_propagate_down_[1];
  const Dtype* weights = this->blobs_[0]->cpu_data();
  Dtype* dw = to_weights ? this->blobs_[0]->mutable_cpu_diff() : nullptr;
  Dtype* db = to_bias ? this->blobs_[1]->mutable_cpu_diff() : nullptr;
  for (size_t i = 0; i < top.size(); ++i) {
    const Dtype* dy = top[i]->cpu_diff();
    const Dtype* x = bottom[i]->cpu_data();
    Dtype* dx = propagate_down[i] ? bottom[i]->mutable_cpu_diff() : nullptr;
    if (engine == Engine::kUpstream) {
      for (int n = 0; n < this->num_; ++n) {
        const Dtype* dy_n = dy + n * this->top_dim_;
        if (to_bias) this->backward_cpu_bias(db, dy_n);
        if (to_weights) this->weight_cpu_gemm(x + n * this->bottom_dim_, dy_n, dw);
        if (dx != nullptr) this->backward_cpu_gemm(dy_n, weights, dx + n * this->bottom_dim_);
      }
    } else if constexpr (std::is_same<Dtype, float>::value) {
      const bool winograd = engine == Engine::kWinograd;
      if (to_bias) BiasGradient(s.images, s.outputs, s.out_height * s.out_width, dy, db);
      if (to_weights) {
        winograd ? WinogradBackwardWeights(s, x, dy, dw) : ImageConvolutionBackwardWeights(s, x, dy, dw);
      }
      if (dx != nullptr) {
        winograd ? WinogradBackwardData(s, dy, weights, dx) : ImageConvolutionBackwardData(s, dy, weights, dx);
      }
    }
  }
}

#ifdef CPU_ONLY
STUB_GPU(ConvolutionLayer);
#endif

INSTANTIATE_CLASS(ConvolutionLayer);

}  // namespace caffe
