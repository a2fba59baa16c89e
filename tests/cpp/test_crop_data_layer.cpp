// CropData in C++: float and double, CPU and GPU give the same values. tests/test_crop_data.py tests its definition.

#include "caffe/layers/crop_data_layer.hpp"

#include <lmdb.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "crop_draw.hpp"
#include "reference.hpp"

namespace {

const int kSide = 9, kCrop = 5, kRecords = 11;

uint8_t Value(int record, int c, int h, int w) { return static_cast<uint8_t>(record * 20 + c * 5 + h * 3 + w); }

/// An LMDB in a temporary folder.
class MadeLmdb {
 public:
  MadeLmdb() : path_(testing::TempDir() + "crop_data_XXXXXX") {
    if (mkdtemp(&path_[0]) == nullptr) throw std::runtime_error("no folder for the LMDB: " + path_);
    MDB_env* env;
    MDB_txn* txn;
    MDB_dbi dbi;
    Check(mdb_env_create(&env));
    Check(mdb_env_open(env, path_.c_str(), 0, 0644));
    Check(mdb_txn_begin(env, nullptr, 0, &txn));
    Check(mdb_dbi_open(txn, nullptr, 0, &dbi));
    for (int record = 0; record < kRecords; ++record) {
      caffe::Datum datum;
      datum.set_channels(2);
      datum.set_height(kSide);
      datum.set_width(kSide);
      datum.set_label(record);
      for (int i = 0; i < 2 * kSide * kSide; ++i) {
        datum.mutable_data()->push_back(Value(record, i / kSide / kSide, i / kSide % kSide, i % kSide));
      }
      std::string key(1, static_cast<char>('a' + record)), bytes = datum.SerializeAsString();
      MDB_val k = {key.size(), &key[0]}, v = {bytes.size(), &bytes[0]};
      Check(mdb_put(txn, dbi, &k, &v, 0));
    }
    Check(mdb_txn_commit(txn));
    mdb_env_close(env);
  }
  ~MadeLmdb() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  static void Check(int result) {
    if (result != MDB_SUCCESS) throw std::runtime_error(mdb_strerror(result));
  }
  std::string path_;
};

caffe::LayerParameter Param(const std::string& source) {
  caffe::LayerParameter param;
  param.set_type("CropData");
  param.mutable_transform_param()->set_crop_size(kCrop);
  param.mutable_transform_param()->set_mirror(true);
  param.mutable_transform_param()->set_scale(0.5);
  param.mutable_transform_param()->add_mean_value(3);
  param.mutable_crop_data_param()->set_source(source);
  param.mutable_crop_data_param()->set_batch_size(7);
  param.mutable_crop_data_param()->set_seed(11);
  return param;
}

template <typename Dtype>
class CropDataLayerTest : public testing::Test {};
typedef testing::Types<float, double> Dtypes;
TYPED_TEST_SUITE(CropDataLayerTest, Dtypes);

TYPED_TEST(CropDataLayerTest, BatchesAreTheCropsThatAreDrawn) {
  caffe::Caffe::set_mode(reference::mode);
  const MadeLmdb lmdb;
  auto layer = caffe::LayerRegistry<TypeParam>::CreateLayer(Param(lmdb.path()));
  caffe::Blob<TypeParam> data, label, record;
  const std::vector<caffe::Blob<TypeParam>*> none, tops = {&data, &label, &record};
  layer->SetUp(none, tops);
  for (int iteration = 0; iteration < 5; ++iteration) {
    layer->Forward(none, tops);
    ASSERT_EQ((std::vector<int>{7, 2, kCrop, kCrop}), data.shape());
    for (int i = 0; i < 7; ++i) {
      const int sample = iteration * 7 + i;
      const int expected = caffe::EpochOrder(11, sample / kRecords, kRecords)[sample % kRecords];
      ASSERT_EQ(expected, record.cpu_data()[i]);
      ASSERT_EQ(expected, label.cpu_data()[i]);
      const caffe::Crop crop =
          caffe::DrawCrop(11, iteration, i, kSide, kSide, kCrop, kCrop, caffe::CropDataParameter::UNIFORM, true);
      for (int j = 0; j < data.count(1); ++j) {
        const int c = j / kCrop / kCrop, h = j / kCrop % kCrop, w = j % kCrop;
        const int column = crop.left + (crop.mirror ? kCrop - 1 - w : w);
        ASSERT_EQ((Value(expected, c, crop.top + h, column) - 3) * 0.5, data.cpu_data()[i * data.count(1) + j]);
      }
    }
  }
}

TYPED_TEST(CropDataLayerTest, TestingWithTenCropsTakesThemFromEachRecord) {
  caffe::Caffe::set_mode(reference::mode);
  const MadeLmdb lmdb;
  caffe::LayerParameter param = Param(lmdb.path());
  param.set_phase(caffe::TEST);
  param.mutable_crop_data_param()->set_draw(caffe::CropDataParameter::TEN_CROP);
  caffe::Blob<TypeParam> data, label, record;
  const std::vector<caffe::Blob<TypeParam>*> none, tops = {&data, &label, &record};
  EXPECT_THROW(caffe::LayerRegistry<TypeParam>::CreateLayer(param)->SetUp(none, tops), caffe::Error);  // 7 samples
  param.mutable_crop_data_param()->set_batch_size(20);
  auto layer = caffe::LayerRegistry<TypeParam>::CreateLayer(param);
  layer->SetUp(none, tops);
  const int corners[5][2] = {{0, 0}, {0, kSide - kCrop}, {kSide - kCrop, 0}, {kSide - kCrop, kSide - kCrop}, {2, 2}};
  for (int iteration = 0; iteration < 7; ++iteration) {  // beyond the last record
    layer->Forward(none, tops);
    for (int i = 0; i < 20; ++i) {
      const int expected = (iteration * 2 + i / 10) % kRecords;
      ASSERT_EQ(expected, record.cpu_data()[i]);
      ASSERT_EQ(expected, label.cpu_data()[i]);
      const int* corner = corners[i % 5];
      for (int j = 0; j < data.count(1); ++j) {
        const int c = j / kCrop / kCrop, h = j / kCrop % kCrop, w = j % kCrop;
        const int column = corner[1] + (i % 10 >= 5 ? kCrop - 1 - w : w);
        ASSERT_EQ((Value(expected, c, corner[0] + h, column) - 3) * 0.5, data.cpu_data()[i * data.count(1) + j]);
      }
    }
  }
}

TYPED_TEST(CropDataLayerTest, SeekGoesToAnyBatchAtAnyTime) {
  caffe::Caffe::set_mode(reference::mode);
  const MadeLmdb lmdb;
  auto layer = caffe::LayerRegistry<TypeParam>::CreateLayer(Param(lmdb.path()));
  caffe::Blob<TypeParam> data;
  const std::vector<caffe::Blob<TypeParam>*> none, tops = {&data};
  layer->SetUp(none, tops);
  std::vector<std::vector<TypeParam>> batches;
  for (int iteration = 0; iteration < 6; ++iteration) {
    layer->Forward(none, tops);
    batches.emplace_back(data.cpu_data(), data.cpu_data() + data.count());
  }
  for (const int iteration : {5, 0, 3}) {
    static_cast<caffe::CropDataLayer<TypeParam>*>(layer.get())->Seek(iteration);
    for (int i = iteration; i < std::min(6, iteration + 2); ++i) {
      layer->Forward(none, tops);
      EXPECT_EQ(batches[i], std::vector<TypeParam>(data.cpu_data(), data.cpu_data() + data.count()));
    }
  }
}

}  // namespace
