#ifdef USE_CUDNN

#include "caffe/util/cudnn.hpp"

namespace caffe {
namespace cudnn {

std::string Problem(cudnnStatus_t status, const std::string& call) {
  std::string text = "cuDNN's " + call.substr(0, call.find('(')) + ": " + cudnnGetErrorString(status);
#if CUDNN_VERSION >= 90000
  char why[1024] = "";
  cudnnGetLastErrorString(why, sizeof(why));
  const std::string words(why);
  if (!words.empty()) text += " (" + words.substr(0, words.find('\n')) + ")";
#endif
  return text;
}

}  // namespace cudnn
}  // namespace caffe

#endif  // USE_CUDNN
