#include "caffe/layers/crop_data_layer.hpp"

namespace caffe {

template <typename Dtype>
void CropDataLayer<Dtype>::Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  // The device may still be reading the batch that is handed back.
  CUDA_CHECK(cudaStreamSynchronize(cudaStreamDefault));
  Forward_cpu(bottom, top);
}

INSTANTIATE_LAYER_GPU_FORWARD(CropDataLayer);

}  // namespace caffe
