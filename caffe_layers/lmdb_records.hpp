#ifndef CAFFE_LMDB_RECORDS_HPP_
#define CAFFE_LMDB_RECORDS_HPP_

#include <lmdb.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace caffe {

/// All records of an LMDB by their place in the order of the keys, for reading from any number of threads.
///
/// The database is opened without a lock, so that it may lie on a read-only disk: nobody may write to it meanwhile
/// (tools/convert.py writes under another name and renames).
class LmdbRecords {
 public:
  /// Opens the database and notes where its records lie (24 bytes each; the values themselves are not read).
  /// @param path a folder with data.mdb, or a file written with MDB_NOSUBDIR
  /// Throws caffe::Error where it cannot be opened, is cut short, or has no records.
  explicit LmdbRecords(const std::string& path);
  ~LmdbRecords();
  LmdbRecords(const LmdbRecords&) = delete;
  LmdbRecords& operator=(const LmdbRecords&) = delete;

  uint32_t size() const { return static_cast<uint32_t>(records_.size()); }
  const std::string& path() const { return path_; }
  std::string key(uint32_t record) const;
  /// The value's bytes, in the file's own memory.
  std::pair<const void*, size_t> value(uint32_t record) const;
  /// Asks the processor to have the value at hand soon.
  void Prefetch(uint32_t record) const;

  /// Throws caffe::Error where the file has become shorter than its records need: to read them then ends the process.
  void CheckWhole() const;

 private:
  void Walk();

  struct Record {
    const char* key;
    const void* value;
    uint32_t key_size, value_size;
  };

  std::string path_;
  MDB_env* env_;
  MDB_txn* txn_;
  uint64_t needed_;  // bytes of the file
  std::vector<Record> records_;
};

}  // namespace caffe

#endif  // CAFFE_LMDB_RECORDS_HPP_
