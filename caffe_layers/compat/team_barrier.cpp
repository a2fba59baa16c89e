#include "team_barrier.hpp"

#include <glog/logging.h>

namespace caffe {

TeamBarrier::TeamBarrier(int count) : count_(count) { CHECK_GE(count, 1) << "number of threads"; }

void TeamBarrier::wait() {
  boost::unique_lock<boost::mutex> lock(mutex_);
  if (!failed_ && ++waiting_ == count_) {
    waiting_ = 0;
    ++round_;
    changed_.notify_all();
    return;
  }
  const unsigned round = round_;
  while (!failed_ && round_ == round) changed_.wait(lock);
  LOG_IF(FATAL, round_ == round) << message_;  // threads of a completed round continue
}

void TeamBarrier::Fail(const std::string& message) {
  boost::lock_guard<boost::mutex> lock(mutex_);
  if (failed_) return;
  failed_ = true;
  message_ = message;
  changed_.notify_all();
}

}  // namespace caffe
