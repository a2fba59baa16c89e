// The barrier of threads that train together.

#ifndef CAFFE_LAYERS_COMPAT_TEAM_BARRIER_HPP_
#define CAFFE_LAYERS_COMPAT_TEAM_BARRIER_HPP_

#include <boost/thread/condition_variable.hpp>
#include <boost/thread/mutex.hpp>
#include <string>

namespace caffe {

/// Replaces the boost::barrier of upstream's parallel.hpp, where the other threads wait forever for a thread that
/// failed.
class TeamBarrier {
 public:
  /// @param count number of threads, 1 or more
  explicit TeamBarrier(int count);
  TeamBarrier(const TeamBarrier&) = delete;
  TeamBarrier& operator=(const TeamBarrier&) = delete;

  /// Return when `count` threads have called it. Throws caffe::Error with Fail's message after a call of Fail, and
  /// boost::thread_interrupted in a thread that is interrupted.
  void wait();

  /// Wake all waiting threads with an error with this message, and let later ones fail. Only the first call counts.
  void Fail(const std::string& message);

 private:
  const int count_;
  int waiting_ = 0;
  unsigned round_ = 0;
  bool failed_ = false;
  std::string message_;
  boost::mutex mutex_;
  boost::condition_variable changed_;
};

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_TEAM_BARRIER_HPP_
