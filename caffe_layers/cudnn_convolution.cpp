#ifdef USE_CUDNN

#include "cudnn_convolution.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>
#include <type_traits>

#include "gpu_settings.hpp"

namespace caffe {
namespace cudnn {
namespace {

enum Pass { kForward, kBackwardData, kBackwardFilter };
const char* const kPassNames[] = {"output", "gradient to its bottom", "gradient to its weights"};

/// A cuDNN algorithm for a pass.
struct Algorithm {
  int number;
  cudnnMathType_t math;
  size_t workspace;
};

/// The algorithms found for one pass at one size.
struct Choice {
  bool asked = false;
  std::vector<Algorithm> algorithms;  // allowed by the settings, best first
  size_t next = 0;                    // index of the first that has not failed
  std::string problem;                // why no algorithm is left
  bool said = false;
};

/// The key of a choice: sizes, device, pass and whether it is float64.
typedef std::tuple<std::array<size_t, 16>, int, int, bool> Key;

/// The choices of a thread. They own no device memory, so they may outlive the device or be dropped.
struct Choices {
  unsigned generation = 0;
  std::map<Key, Choice> of;
};
const size_t kMostChoices = 4096;  // bounds the memory of nets whose input size varies

thread_local Choices choices;
thread_local int64_t queries = 0;

/// The choice for `key` under the current settings.
Choice* Find(const Key& key) {
  const unsigned generation = gpu_settings::Generation();
  if (choices.generation != generation || choices.of.size() > kMostChoices) choices.of.clear();
  choices.generation = generation;
  return &choices.of[key];
}

/// Fill `choice` from cuDNN's list.
/// @param most the maximum length of the list
/// @param query one of cudnnGetConvolution...Algorithm_v7, without its handle and descriptors
template <typename Dtype, typename Performance, typename Query>
void Ask(int most, const Query& query, Choice* choice) {
  std::vector<Performance> found(most);
  int count = 0;
  CUDNN_CHECK(query(most, &count, found.data()));
  ++queries;
  choice->asked = true;
  const size_t limit = gpu_settings::WorkspaceLimit();
  const bool keep_float32 = std::is_same<Dtype, float>::value && !gpu_settings::Tf32();
  size_t least = SIZE_MAX;
  for (int i = 0; i < count; ++i) {
    const Performance& candidate = found[i];
    if (candidate.status != CUDNN_STATUS_SUCCESS) continue;
    if (gpu_settings::Deterministic() && candidate.determinism != CUDNN_DETERMINISTIC) continue;
    least = std::min(least, candidate.memory);
    if (candidate.memory > limit) continue;
    // The list may contain the same number twice, with and without tensor cores.
    choice->algorithms.push_back(
        {candidate.algo, keep_float32 ? CUDNN_FMA_MATH : candidate.mathType, candidate.memory});
  }
  choice->problem = gpu_settings::Deterministic() ? "cuDNN has no deterministic algorithm" : "cuDNN has no algorithm";
  if (least != SIZE_MAX) {
    choice->problem =
        "the smallest workspace is " + std::to_string(least) + " bytes and the limit " + std::to_string(limit);
  }
}

}  // namespace

int64_t AlgorithmQueries() { return queries; }

template <typename Dtype>
Convolution<Dtype>::Convolution(const std::string& what) : what_(what), shape_() {}

template <typename Dtype>
Convolution<Dtype>::~Convolution() {
  if (x_) cudnnDestroyTensorDescriptor(x_);
  if (y_) cudnnDestroyTensorDescriptor(y_);
  if (w_) cudnnDestroyFilterDescriptor(w_);
  if (convolution_) cudnnDestroyConvolutionDescriptor(convolution_);
}

template <typename Dtype>
void Convolution<Dtype>::SetShape(const ConvolutionShape& s) {
  if (s.All() == shape_.All()) return;
  shape_ = ConvolutionShape();  // if an error follows, the shape stays empty
  if (s.images > 0) {
    if (!x_) CUDNN_CHECK(cudnnCreateTensorDescriptor(&x_));
    if (!y_) CUDNN_CHECK(cudnnCreateTensorDescriptor(&y_));
    if (!w_) CUDNN_CHECK(cudnnCreateFilterDescriptor(&w_));
    if (!convolution_) CUDNN_CHECK(cudnnCreateConvolutionDescriptor(&convolution_));
    setTensor4dDesc<Dtype>(&x_, s.images, s.channels, s.height, s.width);
    setTensor4dDesc<Dtype>(&y_, s.images, s.outputs, s.out_height, s.out_width);
    CUDNN_CHECK(cudnnSetFilter4dDescriptor(w_, dataType<Dtype>::type, CUDNN_TENSOR_NCHW, s.outputs,
                                           s.channels / s.groups, s.kernel_h, s.kernel_w));
    CUDNN_CHECK(cudnnSetConvolution2dDescriptor(convolution_, s.pad_h, s.pad_w, s.stride_h, s.stride_w, s.dilation_h,
                                                s.dilation_w, CUDNN_CROSS_CORRELATION, dataType<Dtype>::type));
    CUDNN_CHECK(cudnnSetConvolutionGroupCount(convolution_, s.groups));
  }
  shape_ = s;
}

template <typename Dtype>
template <typename Call>
bool Convolution<Dtype>::Run(int pass, const Call& call) {
  if (shape_.images == 0) return true;
  const cudnnHandle_t handle = Caffe::gpu().Cudnn();
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device));
  const bool is_double = std::is_same<Dtype, double>::value;
  Choice* const choice = Find(Key(shape_.All(), device, pass, is_double));
  if (!choice->asked) {
    // The list depends on the math mode.
    const bool keep_float32 = !is_double && !gpu_settings::Tf32();
    CUDNN_CHECK(cudnnSetConvolutionMathType(convolution_, keep_float32 ? CUDNN_FMA_MATH : CUDNN_DEFAULT_MATH));
    int most = 0;
    if (pass == kForward) {
      CUDNN_CHECK(cudnnGetConvolutionForwardAlgorithmMaxCount(handle, &most));
      Ask<Dtype, cudnnConvolutionFwdAlgoPerf_t>(
          most,
          [&](int length, int* count, cudnnConvolutionFwdAlgoPerf_t* list) {
            return cudnnGetConvolutionForwardAlgorithm_v7(handle, x_, w_, convolution_, y_, length, count, list);
          },
          choice);
    } else if (pass == kBackwardData) {
      CUDNN_CHECK(cudnnGetConvolutionBackwardDataAlgorithmMaxCount(handle, &most));
      Ask<Dtype, cudnnConvolutionBwdDataAlgoPerf_t>(
          most,
          [&](int length, int* count, cudnnConvolutionBwdDataAlgoPerf_t* list) {
            return cudnnGetConvolutionBackwardDataAlgorithm_v7(handle, w_, y_, convolution_, x_, length, count, list);
          },
          choice);
    } else {
      CUDNN_CHECK(cudnnGetConvolutionBackwardFilterAlgorithmMaxCount(handle, &most));
      Ask<Dtype, cudnnConvolutionBwdFilterAlgoPerf_t>(
          most,
          [&](int length, int* count, cudnnConvolutionBwdFilterAlgoPerf_t* list) {
            return cudnnGetConvolutionBackwardFilterAlgorithm_v7(handle, x_, y_, convolution_, w_, length, count, list);
          },
          choice);
    }
  }
  for (; choice->next < choice->algorithms.size(); ++choice->next) {
    const Algorithm& algorithm = choice->algorithms[choice->next];
    void* const workspace = Caffe::gpu().Workspace(algorithm.workspace);
    if (algorithm.workspace > 0 && workspace == nullptr) {
      choice->problem = "the GPU has no memory left for " + std::to_string(algorithm.workspace) + " bytes of workspace";
      continue;
    }
    CUDNN_CHECK(cudnnSetConvolutionMathType(convolution_, algorithm.math));
    const cudnnStatus_t status = call(handle, algorithm, workspace);
    if (status == CUDNN_STATUS_SUCCESS) return true;
    cudaGetLastError();  // clear the error, which the next kernel check would report
    choice->problem = Problem(status, "last algorithm");
  }
  LOG_IF(WARNING, !choice->said) << what_ << ": its " << kPassNames[pass]
                                 << " is computed by Caffe's own engine: " << choice->problem;
  choice->said = true;
  return false;
}

template <typename Dtype>
bool Convolution<Dtype>::Forward(const Dtype* x, const Dtype* w, Dtype* y) {
  return Run(kForward, [&](cudnnHandle_t handle, const Algorithm& algorithm, void* workspace) {
    return cudnnConvolutionForward(handle, dataType<Dtype>::one, x_, x, w_, w, convolution_,
                                   static_cast<cudnnConvolutionFwdAlgo_t>(algorithm.number), workspace,
                                   algorithm.workspace, dataType<Dtype>::zero, y_, y);
  });
}

template <typename Dtype>
bool Convolution<Dtype>::BackwardData(const Dtype* w, const Dtype* dy, Dtype* dx) {
  return Run(kBackwardData, [&](cudnnHandle_t handle, const Algorithm& algorithm, void* workspace) {
    return cudnnConvolutionBackwardData(handle, dataType<Dtype>::one, w_, w, y_, dy, convolution_,
                                        static_cast<cudnnConvolutionBwdDataAlgo_t>(algorithm.number), workspace,
                                        algorithm.workspace, dataType<Dtype>::zero, x_, dx);
  });
}

template <typename Dtype>
bool Convolution<Dtype>::BackwardFilter(const Dtype* x, const Dtype* dy, Dtype* dw) {
  return Run(kBackwardFilter, [&](cudnnHandle_t handle, const Algorithm& algorithm, void* workspace) {
    return cudnnConvolutionBackwardFilter(handle, dataType<Dtype>::one, x_, x, y_, dy, convolution_,
                                          static_cast<cudnnConvolutionBwdFilterAlgo_t>(algorithm.number), workspace,
                                          algorithm.workspace, dataType<Dtype>::one, w_, dw);
  });
}

template <typename Dtype>
std::unique_ptr<Convolution<Dtype>> ConvolutionFor(const LayerParameter& param, int axes) {
  if (axes != 2) {
    LOG_IF(FATAL, param.convolution_param().engine() == ConvolutionParameter_Engine_CUDNN)
        << "engine: CUDNN supports 2 spatial axes, and its bottom has " << axes << ": remove engine, or set it to CAFFE";
    return nullptr;
  }
  return std::unique_ptr<Convolution<Dtype>>(
      new Convolution<Dtype>("layer " + param.name() + " (" + param.type() + ")"));
}

template <typename Dtype>
ChannelBias<Dtype>::~ChannelBias() {
  if (bias_) cudnnDestroyTensorDescriptor(bias_);
  if (y_) cudnnDestroyTensorDescriptor(y_);
}

template <typename Dtype>
void ChannelBias<Dtype>::SetSizes(int num, int channels, int height, int width) {
  empty_ = num == 0;
  if (empty_) return;
  if (!bias_) CUDNN_CHECK(cudnnCreateTensorDescriptor(&bias_));
  if (!y_) CUDNN_CHECK(cudnnCreateTensorDescriptor(&y_));
  setTensor4dDesc<Dtype>(&bias_, 1, channels, 1, 1);
  setTensor4dDesc<Dtype>(&y_, num, channels, height, width);
}

template <typename Dtype>
void ChannelBias<Dtype>::Add(const Dtype* bias, Dtype* y) {
  if (empty_) return;
  CUDNN_CHECK(cudnnAddTensor(Caffe::gpu().Cudnn(), dataType<Dtype>::one, bias_, bias, dataType<Dtype>::one, y_, y));
}

template <typename Dtype>
void ChannelBias<Dtype>::Backward(const Dtype* dy, Dtype* dbias) {
  if (empty_) return;
  CUDNN_CHECK(cudnnConvolutionBackwardBias(Caffe::gpu().Cudnn(), dataType<Dtype>::one, y_, dy, dataType<Dtype>::one,
                                           bias_, dbias));
}

template class Convolution<float>;
template class Convolution<double>;
template std::unique_ptr<Convolution<float>> ConvolutionFor(const LayerParameter&, int);
template std::unique_ptr<Convolution<double>> ConvolutionFor(const LayerParameter&, int);
template class ChannelBias<float>;
template class ChannelBias<double>;

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
