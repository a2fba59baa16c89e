# Changes of upstream's sources for builds with CUDA: support for current CUDA and cuDNN, handles that are created when
# a GPU is first used, errors with explanations, and the checks of the CPU layers in their .cu files.

# --- Devices and handles ---------------------------------------------------------------------------------------------
# CUDA removed the header of that name.
caffe_edit(src/caffe/util/math_functions.cu "#include <math_functions.h>" "#include <cmath>")
caffe_edit(
  include/caffe/util/device_alternate.hpp
  "#include <cublas_v2.h>" "#include \"gpu_device.hpp\"\n\n#include <cublas_v2.h>"
  "CHECK_EQ(error, cudaSuccess) << \" \" << cudaGetErrorString(error);"
  "LOG_IF(FATAL, error != cudaSuccess) << ::caffe::CudaProblem(error);"
  "CHECK_EQ(status, CUBLAS_STATUS_SUCCESS) << \" \" \\" "LOG_IF(FATAL, status != CUBLAS_STATUS_SUCCESS) << \"cuBLAS: \" \\"
  "CHECK_EQ(status, CURAND_STATUS_SUCCESS) << \" \" \\" "LOG_IF(FATAL, status != CURAND_STATUS_SUCCESS) << \"cuRAND: \" \\")
# Every thread created its handles at its start, even in CPU mode, and lost its seed when it changed the device.
caffe_edit(
  include/caffe/common.hpp
  "#include \"caffe/util/device_alternate.hpp\"" "#include \"caffe/util/device_alternate.hpp\"\n#include \"gpu_handles.hpp\""
  "return Get().cublas_handle_;" "return gpu().Cublas();"
  "return Get().curand_generator_;" "return gpu().Curand();"
  "  inline static cublasHandle_t cublas_handle()"
  "  /// Library handles of this thread
  static GpuHandles& gpu() { return Get().gpu_; }
  inline static cublasHandle_t cublas_handle()"
  "  cublasHandle_t cublas_handle_;\n  curandGenerator_t curand_generator_;" "  GpuHandles gpu_;")
caffe_edit(
  src/caffe/common.cpp
  "cublas_handle_(NULL), curand_generator_(NULL), random_generator_()," "random_generator_(),"
  "  // Try to create a cublas handler, and report an error if failed (but we will
  // keep the program running as one might just want to run CPU code).
  if (cublasCreate(&cublas_handle_) != CUBLAS_STATUS_SUCCESS) {
    LOG(ERROR) << \"Cannot create Cublas handle. Cublas won't be available.\";
  }
  // Try to create a curand handler.
  if (curandCreateGenerator(&curand_generator_, CURAND_RNG_PSEUDO_DEFAULT)
      != CURAND_STATUS_SUCCESS ||
      curandSetPseudoRandomGeneratorSeed(curand_generator_, cluster_seedgen())
      != CURAND_STATUS_SUCCESS) {
    LOG(ERROR) << \"Cannot create Curand generator. Curand won't be available.\";
  }
" ""
  "  if (cublas_handle_) CUBLAS_CHECK(cublasDestroy(cublas_handle_));
  if (curand_generator_) {
    CURAND_CHECK(curandDestroyGenerator(curand_generator_));
  }
" ""
  "  // Curand seed
  static bool g_curand_availability_logged = false;
  if (Get().curand_generator_) {
    CURAND_CHECK(curandSetPseudoRandomGeneratorSeed(curand_generator(),
        seed));
    CURAND_CHECK(curandSetGeneratorOffset(curand_generator(), 0));
  } else {
    if (!g_curand_availability_logged) {
        LOG(ERROR) <<
            \"Curand not available. Skipping setting the curand seed.\";
        g_curand_availability_logged = true;
    }
  }
" "  gpu().SeedCurand(seed);\n"
  "  int current_device;
  CUDA_CHECK(cudaGetDevice(&current_device));
  if (current_device == device_id) {
    return;
  }
  // The call to cudaSetDevice must come before any calls to Get, which
  // may perform initialization using the GPU.
  CUDA_CHECK(cudaSetDevice(device_id));
  if (Get().cublas_handle_) CUBLAS_CHECK(cublasDestroy(Get().cublas_handle_));
  if (Get().curand_generator_) {
    CURAND_CHECK(curandDestroyGenerator(Get().curand_generator_));
  }
  CUBLAS_CHECK(cublasCreate(&Get().cublas_handle_));
  CURAND_CHECK(curandCreateGenerator(&Get().curand_generator_,
      CURAND_RNG_PSEUDO_DEFAULT));
  CURAND_CHECK(curandSetPseudoRandomGeneratorSeed(Get().curand_generator_,
      cluster_seedgen()));
" "  UseGpu(device_id);\n"
  # the generator had two owners
  "  generator_.reset(other.generator_.get());" "  generator_ = other.generator_;"
  # CUDA 13 removed these fields; the attributes exist in all versions.
  "prop.clockRate" "attribute(cudaDevAttrClockRate)"
  "prop.deviceOverlap" "attribute(cudaDevAttrGpuOverlap)"
  "prop.kernelExecTimeoutEnabled" "attribute(cudaDevAttrKernelExecTimeout)"
  "CUDA_CHECK(cudaGetDeviceProperties(&prop, device));"
  "CUDA_CHECK(cudaGetDeviceProperties(&prop, device));
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
    return value;
  };")
# Threads in CPU mode need neither a device nor a driver.
caffe_edit(
  src/caffe/internal_thread.cpp
  "CUDA_CHECK(cudaGetDevice(&device));" "if (Caffe::mode() == Caffe::GPU) CUDA_CHECK(cudaGetDevice(&device));"
  "CUDA_CHECK(cudaSetDevice(device));" "if (mode == Caffe::GPU) CUDA_CHECK(cudaSetDevice(device));")
# Destructors must not throw, and after a device error these calls fail.
caffe_edit(src/caffe/syncedmem.cpp "CUDA_CHECK(cudaFree(gpu_ptr_));" "FreeOnGpu(gpu_ptr_);")
caffe_edit(include/caffe/syncedmem.hpp "CUDA_CHECK(cudaFreeHost(ptr));" "FreePinned(ptr);")
caffe_edit(include/caffe/util/benchmark.hpp "cudaEvent_t start_gpu_;" "cudaEvent_t start_gpu_ = NULL;"
           "cudaEvent_t stop_gpu_;" "cudaEvent_t stop_gpu_ = NULL;")
caffe_edit(
  src/caffe/util/benchmark.cpp
  # its events belong to the mode in which it was created
  "Timer::~Timer() {\n  if (Caffe::mode() == Caffe::GPU) {" "Timer::~Timer() {\n  if (start_gpu_ != NULL) {"
  "CUDA_CHECK(cudaEventDestroy(start_gpu_));" "cudaEventDestroy(start_gpu_);"
  "CUDA_CHECK(cudaEventDestroy(stop_gpu_));" "cudaEventDestroy(stop_gpu_);")
caffe_edit(
  tools/caffe.cpp
  "    CUDA_CHECK(cudaGetDeviceCount(&count));" "    caffe::CheckGpu();\n    CUDA_CHECK(cudaGetDeviceCount(&count));"
  "      gpus->push_back(boost::lexical_cast<int>(strings[i]));"
  "      int gpu = 0;
      LOG_IF(FATAL, !boost::conversion::try_lexical_convert(strings[i], gpu))
          << \"--gpu \" << FLAGS_gpu << \": it must be all, or GPU numbers separated by commas\";
      gpus->push_back(gpu);"
  "cudaGetDeviceProperties(&device_prop, gpus[i]);"
  "caffe::UseGpu(gpus[i]);\n      CUDA_CHECK(cudaGetDeviceProperties(&device_prop, gpus[i]));"
  "cudaGetDeviceProperties(&device_prop, gpus[0]);"
  "caffe::UseGpu(gpus[0]);\n    CUDA_CHECK(cudaGetDeviceProperties(&device_prop, gpus[0]));")

# --- Data layers -----------------------------------------------------------------------------------------------------
# As in Forward_cpu. In addition, the device may still be reading the batch that is returned.
caffe_edit(
  src/caffe/layers/base_data_layer.cu
  "#include \"caffe/layers/base_data_layer.hpp\"" "#include \"caffe/layers/base_data_layer.hpp\"\n#include \"prefetch_error.hpp\""
  "    prefetch_free_.push(prefetch_current_);"
  "    CUDA_CHECK(cudaStreamSynchronize(cudaStreamDefault));\n    prefetch_free_.push(prefetch_current_);"
  "  prefetch_current_ = prefetch_full_.pop(\"Waiting for data\");"
  "  CheckProcess(process_);
  prefetch_current_ = prefetch_full_.pop(\"Waiting for data\");
  if (prefetch_current_ == NULL) {
    prefetch_full_.push(NULL);  // for the next call: the thread has ended
    LOG(FATAL) << PrefetchError(this);
  }")
caffe_edit(
  src/caffe/layers/base_data_layer.cpp
  "    CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));"
  "    const cudaError_t failed = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (failed != cudaSuccess) {
      KeepPrefetchError(this, CudaProblem(failed));
      prefetch_full_.push(NULL);
      return;
    }"
  "    CUDA_CHECK(cudaStreamDestroy(stream));" "    cudaStreamDestroy(stream);")

# --- Labels and indices ----------------------------------------------------------------------------------------------
# An invalid label caused accesses outside the blobs. Its loss is now NaN; only if the sum over the batch, which the host
# reads anyway, is NaN, are the labels copied and checked.
caffe_edit(
  src/caffe/layers/softmax_loss_layer.cu
  "#include \"caffe/util/math_functions.hpp\"" "#include \"caffe/util/math_functions.hpp\"\n#include \"check_label.hpp\""
  "      loss[index] = -log(max(prob_data[n * dim + label_value * spatial_dim + s],
                      Dtype(FLT_MIN)));"
  "      const Dtype given = label[n * spatial_dim + s];
      const bool known = given > Dtype(-1) && given < dim / spatial_dim;
      const Dtype prob = known ? prob_data[n * dim + label_value * spatial_dim + s] : Dtype(NAN);
      // max() would drop NaN: the loss of a diverged net must be NaN, as on the CPU
      loss[index] = -log(prob < Dtype(FLT_MIN) ? Dtype(FLT_MIN) : prob);"
  "  caffe_gpu_asum(nthreads, loss_data, &loss);"
  "  caffe_gpu_asum(nthreads, loss_data, &loss);
  if (loss != loss) {
    CheckLabels(bottom[1]->cpu_data(), nthreads, dim / inner_num_, has_ignore_label_, ignore_label_);
  }"
  "      bottom_diff[n * dim + label_value * spatial_dim + s] -= 1;"
  "      if (label_value >= 0 && label_value < channels) {
        bottom_diff[n * dim + label_value * spatial_dim + s] -= 1;
      }")
caffe_edit(
  src/caffe/layers/accuracy_layer.cu
  "#include \"caffe/util/math_functions.hpp\"" "#include \"caffe/util/math_functions.hpp\"\n#include \"check_label.hpp\""
  "    const Dtype prob_of_true_class = bottom_data[n * dim
                                                 + label_value * spatial_dim
                                                 + s];"
  "    const Dtype given = label[n * spatial_dim + s];
    const bool known = given > Dtype(-1) && given < num_labels;
    const Dtype prob_of_true_class = known ? bottom_data[n * dim + label_value * spatial_dim + s] : Dtype(NAN);"
  "      acc[index] = (num_better_predictions < top_k);"
  "      acc[index] = known ? Dtype(num_better_predictions < top_k) : Dtype(NAN);"
  "      acc[label_value*nthreads + index] += (num_better_predictions < top_k);
      counts[label_value*nthreads + index] = 1;"
  "      acc[(known ? label_value : 0) * nthreads + index] += known ? Dtype(num_better_predictions < top_k) : Dtype(NAN);
      if (known) counts[label_value*nthreads + index] = 1;"
  "    caffe_gpu_asum(nthreads, acc_data, &acc);"
  "    caffe_gpu_asum(nthreads, acc_data, &acc);
    if (acc != acc) CheckLabels(bottom[1]->cpu_data(), nthreads, num_labels, has_ignore_label_, ignore_label_);"
  "    caffe_gpu_asum(bottom[0]->count(), acc_data, &acc);"
  "    caffe_gpu_asum(bottom[0]->count(), acc_data, &acc);
    if (acc != acc) CheckLabels(bottom[1]->cpu_data(), nthreads, num_labels, has_ignore_label_, ignore_label_);")
# Without synchronisation with the host, the output for an invalid index is NaN, and it has no gradient. The order of
# atomic additions varies: in deterministic mode, one thread computes a column of the gradient.
caffe_edit(
  src/caffe/layers/embed_layer.cu
  "#include \"caffe/util/math_functions.hpp\"" "#include \"caffe/util/math_functions.hpp\"\n#include \"gpu_settings.hpp\""
  "template <typename Dtype>\nvoid EmbedLayer<Dtype>::Forward_gpu("
  "template <typename Dtype>
__global__ void EmbedBackwardInOrder(const Dtype* bottom_data, const Dtype* top_diff, const int M, const int N,
                                     const int K, Dtype* weight_diff) {
  CUDA_KERNEL_LOOP(d, N) {
    for (int n = 0; n < M; ++n) {
      if (bottom_data[n] > Dtype(-1) && bottom_data[n] < K) {
        weight_diff[static_cast<int>(bottom_data[n]) * N + d] += top_diff[n * N + d];
      }
    }
  }
}

template <typename Dtype>
void EmbedLayer<Dtype>::Forward_gpu("
  "    EmbedBackward<Dtype>  //"
  "    if (gpu_settings::Deterministic())
      EmbedBackwardInOrder<Dtype><<<CAFFE_GET_BLOCKS(N_), CAFFE_CUDA_NUM_THREADS>>>(bottom_data, top_diff, M_, N_, K_,
                                                                                    weight_diff);
    else
      EmbedBackward<Dtype>  //"
  "    const int weight_index = index * N + d;
    top_data[top_index] = weight[weight_index];"
  "    const int weight_index = index * N + d;
    top_data[top_index] = bottom_data[n] > Dtype(-1) && bottom_data[n] < K ? weight[weight_index] : Dtype(NAN);"
  "    caffe_gpu_atomic_add(top_diff[top_index], weight_diff + weight_index);"
  "    if (bottom_data[n] > Dtype(-1) && bottom_data[n] < K) {
      caffe_gpu_atomic_add(top_diff[top_index], weight_diff + weight_index);
    }")
caffe_edit(
  src/caffe/layers/batch_reindex_layer.cu
  "bottom[0]->count() / bottom[0]->shape(0)" "bottom[0]->count(1)"
  "  vector<std::pair<int, int> > mapping;\n"
  "  check_batch_reindex(bottom[0]->shape(0), bottom[1]->count(), bottom[1]->cpu_data());
  if (bottom[0]->count() == 0) return;
  vector<std::pair<int, int> > mapping;\n")
caffe_edit(src/caffe/layers/filter_layer.cu
           "int dim = bottom[t]->count() / bottom[t]->shape(0);" "int dim = bottom[t]->count(1);"
           "const int dim = top[i]->count() / top[i]->shape(0);" "const int dim = bottom[i]->count(1);")
# NaN wins its window and is propagated, as on the CPU.
caffe_edit(src/caffe/layers/pooling_layer.cu
           "if (bottom_slice[h * width + w] > maxval) {"
           "if (bottom_slice[h * width + w] > maxval || bottom_slice[h * width + w] != bottom_slice[h * width + w]) {")

# --- Several GPUs ----------------------------------------------------------------------------------------------------
# An error in one of the threads, or an early stop, ended the process or left the others waiting; it now ends all threads
# and is thrown by NCCL::Run. NCCL divides the sums: cuBLAS did so in a separate stream, and is not reproducible if a
# handle is used in two streams.
caffe_edit(include/caffe/parallel.hpp "#include \"caffe/util/nccl.hpp\"" "#include \"caffe/util/nccl.hpp\"\n#include \"team_barrier.hpp\""
           "boost::barrier" "TeamBarrier")
caffe_edit(
  src/caffe/parallel.cpp
  "boost::barrier" "TeamBarrier"
  "ncclSum, comm_, stream_));
    caffe_gpu_scal(size, (Dtype) 1.0 / Caffe::solver_count(),
                   blobs[0]->mutable_gpu_diff(), stream_);" "ncclAvg, comm_, stream_));"
  "ncclSum, comm_,
                             cudaStreamDefault));
    caffe_gpu_scal(static_cast<int>(size_),
                   (Dtype) 1.0 / Caffe::solver_count(), diff_);" "ncclAvg, comm_, cudaStreamDefault));"
  "  CUDA_CHECK(cudaFree(data_));" "  FreeOnGpu(data_);"
  "  CUDA_CHECK(cudaFree(diff_));" "  FreeOnGpu(diff_);"
  "    CUDA_CHECK(cudaStreamDestroy(stream_));" "    cudaStreamDestroy(stream_);"
  "  void InternalThreadEntry() {\n"
  "  void InternalThreadEntry() {
    try {
      Train();
    } catch (const std::exception& error) {
      barrier_->Fail(\"GPU \" + std::to_string(device_) + \": \" + error.what());
    }
  }

  void Train() {\n"
  "  for (int i = 1; i < gpus.size(); ++i) {\n    CUDA_CHECK(cudaSetDevice(gpus[i]));"
  "  try {\n  for (int i = 1; i < gpus.size(); ++i) {\n    CUDA_CHECK(cudaSetDevice(gpus[i]));"
  "  barrier.wait();  // Hangs without it when running tests"
  "  if (solver_->iter() < solver_->param().max_iter()) {
    barrier.Fail(\"the training was stopped\");  // the other threads would continue to max_iter
  } else {
    barrier.wait();
  }
  } catch (const std::exception& error) {
    barrier.Fail(error.what());
    for (size_t i = 1; i < workers.size(); ++i) {
      if (workers[i]) workers[i]->StopInternalThread();
    }
    throw;
  }")

# --- cuDNN -----------------------------------------------------------------------------------------------------------
if(CUDNN_FOUND)
  # One handle per thread, created on the GPU, instead of one per layer, which requires a device. Descriptors need no
  # device; an empty blob has none, and activations support any number of axes.
  foreach(layer pooling relu sigmoid tanh softmax lrn lcn)
    caffe_edit(include/caffe/layers/cudnn_${layer}_layer.hpp "  cudnnHandle_t             handle_;\n" "")
    caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cpp "  CUDNN_CHECK(cudnnCreate(&handle_));\n" "")
    if(layer MATCHES "relu|sigmoid|tanh")
      caffe_edit(
        src/caffe/layers/cudnn_${layer}_layer.cpp
        "bottom[0]->num()" "cudnn::AxisOfFour(*bottom[0], 0)"
        "bottom[0]->channels()" "cudnn::AxisOfFour(*bottom[0], 1)"
        "bottom[0]->height()" "cudnn::AxisOfFour(*bottom[0], 2)"
        "bottom[0]->width()" "cudnn::AxisOfFour(*bottom[0], 3)")
      caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cu "this->handle_" "Caffe::gpu().Cudnn()")
    else()
      caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cu "handle_" "Caffe::gpu().Cudnn()")
    endif()
    caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cu "const Dtype* bottom_data = bottom[0]->gpu_data();"
               "if (bottom[0]->count() == 0) return;\n  const Dtype* bottom_data = bottom[0]->gpu_data();")
  endforeach()
  foreach(layer pooling softmax)
    caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cpp "  cudnnDestroy(handle_);\n" "")
  endforeach()
  # an unused header that only nvcc finds
  caffe_edit(src/caffe/layers/cudnn_softmax_layer.cpp "#include \"thrust/device_vector.h\"\n" "")
  caffe_edit(src/caffe/layers/cudnn_relu_layer.cpp "  cudnnDestroy(this->handle_);\n" "")
  foreach(layer sigmoid tanh) # descriptors that they never destroyed
    caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cpp "  cudnnDestroy(this->handle_);"
               "  cudnnDestroyActivationDescriptor(this->activ_desc_);")
  endforeach()
  foreach(layer lrn lcn)
    caffe_edit(src/caffe/layers/cudnn_${layer}_layer.cpp "  cudnnDestroy(handle_);" "  cudnnDestroyLRNDescriptor(norm_desc_);")
  endforeach()
  # Its memory is allocated in GPU mode only.
  caffe_edit(
    src/caffe/layers/cudnn_lcn_layer.cpp
    "  if (totalSizeInBytes > tempDataSize) {
    tempDataSize = totalSizeInBytes;

    cudaFree(tempData1);
    cudaFree(tempData2);
"
    "  if (Caffe::mode() == Caffe::GPU && totalSizeInBytes > tempDataSize) {
    FreeOnGpu(tempData1);
    FreeOnGpu(tempData2);
    tempData1 = tempData2 = NULL;
    tempDataSize = 0;  // until it is allocated
"
    "    CUDA_CHECK(cudaMalloc(&tempData2, totalSizeInBytes));"
    "    CUDA_CHECK(cudaMalloc(&tempData2, totalSizeInBytes));\n    tempDataSize = totalSizeInBytes;")
  caffe_edit(
    src/caffe/layers/cudnn_lcn_layer.cu "if (bottom[0]->count() == 0) return;"
    "if (bottom[0]->count() == 0) return;
  CHECK_GE(tempDataSize, bottom[0]->count() * sizeof(Dtype)) << \"run forward on the GPU before backward\";")
  # If a window extends past the padding, cuDNN divides by the size of the whole window and Caffe by that of the part.
  caffe_edit(
    include/caffe/layers/cudnn_pooling_layer.hpp
    "  bool handles_setup_;"
    "  /// Whether a window extends past the padding
  bool Truncated() const {
    return (this->pooled_height_ - 1) * this->stride_h_ + this->kernel_h_ > this->height_ + 2 * this->pad_h_ ||
           (this->pooled_width_ - 1) * this->stride_w_ + this->kernel_w_ > this->width_ + 2 * this->pad_w_;
  }

  bool handles_setup_;")
  caffe_edit(
    src/caffe/layers/cudnn_pooling_layer.cu
    "  if (bottom[0]->count() == 0) return;\n  const Dtype* bottom_data = bottom[0]->gpu_data();\n  Dtype* top_data"
    "  if (bottom[0]->count() == 0) return;
  if (Truncated()) return PoolingLayer<Dtype>::Forward_gpu(bottom, top);
  const Dtype* bottom_data = bottom[0]->gpu_data();\n  Dtype* top_data"
    "  const Dtype* top_diff = top[0]->gpu_diff();"
    "  if (Truncated()) return PoolingLayer<Dtype>::Backward_gpu(top, propagate_down, bottom);
  const Dtype* top_diff = top[0]->gpu_diff();")
  # The choice of cuDNN's layers: also for dilated convolutions; only on request for pooling, which takes little time,
  # and for LRN within a channel, which has another formula; never for settings that cuDNN rejects.
  caffe_edit(
    src/caffe/layer_factory.cpp
    "#ifdef USE_CUDNN
  bool use_dilation = false;
  for (int i = 0; i < conv_param.dilation_size(); ++i) {
    if (conv_param.dilation(i) > 1) {
      use_dilation = true;
    }
  }
#endif
" ""
    "    if (!use_dilation) {\n      engine = ConvolutionParameter_Engine_CUDNN;\n    }"
    "    engine = ConvolutionParameter_Engine_CUDNN;"
    "    if (use_dilation) {
      LOG(FATAL) << \"CuDNN doesn't support the dilated convolution at Layer \"
                 << param.name();
    }
" ""
    "    if (use_dilation) {
      LOG(FATAL) << \"CuDNN doesn't support the dilated deconvolution at Layer \"
                 << param.name();
    }
" ""
    "#ifdef USE_CUDNN\n    engine = PoolingParameter_Engine_CUDNN;\n#endif\n" ""
    "    engine = LRNParameter_Engine_CUDNN;\n"
    "    engine = param.lrn_param().norm_region() == LRNParameter_NormRegion_WITHIN_CHANNEL
                 ? LRNParameter_Engine_CAFFE
                 : LRNParameter_Engine_CUDNN;\n"
    "if (param.lrn_param().local_size() > CUDNN_LRN_MAX_N) {"
    "if (lrn_param.local_size() > CUDNN_LRN_MAX_N || lrn_param.beta() < CUDNN_LRN_MIN_BETA ||
          lrn_param.k() < CUDNN_LRN_MIN_K) {")
endif()
