#ifndef CAFFE_CROP_DATA_LAYER_HPP_
#define CAFFE_CROP_DATA_LAYER_HPP_

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/net.hpp"
#include "caffe/proto/caffe.pb.h"
#include "crop_draw.hpp"
#include "lmdb_records.hpp"

namespace caffe {

/// Labelled crops of the images in an LMDB (section 3.1 of the paper). Training takes random crops, half of them
/// mirrored, of all records in a new order in each epoch. Testing takes the centre crop of each record in the order of
/// the keys; with draw TEN_CROP it takes ten crops of each record: sample s is crop s mod 10 of record s / 10 mod n.
///
/// A sample depends only on (seed, iteration, position): the number of the batch and the position in it. It does not
/// depend on the number of threads, on earlier batches, or on the number of solvers that share a batch. Sample s =
/// iteration * batch_size + position is record s mod n of epoch s / n, where n is the number of records.
///
/// Tops:
///   data    (N x C x H x W), (value - mean) * scale
///   label   (N), optional
///   record  (N), optional: the position of each sample's record in the order of the keys, from 0
/// N is batch_size; in training, batch_size / solver_count, the share of this solver's rank. H and W are
/// transform_param's crop_size, or the size of the images.
///
/// transform_param (as for Data):
///   crop_size    at most the size of the smallest image; 0: whole images, which must have the same size
///   mirror       mirror half of the crops (training only)
///   mean_file    a BlobProto with the images' shape; its crop is subtracted from the image's
///   mean_value   one value, or one per channel
///   scale        applied after the mean
///   force_color, force_gray   colour mode of decoding
/// crop_data_param: see layers.proto.
///
/// Threads of the layer prefetch batches. After an error in one of them (a record that is not a Datum, does not decode
/// or has another shape, or a truncated database), each Forward throws caffe::Error, which names the record's key.
template <typename Dtype>
class CropDataLayer : public Layer<Dtype> {
 public:
  explicit CropDataLayer(const LayerParameter& param) : Layer<Dtype>(param) {}
  ~CropDataLayer() override;

  void LayerSetUp(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Reshape(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override {}
  const char* type() const override { return "CropData"; }
  int ExactNumBottomBlobs() const override { return 0; }
  int MinTopBlobs() const override { return 1; }
  int MaxTopBlobs() const override { return 3; }

  /// Continue with batch number `iteration` and drop prefetched batches. Called by Solver::Restore.
  void Seek(uint64_t iteration);

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override {}
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override {}

 private:
  /// A batch that is being made, is waiting, or is in the tops.
  struct Slot {
    Blob<Dtype> data, label, record;
    Dtype *data_values, *label_values, *record_values;
    int pending;        // chunks that are not done
    std::string error;  // of the first sample that failed
    uint32_t error_position;
  };
  typedef std::shared_ptr<const vector<uint32_t>> Order;

  void SetUpBatch(size_t tops);
  void SetUpTransform();
  void Start();
  void Stop();
  void Work(int device);
  void Fill(uint64_t iteration, uint32_t begin, uint32_t end, Slot* slot);
  void Read(uint32_t record, uint64_t iteration, uint32_t position, Dtype* data, Dtype* label) const;
  uint32_t RecordOf(uint64_t sample);
  Order OrderOf(uint64_t epoch);
  void Recycle(Slot* slot);
  Slot* Next();

  std::unique_ptr<LmdbRecords> records_;
  CropDataParameter param_;
  TransformationParameter transform_;
  uint64_t seed_;
  bool train_, shuffle_;
  int channels_, height_, width_;           // of a crop
  int picture_height_, picture_width_;      // required of all images; 0: any
  uint32_t first_position_, share_;         // of the batch: this solver's share
  uint32_t chunks_;                         // pieces of work in a batch
  uint32_t crops_;                          // samples per record: 10 in testing with ten crops
  vector<Dtype> mean_image_, mean_values_;  // at most one is not empty

  std::mutex orders_mutex_;
  vector<std::pair<uint64_t, Order>> orders_;  // of the last epochs

  pid_t process_ = 0;  // in which the threads run
  std::mutex mutex_;   // guards the members below
  std::condition_variable work_, ready_;
  vector<std::unique_ptr<Slot>> slots_;  // batch number b is in slot b modulo their number
  uint64_t start_;                       // the iteration of batch number 0
  uint64_t claimed_;                     // chunks started by threads, counted from batch number 0
  uint64_t returned_;                    // batches that Forward has released
  uint64_t given_;                       // batches that Forward has copied to the tops
  bool stop_;
  vector<std::thread> workers_;
};

/// Let each CropData layer of `net` continue with the batch of training iteration `iteration`, counted from the layer's
/// own crop_data_param.iteration. Called when a solver's iteration is set; the caller applies iter_size.
template <typename Dtype>
void SeekCropData(const Net<Dtype>& net, uint64_t iteration);

}  // namespace caffe

#endif  // CAFFE_CROP_DATA_LAYER_HPP_
