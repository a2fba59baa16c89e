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

/// Labelled crops of the pictures in an LMDB (section 3.1 of the paper): training takes random crops, half of them
/// mirrored, of all records in a new order in each epoch; testing takes the centre of each record in the keys' order.
/// With draw TEN_CROP, testing takes ten crops of each record: sample s is crop s mod 10 of record s / 10 mod n.
///
/// A sample is a function of (seed, iteration, position) alone, iteration being the batch's number and position the
/// place in it: not of the number of threads, of what was read before, nor of the number of solvers that share a batch.
/// Sample number s = iteration * batch_size + position is record s mod n of epoch s / n, n being the number of records.
///
/// Tops:
///   data    (N x C x H x W), (value - mean) * scale
///   label   (N), optional
///   record  (N), optional: each sample's record by its place in the order of the keys, from 0
/// N is batch_size; in training, batch_size / solver_count, of which this solver takes those of its rank. H and W are
/// transform_param's crop_size, or the pictures' own size without one.
///
/// transform_param (as for Data):
///   crop_size    no larger than any picture; 0: the whole picture, all must then be of one size
///   mirror       mirror half of the crops (training only)
///   mean_file    a BlobProto of the pictures' size; its crop is subtracted with the picture's
///   mean_value   one value, or one a channel
///   scale        after the mean
///   force_color, force_gray   what encoded pictures are decoded to
/// crop_data_param: see layers.proto.
///
/// Threads of the layer's own make batches ahead. What goes wrong there (a record that is no Datum, does not decode or
/// has another shape; a database that was cut short) is thrown by Forward as a caffe::Error that names the record's
/// key, and by each Forward after it.
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

  /// The next batch is number `iteration`; those made ahead are dropped. Solver::Restore calls it.
  void Seek(uint64_t iteration);

 protected:
  void Forward_cpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Forward_gpu(const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) override;
  void Backward_cpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override {}
  void Backward_gpu(const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
                    const vector<Blob<Dtype>*>& bottom) override {}

 private:
  /// A batch that is made, waits or is in the tops.
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
  int picture_height_, picture_width_;      // that all pictures must have; 0: any
  uint32_t first_position_, share_;         // of the whole batch, this solver's
  uint32_t chunks_;                         // pieces of work in a batch
  uint32_t crops_;                          // samples per record: 10 to test with ten crops
  vector<Dtype> mean_image_, mean_values_;  // at most one is not empty

  std::mutex orders_mutex_;
  vector<std::pair<uint64_t, Order>> orders_;  // the last epochs'

  pid_t process_ = 0;  // that the threads are in
  std::mutex mutex_;   // guards what follows
  std::condition_variable work_, ready_;
  vector<std::unique_ptr<Slot>> slots_;  // batch number b lies in slot b modulo their number
  uint64_t start_;                       // the iteration of batch number 0
  uint64_t claimed_;                     // chunks that threads have taken, counted from batch number 0
  uint64_t returned_;                    // batches that Forward has done with
  uint64_t given_;                       // batches that Forward has put into the tops
  bool stop_;
  vector<std::thread> workers_;
};

/// The next batch that each CropData layer of `net` reads is that of training iteration `iteration`, counted from the
/// layer's own crop_data_param.iteration. Called where a solver is put to another iteration; iter_size is the caller's.
template <typename Dtype>
void SeekCropData(const Net<Dtype>& net, uint64_t iteration);

}  // namespace caffe

#endif  // CAFFE_CROP_DATA_LAYER_HPP_
