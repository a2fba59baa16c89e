#ifndef CAFFE_LMDB_RECORDS_HPP_
#define CAFFE_LMDB_RECORDS_HPP_

#include <lmdb.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace caffe {

/// The records of an LMDB in the order of their keys, for reading from any number of threads.
///
/// The database is opened without a lock, so that it may be on a read-only disk. Nothing may write to it meanwhile
/// (tools/convert.py writes to a temporary name and renames).
class LmdbRecords {
 public:
  /// Open the database and store the addresses of its records (24 bytes each); values are not read.
  /// @param path a folder with data.mdb, or a file written with MDB_NOSUBDIR
  /// Throws caffe::Error if it cannot be opened, is truncated, or has no records.
  explicit LmdbRecords(const std::string& path);
  ~LmdbRecords();
  LmdbRecords(const LmdbRecords&) = delete;
  LmdbRecords& operator=(const LmdbRecords&) = delete;

  uint32_t size() const { return static_cast<uint32_t>(records_.size()); }
  const std::string& path() const { return path_; }
  std::string key(uint32_t record) const;
  /// The value's bytes, in the mapped file.
  std::pair<const void*, size_t> value(uint32_t record) const;
  /// Prefetch the value into the processor's cache.
  void Prefetch(uint32_t record) const;

  /// Throws caffe::Error if the file has been truncated; reading past its end would terminate the process.
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
  uint64_t needed_;  // size of the file in bytes
  std::vector<Record> records_;
};

}  // namespace caffe

#endif  // CAFFE_LMDB_RECORDS_HPP_
