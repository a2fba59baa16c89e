// cuDNN's Convolution and Deconvolution on the GPU against float64 on the host and against Caffe's own engine.

#ifdef USE_CUDNN

#include <algorithm>
#include <cstring>

#include "caffe/layers/cudnn_conv_layer.hpp"
#include "caffe/layers/cudnn_deconv_layer.hpp"
#include "host_convolution.hpp"
#include "on_gpu.hpp"
#include "reference.hpp"

namespace {

using caffe::Blob;
using host::Sizes;
using host::Sums;
using host::Values;
namespace settings = caffe::gpu_settings;

//                     num  c  h   w  out kh kw ph pw sh sw dh dw groups
const Sizes kSizes[] = {{2, 3, 7, 9, 5, 3, 3, 1, 1, 1, 1, 1, 1, 1},       // the usual case
                        {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1},       // one value
                        {3, 4, 5, 5, 7, 1, 1, 0, 0, 1, 1, 1, 1, 1},       // a matrix product
                        {2, 3, 11, 13, 4, 5, 3, 0, 2, 2, 1, 1, 1, 1},     // all sizes different
                        {2, 3, 12, 10, 4, 3, 5, 2, 1, 3, 2, 1, 1, 1},     // strides with a remainder
                        {2, 4, 13, 11, 6, 3, 3, 2, 3, 1, 1, 2, 3, 1},     // dilation
                        {2, 4, 14, 15, 6, 3, 3, 4, 4, 2, 2, 3, 2, 1},     // dilation and stride
                        {2, 6, 9, 8, 4, 3, 3, 1, 1, 1, 1, 1, 1, 2},       // groups
                        {2, 6, 9, 8, 12, 3, 3, 1, 1, 2, 2, 2, 2, 6},      // one group per channel
                        {3, 4, 6, 6, 4, 6, 6, 0, 0, 1, 1, 1, 1, 1},       // the kernel is as large as the image
                        {2, 2, 3, 3, 3, 5, 5, 4, 4, 1, 1, 1, 1, 1},       // padding larger than the image
                        {17, 16, 28, 28, 32, 3, 3, 1, 1, 1, 1, 1, 1, 1},  // sizes of tiles
                        {5, 3, 56, 56, 16, 7, 7, 3, 3, 2, 2, 1, 1, 1}};   // a first layer

/// A layer with given values, and its results computed on the host.
template <typename Dtype>
class TestedLayer {
 public:
  /// @param s of a deconvolution, the sizes of the convolution whose gradient it computes
  TestedLayer(const std::string& type, caffe::ConvolutionParameter::Engine engine, const Sizes& s, bool bias = true)
      : s_(s), transposed_(type == "Deconvolution"), bias_(bias) {
    if (transposed_) {  // the output size of a deconvolution if several are possible
      s_.height = s.stride_h * (s.out_height() - 1) + s.dilation_h * (s.kernel_h - 1) + 1 - 2 * s.pad_h;
      s_.width = s.stride_w * (s.out_width() - 1) + s.dilation_w * (s.kernel_w - 1) + 1 - 2 * s.pad_w;
    }
    caffe::LayerParameter param;
    param.set_name("tested");
    param.set_type(type);
    caffe::ConvolutionParameter* const c = param.mutable_convolution_param();
    c->set_engine(engine);
    c->set_num_output(transposed_ ? s.channels : s.outputs);
    c->set_bias_term(bias);
    c->set_group(s.groups);
    c->set_kernel_h(s.kernel_h);
    c->set_kernel_w(s.kernel_w);
    c->set_pad_h(s.pad_h);
    c->set_pad_w(s.pad_w);
    c->set_stride_h(s.stride_h);
    c->set_stride_w(s.stride_w);
    c->add_dilation(s.dilation_h);
    c->add_dilation(s.dilation_w);
    bottom.Reshape(BottomShape());
    layer = caffe::LayerRegistry<Dtype>::CreateLayer(param);
    layer->SetUp(bottoms, tops);
    Fill(1, bottom.count(), bottom.mutable_cpu_data());
    for (size_t i = 0; i < layer->blobs().size(); ++i) {
      Fill(2 + i, layer->blobs()[i]->count(), layer->blobs()[i]->mutable_cpu_data());
    }
  }

  std::vector<int> BottomShape() const {
    if (transposed_) return {s_.num, s_.outputs, s_.out_height(), s_.out_width()};
    return {s_.num, s_.channels, s_.height, s_.width};
  }

  void Forward() { layer->Forward(bottoms, tops); }

  /// With initial gradients in the parameters and in the bottom.
  void Backward(bool to_bottom) {
    Fill(5, top.count(), top.mutable_cpu_diff());
    Fill(6, bottom.count(), bottom.mutable_cpu_diff());
    for (size_t i = 0; i < layer->blobs().size(); ++i) {
      Fill(7 + i, layer->blobs()[i]->count(), layer->blobs()[i]->mutable_cpu_diff());
    }
    layer->Backward(tops, std::vector<bool>(1, to_bottom), bottoms);
  }

  void ExpectForward(double tolerance) const {
    Sums y = transposed_ ? host::BackwardData(s_, Weights(), X()) : host::Forward(s_, X(), Weights());
    if (bias_) host::AddBias(top.shape(1), top.count(2), Of(*layer->blobs()[1], false), &y);
    ExpectSums(y, Of(top, false), tolerance, "top");
  }

  /// After Backward.
  void ExpectBackward(bool to_bottom, double tolerance) const {
    const Values dy = Of(top, true);
    if (to_bottom) {
      const Sums dx = transposed_ ? host::Forward(s_, dy, Weights()) : host::BackwardData(s_, Weights(), dy);
      ExpectSums(dx, Of(bottom, true), tolerance, "bottom's gradient");
    } else {
      ExpectSums(Filled(6, bottom.count()), Of(bottom, true), 0, "bottom's gradient, untouched");
    }
    Sums dw = transposed_ ? host::BackwardFilter(s_, dy, X()) : host::BackwardFilter(s_, X(), dy);
    AddTo(&dw, Filled(7, dw.value.size()));
    ExpectSums(dw, Of(*layer->blobs()[0], true), tolerance, "weights' gradient");
    if (bias_) {
      Sums db = host::BackwardBias(top.shape(1), top.count(2), dy);
      AddTo(&db, Filled(8, db.value.size()));
      ExpectSums(db, Of(*layer->blobs()[1], true), tolerance, "bias's gradient");
    }
  }

  /// The bits of all results of a forward and a backward pass.
  std::string Bits() const {
    const auto bits = [](const Blob<Dtype>& blob, bool diff) {
      return std::string(reinterpret_cast<const char*>(diff ? blob.cpu_diff() : blob.cpu_data()),
                         blob.count() * sizeof(Dtype));
    };
    std::string all = bits(top, false) + bits(bottom, true);
    for (const auto& blob : layer->blobs()) all += bits(*blob, true);
    return all;
  }

  void ExpectNear(const TestedLayer& other, double tolerance) const {
    ExpectSums(AsSums(Of(other.top, false)), Of(top, false), tolerance, "top");
    ExpectSums(AsSums(Of(other.bottom, true)), Of(bottom, true), tolerance, "bottom's gradient");
    for (size_t i = 0; i < layer->blobs().size(); ++i) {
      ExpectSums(AsSums(Of(*other.layer->blobs()[i], true)), Of(*layer->blobs()[i], true), tolerance, "a parameter's");
    }
  }

  void SetNum(int num) {
    s_.num = num;
    bottom.Reshape(BottomShape());
    if (bottom.count() > 0) Fill(1, bottom.count(), bottom.mutable_cpu_data());
  }

  Blob<Dtype> bottom, top;
  std::vector<Blob<Dtype>*> bottoms{&bottom}, tops{&top};
  boost::shared_ptr<caffe::Layer<Dtype>> layer;

 private:
  static void Fill(unsigned seed, int count, Dtype* values) { reference::FillAwayFromZero(count, seed, values); }

  static Sums Filled(unsigned seed, size_t count) {
    std::vector<Dtype> values(count);
    Fill(seed, static_cast<int>(count), values.data());
    return AsSums(Values(values.begin(), values.end()));
  }

  static Sums AsSums(const Values& values) {
    Sums sums(values.size());
    for (size_t i = 0; i < values.size(); ++i) sums.Add(i, values[i]);
    // the engines round not only the last sum but its terms differently
    const double largest = *std::max_element(sums.size.begin(), sums.size.end());
    std::fill(sums.size.begin(), sums.size.end(), largest);
    return sums;
  }

  static void AddTo(Sums* sums, const Sums& before) {
    for (size_t i = 0; i < sums->value.size(); ++i) sums->Add(i, before.value[i]);
  }

  static Values Of(const Blob<Dtype>& blob, bool diff) {
    return reference::ToDouble(diff ? blob.cpu_diff() : blob.cpu_data(), blob.count());
  }
  Values X() const { return Of(bottom, false); }
  Values Weights() const { return Of(*layer->blobs()[0], false); }

  static void ExpectSums(const Sums& expected, const Values& actual, double tolerance, const char* what) {
    ASSERT_EQ(expected.value.size(), actual.size()) << what;
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(expected.value[i], actual[i], tolerance * expected.size[i]) << what << " " << i;
    }
  }

  Sizes s_;
  const bool transposed_, bias_;
};

/// Relative to the sum of the terms' sizes. Winograd and Fourier algorithms round more often than a plain sum.
template <typename Dtype>
double Tolerance() {
  return 100 * std::numeric_limits<Dtype>::epsilon();
}

const auto kCudnn = caffe::ConvolutionParameter::CUDNN;
const auto kCaffe = caffe::ConvolutionParameter::CAFFE;
const auto kDefault = caffe::ConvolutionParameter::DEFAULT;
const char* const kTypes[] = {"Convolution", "Deconvolution"};

template <typename Dtype>
class CudnnConvolutionTest : public on_gpu::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(CudnnConvolutionTest, Dtypes);

template <typename Dtype, typename Check>
void ForAllSizes(const Check& check) {
  for (const char* type : kTypes) {
    for (const Sizes& sizes : kSizes) {
      SCOPED_TRACE(std::string(type) + " of sizes " + std::to_string(&sizes - kSizes));
      check(type, sizes);
      if (testing::Test::HasFatalFailure()) return;
    }
  }
}

TYPED_TEST(CudnnConvolutionTest, OutputsAndGradientsAreThoseOfTheFormula) {
  ForAllSizes<TypeParam>([](const char* type, const Sizes& sizes) {
    for (const bool bias : {true, false}) {
      TestedLayer<TypeParam> run(type, kCudnn, sizes, bias);
      run.Forward();
      run.ExpectForward(Tolerance<TypeParam>());
      for (const bool to_bottom : {true, false}) {
        run.Backward(to_bottom);
        run.ExpectBackward(to_bottom, Tolerance<TypeParam>());
      }
    }
  });
}

TYPED_TEST(CudnnConvolutionTest, AgreesWithCaffesOwnEngine) {
  ForAllSizes<TypeParam>([](const char* type, const Sizes& sizes) {
    TestedLayer<TypeParam> cudnn(type, kCudnn, sizes), caffe(type, kCaffe, sizes);
    for (TestedLayer<TypeParam>* run : {&cudnn, &caffe}) {
      run->Forward();
      run->Backward(true);
    }
    cudnn.ExpectNear(caffe, 10 * Tolerance<TypeParam>());
  });
}

TYPED_TEST(CudnnConvolutionTest, AlgorithmsWithoutAWorkspaceComputeTheSame) {
  settings::SetWorkspaceLimit(0);
  ForAllSizes<TypeParam>([](const char* type, const Sizes& sizes) {
    TestedLayer<TypeParam> run(type, kCudnn, sizes);
    run.Forward();
    run.ExpectForward(Tolerance<TypeParam>());
    run.Backward(true);
    run.ExpectBackward(true, Tolerance<TypeParam>());
  });
}

TYPED_TEST(CudnnConvolutionTest, DeterministicAlgorithmsGiveTheSameBitsEachTime) {
  settings::SetDeterministic(true);
  ForAllSizes<TypeParam>([](const char* type, const Sizes& sizes) {
    std::string first;
    for (int i = 0; i < 5; ++i) {
      TestedLayer<TypeParam> run(type, kCudnn, sizes);
      run.Forward();
      run.ExpectForward(Tolerance<TypeParam>());
      run.Backward(true);
      run.ExpectBackward(true, Tolerance<TypeParam>());
      if (i == 0) first = run.Bits();
      ASSERT_TRUE(first == run.Bits()) << "run " << i;
    }
  });
}

TYPED_TEST(CudnnConvolutionTest, ABatchOfASizeThatWasThereBeforeIsNotAskedAbout) {
  for (const char* type : kTypes) {
    TestedLayer<TypeParam> run(type, kCudnn, kSizes[0]);
    const auto pass = [&](int num) {
      run.SetNum(num);
      run.Forward();
      run.ExpectForward(Tolerance<TypeParam>());
      run.Backward(true);
      run.ExpectBackward(true, Tolerance<TypeParam>());
      return caffe::cudnn::AlgorithmQueries();
    };
    pass(5);
    const int64_t before = pass(3);
    for (const int num : {5, 3, 3, 5, 5, 3}) EXPECT_EQ(before, pass(num)) << type << ", a batch of " << num;
    settings::SetWorkspaceLimit(1 << 20);
    EXPECT_EQ(before + 3, pass(5)) << "a setting that has changed is asked with";
    settings::SetWorkspaceLimit(int64_t{512} << 20);
  }
}

TYPED_TEST(CudnnConvolutionTest, AnEmptyBatchHasNoOutputsAndLeavesTheGradientsAlone) {
  for (const char* type : kTypes) {
    TestedLayer<TypeParam> run(type, kCudnn, kSizes[0]);
    run.Forward();
    run.SetNum(0);
    run.Forward();
    EXPECT_EQ(0, run.top.count());
    const std::vector<TypeParam> before(run.layer->blobs()[0]->count(), TypeParam(3));
    std::copy(before.begin(), before.end(), run.layer->blobs()[0]->mutable_cpu_diff());
    run.layer->Backward(run.tops, std::vector<bool>(1, true), run.bottoms);
    EXPECT_EQ(0, std::memcmp(before.data(), run.layer->blobs()[0]->cpu_diff(), before.size() * sizeof(TypeParam)));
  }
}

TYPED_TEST(CudnnConvolutionTest, MoreThanOneBottomAndParametersWithoutGradients) {
  TestedLayer<TypeParam> run("Convolution", kCudnn, kSizes[0]);
  Blob<TypeParam> bottom(run.bottom.shape()), top;
  bottom.CopyFrom(run.bottom);
  run.bottoms.push_back(&bottom);
  run.tops.push_back(&top);
  run.Forward();
  run.ExpectForward(Tolerance<TypeParam>());
  for (int i = 0; i < top.count(); ++i) ASSERT_EQ(run.top.cpu_data()[i], top.cpu_data()[i]);
  run.layer->set_param_propagate_down(0, false);
  run.layer->set_param_propagate_down(1, false);
  caffe::caffe_set(run.layer->blobs()[0]->count(), TypeParam(3), run.layer->blobs()[0]->mutable_cpu_diff());
  caffe::caffe_set(top.count(), TypeParam(1), top.mutable_cpu_diff());
  caffe::caffe_set(top.count(), TypeParam(1), run.top.mutable_cpu_diff());
  run.layer->Backward(run.tops, {false, true}, run.bottoms);
  EXPECT_EQ(TypeParam(3), run.layer->blobs()[0]->cpu_diff()[0]);
}

// cuDNN's layer does not support three spatial axes: Caffe's engine computes them, also on the GPU.
TYPED_TEST(CudnnConvolutionTest, ThreeSpatialAxesAreCaffesOwn) {
  caffe::LayerParameter param;
  param.set_type("Convolution");
  param.mutable_convolution_param()->set_num_output(2);
  param.mutable_convolution_param()->add_kernel_size(2);
  param.mutable_convolution_param()->mutable_weight_filler()->set_type("constant");
  param.mutable_convolution_param()->mutable_weight_filler()->set_value(1);
  reference::mode = caffe::Caffe::GPU;
  reference::OneLayer<TypeParam> run(param, {1, 1, 2, 2, 2}, false);
  reference::mode = caffe::Caffe::CPU;
  run.Forward();
  double sum = 0;
  for (int i = 0; i < 8; ++i) sum += run.bottom.cpu_data()[i];
  EXPECT_NEAR(sum, run.top->cpu_data()[0], 1e-5);
}

// float32 is not rounded unless TF32 is enabled; GPUs before Ampere do not support it and compute as before.
TEST(CudnnConvolutionTf32Test, IsWithinItsRoundingAndOffByDefault) {
  const std::string why = caffe::WhyNoGpu();
  if (!why.empty()) GTEST_SKIP() << "no CUDA device: " << why;
  EXPECT_FALSE(settings::Tf32());
  caffe::Caffe::set_mode(caffe::Caffe::GPU);
  settings::SetTf32(true);
  for (const Sizes& sizes : kSizes) {
    TestedLayer<float> run("Convolution", kCudnn, sizes);
    run.Forward();
    run.ExpectForward(2e-3);
    run.Backward(true);
    run.ExpectBackward(true, 2e-3);
  }
  settings::SetTf32(false);
  caffe::Caffe::set_mode(caffe::Caffe::CPU);
}

// --- What needs no GPU -----------------------------------------------------------------------------------------------

template <typename Layer>
bool Is(const std::string& type, const Sizes& sizes, caffe::ConvolutionParameter::Engine engine) {
  return dynamic_cast<Layer*>(TestedLayer<float>(type, engine, sizes).layer.get()) != nullptr;
}

TEST(CudnnConvolutionWithoutGpu, IsWhatConvolutionMeansUnlessCaffesEngineIsAskedFor) {
  for (const Sizes& sizes : kSizes) {  // groups and dilation too
    EXPECT_TRUE(Is<caffe::CuDNNConvolutionLayer<float>>("Convolution", sizes, kDefault));
    EXPECT_TRUE(Is<caffe::CuDNNConvolutionLayer<float>>("Convolution", sizes, kCudnn));
    EXPECT_FALSE(Is<caffe::CuDNNConvolutionLayer<float>>("Convolution", sizes, kCaffe));
    EXPECT_TRUE(Is<caffe::CuDNNDeconvolutionLayer<float>>("Deconvolution", sizes, kDefault));
    EXPECT_FALSE(Is<caffe::CuDNNDeconvolutionLayer<float>>("Deconvolution", sizes, kCaffe));
  }
}

TEST(CudnnConvolutionWithoutGpu, ComputesOnTheCpuInCpuMode) {
  ForAllSizes<float>([](const char* type, const Sizes& sizes) {
    TestedLayer<float> run(type, kCudnn, sizes);
    run.Forward();
    run.ExpectForward(1e-4);
    run.Backward(true);
    run.ExpectBackward(true, 1e-4);
  });
}

TEST(CudnnConvolutionWithoutGpu, ThreeSpatialAxesAreRefusedWhereCudnnIsAskedFor) {
  caffe::LayerParameter param;
  param.set_type("Convolution");
  param.mutable_convolution_param()->set_num_output(2);
  param.mutable_convolution_param()->add_kernel_size(2);
  reference::OneLayer<float> run(param, {1, 1, 2, 2, 2}, false);
  run.Forward();
  param.mutable_convolution_param()->set_engine(kCudnn);
  try {
    reference::OneLayer<float> refused(param, {1, 1, 2, 2, 2}, false);
    FAIL() << "accepted";
  } catch (const caffe::Error& error) {
    EXPECT_NE(std::string(error.what()).find("its bottom has 3"), std::string::npos) << error.what();
  }
}

}  // namespace

#endif  // USE_CUDNN
