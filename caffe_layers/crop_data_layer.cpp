#include "caffe/layers/crop_data_layer.hpp"

#include <algorithm>
#include <limits>
#include <opencv2/core.hpp>
#include <utility>

#include "caffe/util/io.hpp"
#include "caffe/util/math_functions.hpp"
#include "check_process.hpp"
#include "crop_copy.hpp"
#include "datum_view.hpp"

namespace caffe {
namespace {

const uint32_t kChunk = 8;           // samples that a thread processes at a time
const uint32_t kMostThreads = 1024;  // limits that only typing errors exceed
const uint32_t kMostBatches = 1024;

void CheckRange(const char* name, uint32_t value, uint32_t most) {
  LOG_IF(FATAL, value < 1 || value > most)
      << "crop_data_param's " << name << " is " << value << ", 1 to " << most << " are allowed";
}

DatumView View(const LmdbRecords& records, uint32_t record) {
  const std::pair<const void*, size_t> value = records.value(record);
  return DatumView(value.first, value.second);
}

}  // namespace

template <typename Dtype>
CropDataLayer<Dtype>::~CropDataLayer() {
  Stop();
}

template <typename Dtype>
void CropDataLayer<Dtype>::LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  try {
    SetUpBatch(top.size());
    SetUpTransform();
  } catch (const std::exception& error) {  // a net has two data layers, often with the same name
    LOG(FATAL) << "layer " << this->layer_param_.name() << " (" << Phase_Name(this->phase_) << "): " << error.what();
  }
  const vector<int> one_each(1, share_);
  for (uint32_t i = 0; i < param_.prefetch(); ++i) {
    slots_.emplace_back(new Slot());
    slots_.back()->data.Reshape({static_cast<int>(share_), channels_, height_, width_});
    slots_.back()->label.Reshape(one_each);
    slots_.back()->record.Reshape(one_each);
    Recycle(slots_.back().get());
#ifndef CPU_ONLY
    if (Caffe::mode() == Caffe::GPU) {  // memory is allocated here, before other threads run
      for (Blob<Dtype>* blob : {&slots_.back()->data, &slots_.back()->label, &slots_.back()->record}) {
        blob->mutable_gpu_data();
      }
      Recycle(slots_.back().get());
    }
#endif
  }
  top[0]->ReshapeLike(slots_[0]->data);
  for (size_t i = 1; i < top.size(); ++i) top[i]->Reshape(one_each);
  start_ = param_.iteration();
  claimed_ = returned_ = given_ = 0;
  stop_ = false;
}

/// The records, and this solver's share of a batch.
template <typename Dtype>
void CropDataLayer<Dtype>::SetUpBatch(size_t tops) {
  LOG_IF(FATAL, !this->layer_param_.has_crop_data_param())
      << "CropData needs crop_data_param { source batch_size }"
      << (this->layer_param_.has_data_param() ? " and does not read data_param" : "");
  param_ = this->layer_param_.crop_data_param();
  transform_ = this->layer_param_.transform_param();
  CheckRange("batch_size", param_.batch_size(), std::numeric_limits<int32_t>::max());
  CheckRange("prefetch", param_.prefetch(), kMostBatches);
  if (param_.has_threads()) CheckRange("threads", param_.threads(), kMostThreads);
  records_.reset(new LmdbRecords(param_.source()));
  train_ = this->phase_ == TRAIN;
  shuffle_ = param_.has_shuffle() ? param_.shuffle() : train_;
  crops_ = !train_ && param_.draw() == CropDataParameter::TEN_CROP ? kTenCrops : 1;
  LOG_IF(FATAL, param_.batch_size() % crops_ != 0) << "crop_data_param's batch_size is " << param_.batch_size()
                                                   << ": with draw TEN_CROP it must be a multiple of 10 "
                                                   << "in testing";

  // Testing is not divided: each solver tests all records.
  const uint32_t solvers = train_ ? Caffe::solver_count() : 1;
  LOG_IF(FATAL, param_.batch_size() % solvers != 0)
      << "crop_data_param's batch_size is " << param_.batch_size() << ": it must be a multiple "
      << "of the number of solvers, " << solvers;
  LOG_IF(FATAL, !param_.has_seed() && solvers > 1)
      << "crop_data_param needs a seed, such as seed: 1, because " << solvers << " solvers share a batch";
  seed_ = param_.has_seed() ? param_.seed() : caffe_rng_rand();
  share_ = param_.batch_size() / solvers;
  first_position_ = train_ ? share_ * Caffe::solver_rank() : 0;
  chunks_ = (share_ + kChunk - 1) / kChunk;

  LOG_IF(FATAL, tops == 3 && records_->size() > uint64_t(1) << std::numeric_limits<Dtype>::digits)
      << "the LMDB " << param_.source() << " has " << records_->size() << " records, more than the record top can "
      << "represent: remove the third top";
}

/// The shape of a crop, from the first record, and the mean.
template <typename Dtype>
void CropDataLayer<Dtype>::SetUpTransform() {
  int height, width;
  bool encoded;
  try {
    const DatumView datum = View(*records_, 0);
    encoded = datum.encoded;
    if (encoded) {
      const cv::Mat picture = DecodePicture(datum, transform_);
      channels_ = picture.channels();
      height = picture.rows;
      width = picture.cols;
    } else {
      channels_ = datum.channels;
      height = datum.height;
      width = datum.width;
    }
    LOG_IF(FATAL, channels_ <= 0 || height <= 0 || width <= 0)
        << "its shape is " << ShapeString(channels_, height, width);
  } catch (const std::exception& error) {
    LOG(FATAL) << "record " << records_->key(0) << " of " << param_.source() << ": " << error.what();
  }
  if (!param_.has_threads()) {
    param_.set_threads(encoded ? std::max(1, std::min<int>(4, std::thread::hardware_concurrency())) : 1);
  }

  const int crop_size = transform_.crop_size();
  LOG_IF(FATAL, crop_size < 0 || crop_size > std::min(height, width))
      << "transform_param's crop_size is " << transform_.crop_size() << ", record " << records_->key(0) << " of "
      << param_.source() << " has " << ShapeString(channels_, height, width) << " values: make it "
      << std::min(height, width) << " or less";
  height_ = crop_size > 0 ? crop_size : height;
  width_ = crop_size > 0 ? crop_size : width;
  picture_height_ = crop_size > 0 ? 0 : height;
  picture_width_ = crop_size > 0 ? 0 : width;

  LOG_IF(FATAL, transform_.force_color() && transform_.force_gray())
      << "transform_param has both force_color and force_gray: remove one";
  LOG_IF(FATAL, transform_.has_mean_file() && transform_.mean_value_size() > 0)
      << "transform_param has both mean_file and mean_value: remove one";
  if (transform_.has_mean_file()) {
    const std::string& file = transform_.mean_file();
    BlobProto proto;
    Blob<Dtype> mean;
    try {
      LOG_IF(FATAL, !ReadProtoFromBinaryFile(file, &proto) || proto.data_size() + proto.double_data_size() == 0)
          << "it is not a BlobProto";
      mean.FromProto(proto);
    } catch (const std::exception& error) {
      LOG(FATAL) << "mean_file " << file << " cannot be read (" << error.what() << "): tools/convert.py writes one";
    }
    const vector<int>& shape = mean.shape();
    const size_t axes = shape.size();
    const bool fits = axes >= 3 && mean.count(0, static_cast<int>(axes) - 3) == 1 && shape[axes - 3] == channels_ &&
                      shape[axes - 2] == height && shape[axes - 1] == width;
    LOG_IF(FATAL, !fits) << "mean_file " << file << " has shape " << mean.shape_string() << ", but the images are "
                         << ShapeString(channels_, height, width);
    mean_image_.assign(mean.cpu_data(), mean.cpu_data() + mean.count());
    picture_height_ = height;
    picture_width_ = width;
  }
  const int values = transform_.mean_value_size();
  LOG_IF(FATAL, values > 1 && values != channels_)
      << "transform_param has " << values << " values of mean_value, but the images have " << channels_
      << " channels: expected one, or one per channel";
  if (values > 0) mean_values_.resize(channels_);
  for (int c = 0; values > 0 && c < channels_; ++c) mean_values_[c] = transform_.mean_value(values == 1 ? 0 : c);
}

// --- Forward ---------------------------------------------------------------------------------------------------------

template <typename Dtype>
void CropDataLayer<Dtype>::Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  Slot* slot = Next();
  Blob<Dtype>* const made[] = {&slot->data, &slot->label, &slot->record};
  for (size_t i = 0; i < top.size(); ++i) {
    top[i]->ReshapeLike(*made[i]);
    top[i]->ShareData(*made[i]);
  }
}

/// Wait for the next batch and release the one before it.
template <typename Dtype>
typename CropDataLayer<Dtype>::Slot* CropDataLayer<Dtype>::Next() {
  if (workers_.empty()) {
    Start();
  } else {
    CheckProcess(process_);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  if (returned_ < given_) {
    Recycle(slots_[returned_ % slots_.size()].get());
    ++returned_;
    work_.notify_all();
  }
  Slot* slot = slots_[given_ % slots_.size()].get();
  ready_.wait(lock, [&] { return slot->pending == 0; });
  if (!slot->error.empty()) {
    const std::string error = slot->error;
    lock.unlock();
    LOG(FATAL) << error;
  }
  ++given_;
  return slot;
}

template <typename Dtype>
void CropDataLayer<Dtype>::Seek(uint64_t iteration) {
  Stop();
  for (const auto& slot : slots_) Recycle(slot.get());
  start_ = iteration;
  claimed_ = returned_ = given_ = 0;
  stop_ = false;
}

/// Prepare a slot. Pointers are read here, because a blob's methods are not thread-safe.
template <typename Dtype>
void CropDataLayer<Dtype>::Recycle(Slot* slot) {
  slot->data_values = slot->data.mutable_cpu_data();
  slot->label_values = slot->label.mutable_cpu_data();
  slot->record_values = slot->record.mutable_cpu_data();
  slot->pending = chunks_;
  slot->error.clear();
}

// --- The threads -----------------------------------------------------------------------------------------------------

template <typename Dtype>
void CropDataLayer<Dtype>::Start() {
  int device = -1;
#ifndef CPU_ONLY
  if (Caffe::mode() == Caffe::GPU) CUDA_CHECK(cudaGetDevice(&device));
#endif
  process_ = getpid();
  for (uint32_t i = 0; i < param_.threads(); ++i) workers_.emplace_back(&CropDataLayer<Dtype>::Work, this, device);
}

template <typename Dtype>
void CropDataLayer<Dtype>::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

template <typename Dtype>
void CropDataLayer<Dtype>::Work(int device) {
#ifndef CPU_ONLY
  cudaStream_t stream = nullptr;
  std::string device_error;
  if (device >= 0) {
    try {
      CUDA_CHECK(cudaSetDevice(device));
      CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    } catch (const std::exception& error) {
      device_error = error.what();
    }
  }
#endif
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stop_ || claimed_ / chunks_ < returned_ + slots_.size(); });
    if (stop_) break;
    const uint64_t batch = claimed_ / chunks_;
    const uint32_t begin = static_cast<uint32_t>(claimed_ % chunks_) * kChunk;
    Slot* slot = slots_[batch % slots_.size()].get();
    ++claimed_;
    lock.unlock();
    Fill(start_ + batch, begin, std::min(share_, begin + kChunk), slot);
    lock.lock();
#ifndef CPU_ONLY
    if (device >= 0 && slot->pending == 1 && slot->error.empty()) {  // the last chunk: the batch is complete
      lock.unlock();
      try {
        for (Blob<Dtype>* blob : {&slot->data, &slot->label, &slot->record}) {
          if (device_error.empty()) blob->data()->async_gpu_push(stream);
        }
        CUDA_CHECK(cudaStreamSynchronize(stream));
      } catch (const std::exception& error) {
        device_error = error.what();
      }
      lock.lock();
      slot->error = device_error;
    }
#endif
    if (--slot->pending == 0) ready_.notify_all();
  }
#ifndef CPU_ONLY
  if (stream != nullptr) cudaStreamDestroy(stream);
#endif
}

/// Make samples begin ... end-1 of this solver's share; errors are stored in the slot.
template <typename Dtype>
void CropDataLayer<Dtype>::Fill(uint64_t iteration, uint32_t begin, uint32_t end, Slot* slot) {
  const size_t values = static_cast<size_t>(channels_) * height_ * width_;
  uint32_t records[kChunk];
  uint32_t i = begin;
  std::string error;
  try {
    records_->CheckWhole();
    for (; i < end; ++i) records[i - begin] = RecordOf(iteration * param_.batch_size() + first_position_ + i);
    for (i = begin; i < end; ++i) {
      if (i + 1 < end) records_->Prefetch(records[i + 1 - begin]);
      slot->record_values[i] = records[i - begin];
      Read(records[i - begin], iteration, first_position_ + i, slot->data_values + i * values, slot->label_values + i);
    }
    return;
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (slot->error.empty() || i < slot->error_position) {
    slot->error = error;
    slot->error_position = i;
  }
}

/// The record of a sample, counted from the first one of the first epoch.
template <typename Dtype>
uint32_t CropDataLayer<Dtype>::RecordOf(uint64_t sample) {
  sample /= crops_;
  const uint32_t place = static_cast<uint32_t>(sample % records_->size());
  return shuffle_ ? (*OrderOf(sample / records_->size()))[place] : place;
}

template <typename Dtype>
void CropDataLayer<Dtype>::Read(uint32_t record, uint64_t iteration, uint32_t position, Dtype* data,
                                Dtype* label) const {
  try {
    const DatumView datum = View(*records_, record);
    cv::Mat picture;
    if (datum.encoded) picture = DecodePicture(datum, transform_);
    const int channels = datum.encoded ? picture.channels() : datum.channels;
    const int height = datum.encoded ? picture.rows : datum.height;
    const int width = datum.encoded ? picture.cols : datum.width;
    LOG_IF(FATAL,
           channels != channels_ || (picture_height_ > 0 && (height != picture_height_ || width != picture_width_)))
        << "its shape is " << ShapeString(channels, height, width) << ", expected "
        << ShapeString(channels_, picture_height_ == 0 ? height : picture_height_,
                       picture_height_ == 0 ? width : picture_width_);
    LOG_IF(FATAL, height < height_ || width < width_) << "its shape is " << ShapeString(channels, height, width)
                                                      << ", too small for crops of " << height_ << " x " << width_;

    const Crop crop = train_       ? DrawCrop(seed_, iteration, position, height, width, height_, width_, param_.draw(),
                                              transform_.mirror())
                      : crops_ > 1 ? TenCrop(position % crops_, height, width, height_, width_)
                                   : CentreCrop(height, width, height_, width_);
    const int64_t most = std::numeric_limits<int>::max();
    LOG_IF(FATAL, static_cast<int64_t>(height) * width > most / channels)
        << "its shape is " << ShapeString(channels, height, width) << ", which is beyond " << most << " values";
    const Normalisation<Dtype> normalisation = {mean_image_.empty() ? nullptr : mean_image_.data(),
                                                mean_values_.empty() ? nullptr : mean_values_.data(),
                                                static_cast<Dtype>(transform_.scale())};
    if (datum.encoded) {
      const Picture<uint8_t> pixels = {picture.data, channels, height, width, 1, static_cast<int>(picture.step[0]),
                                       channels};
      CopyCrop(pixels, crop, height_, width_, normalisation, data);
    } else if (datum.data_size > 0) {
      CheckCount(datum, "bytes of data", datum.data_size);
      const Picture<uint8_t> planes = {datum.data, channels, height, width, height * width, width, 1};
      CopyCrop(planes, crop, height_, width_, normalisation, data);
    } else {
      CheckCount(datum, "values", datum.float_data_size);
      const Picture<float> planes = {datum.float_data, channels, height, width, height * width, width, 1};
      CopyCrop(planes, crop, height_, width_, normalisation, data);
    }
    *label = datum.label;
  } catch (const std::exception& error) {
    LOG(FATAL) << "record " << records_->key(record) << " of " << param_.source() << ": " << error.what();
  }
}

/// The order of the records in an epoch. Two are kept, because a batch may span two epochs.
template <typename Dtype>
typename CropDataLayer<Dtype>::Order CropDataLayer<Dtype>::OrderOf(uint64_t epoch) {
  std::lock_guard<std::mutex> lock(orders_mutex_);
  for (const auto& known : orders_) {
    if (known.first == epoch) return known.second;
  }
  if (orders_.size() == 2) orders_.erase(orders_.begin());
  orders_.emplace_back(epoch, std::make_shared<const vector<uint32_t>>(EpochOrder(seed_, epoch, records_->size())));
  return orders_.back().second;
}

#ifdef CPU_ONLY
STUB_GPU_FORWARD(CropDataLayer, Forward);
#endif

template <typename Dtype>
void SeekCropData(const Net<Dtype>& net, uint64_t iteration) {
  for (const auto& layer : net.layers()) {
    auto* data = dynamic_cast<CropDataLayer<Dtype>*>(layer.get());
    if (data != nullptr) data->Seek(layer->layer_param().crop_data_param().iteration() + iteration);
  }
}

INSTANTIATE_CLASS(CropDataLayer);
template void SeekCropData(const Net<float>& net, uint64_t iteration);
template void SeekCropData(const Net<double>& net, uint64_t iteration);
REGISTER_LAYER_CLASS(CropData);

}  // namespace caffe
