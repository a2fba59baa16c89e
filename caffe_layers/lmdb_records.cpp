#include "lmdb_records.hpp"

#include <glog/logging.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace caffe {

LmdbRecords::LmdbRecords(const std::string& path) : path_(path), env_(nullptr), txn_(nullptr), needed_(0) {
  try {
    LOG_IF(FATAL, path.empty()) << "crop_data_param has no source: name the LMDB";
    struct stat status;
    const bool there = stat(path.c_str(), &status) == 0;
    const bool is_file = there && S_ISREG(status.st_mode);
    const unsigned flags = MDB_RDONLY | MDB_NOTLS | MDB_NOLOCK | (is_file ? MDB_NOSUBDIR : 0);
    CHECK_EQ(mdb_env_create(&env_), MDB_SUCCESS);
    int result = mdb_env_open(env_, path.c_str(), flags, 0);
    LOG_IF(FATAL, result != MDB_SUCCESS)
        << "the LMDB " << path << " cannot be opened: " << mdb_strerror(result)
        << (result != ENOENT ? ""
            : there          ? ": the folder has no data.mdb; tools/convert.py writes one"
                             : ": paths are relative to the working folder; tools/convert.py writes LMDBs");
    MDB_envinfo info;
    MDB_stat stats;
    CHECK_EQ(mdb_env_info(env_, &info), MDB_SUCCESS);
    CHECK_EQ(mdb_env_stat(env_, &stats), MDB_SUCCESS);
    needed_ = (static_cast<uint64_t>(info.me_last_pgno) + 1) * stats.ms_psize;
    CheckWhole();
    Walk();
    LOG_IF(FATAL, records_.empty()) << "the LMDB " << path << " has no records: fill it with tools/convert.py";
  } catch (...) {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
    mdb_env_close(env_);
    throw;
  }
}

LmdbRecords::~LmdbRecords() {
  mdb_txn_abort(txn_);
  mdb_env_close(env_);
}

// One transaction stays open: keys and values stay valid for as long.
void LmdbRecords::Walk() {
  int result = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn_);
  LOG_IF(FATAL, result != MDB_SUCCESS) << "the LMDB " << path_ << " cannot be read: " << mdb_strerror(result);
  MDB_dbi dbi;
  result = mdb_dbi_open(txn_, nullptr, 0, &dbi);
  LOG_IF(FATAL, result != MDB_SUCCESS) << "the LMDB " << path_ << " cannot be read: " << mdb_strerror(result);
  MDB_stat stats;
  CHECK_EQ(mdb_stat(txn_, dbi, &stats), MDB_SUCCESS);
  LOG_IF(FATAL, stats.ms_entries > std::numeric_limits<int32_t>::max())
      << "the LMDB " << path_ << " has " << stats.ms_entries << " records, at most "
      << std::numeric_limits<int32_t>::max() << " can be read";
  records_.reserve(stats.ms_entries);
  MDB_cursor* cursor;
  CHECK_EQ(mdb_cursor_open(txn_, dbi, &cursor), MDB_SUCCESS);
  MDB_val key, value;
  while ((result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == MDB_SUCCESS) {
    records_.push_back({static_cast<const char*>(key.mv_data), value.mv_data, static_cast<uint32_t>(key.mv_size),
                        static_cast<uint32_t>(value.mv_size)});
  }
  mdb_cursor_close(cursor);
  LOG_IF(FATAL, result != MDB_NOTFOUND) << "the LMDB " << path_ << " is damaged after " << records_.size()
                                        << " records: " << mdb_strerror(result);
}

std::string LmdbRecords::key(uint32_t record) const {
  return std::string(records_[record].key, records_[record].key_size);
}

std::pair<const void*, size_t> LmdbRecords::value(uint32_t record) const {
  return {records_[record].value, records_[record].value_size};
}

void LmdbRecords::Prefetch(uint32_t record) const {
  const char* value = static_cast<const char*>(records_[record].value);
  const uint32_t size = std::min(records_[record].value_size, 16384u);  // more would evict the first lines
  for (uint32_t i = 0; i < size; i += 64) __builtin_prefetch(value + i);
}

void LmdbRecords::CheckWhole() const {
  mdb_filehandle_t file;
  struct stat status;
  CHECK_EQ(mdb_env_get_fd(env_, &file), MDB_SUCCESS);
  LOG_IF(FATAL, fstat(file, &status) != 0) << "cannot get the size of the LMDB " << path_;
  LOG_IF(FATAL, static_cast<uint64_t>(status.st_size) < needed_)
      << "the LMDB " << path_ << " is truncated: it has " << status.st_size << " of " << needed_
      << " bytes; copy or convert it again";
}

}  // namespace caffe
