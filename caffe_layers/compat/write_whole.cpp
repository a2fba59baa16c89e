#include "write_whole.hpp"

#include <fcntl.h>
#include <glog/logging.h>
#include <google/protobuf/io/zero_copy_stream_impl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace caffe {
namespace {

// The error number; 0 for success.
int Write(const google::protobuf::Message& message, const std::string& filename) {
  const int descriptor = open(filename.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor == -1) return errno;
  google::protobuf::io::FileOutputStream output(descriptor);
  const bool written = message.SerializeToZeroCopyStream(&output);
  const bool closed = output.Close();  // flushes the buffer
  if (output.GetErrno() != 0) return output.GetErrno();
  return written && closed ? 0 : EFBIG;
}

}  // namespace

void WriteWhole(const google::protobuf::Message& message, const std::string& filename) {
  namespace fs = std::filesystem;
  std::error_code failed;
  const fs::path target = fs::weakly_canonical(filename, failed);  // the target of a link, not the link
  const fs::file_status status = fs::status(target, failed);
  int error = 0;
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    error = Write(message, filename);
  } else {
    const std::string temporary = target.string() + ".new-" + std::to_string(getpid());
    error = Write(message, temporary);
    if (error == 0 && rename(temporary.c_str(), target.c_str()) != 0) error = errno;
    if (error != 0) unlink(temporary.c_str());
  }
  LOG_IF(FATAL, error != 0) << "cannot write " << filename << ": " << std::strerror(error);
}

}  // namespace caffe
