// Where the threads that train together wait for each other.

#ifndef CAFFE_LAYERS_COMPAT_TEAM_BARRIER_HPP_
#define CAFFE_LAYERS_COMPAT_TEAM_BARRIER_HPP_

#include <boost/thread/condition_variable.hpp>
#include <boost/thread/mutex.hpp>
#include <string>

namespace caffe {

/// In place of the boost::barrier of upstream's parallel.hpp, at which the others wait for ever for a thread that has
/// ended with an error.
class TeamBarrier {
 public:
  /// @param count how many threads meet here, 1 or more
  explicit TeamBarrier(int count);
  TeamBarrier(const TeamBarrier&) = delete;
  TeamBarrier& operator=(const TeamBarrier&) = delete;

  /// Returns when all `count` threads have called it. Throws caffe::Error with Fail's message once that was called; a
  /// boost::thread that is interrupted leaves with boost::thread_interrupted.
  void wait();

  /// No thread waits here any more: all that do, and all that come, get an error with this message. Of several calls
  /// the first counts.
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
