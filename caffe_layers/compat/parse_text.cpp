#include "parse_text.hpp"

#include <glog/logging.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include "error.hpp"

namespace caffe {
namespace {

/// Keeps the first error, which often causes the later ones, and logs warnings.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  explicit FirstError(const std::string& filename) : filename_(filename) {}

  void AddError(int line, int column, const std::string& message) override {
    if (!text_.empty()) return;
    text_ = Place(line, column) + message;
    place_ = {filename_, line + 1, column + 1};
  }
  void AddWarning(int line, int column, const std::string& message) override {
    LOG(WARNING) << Place(line, column) << message;
  }
  [[noreturn]] void Throw() const { throw Error(text_, __FILE__, __LINE__, place_); }

 private:
  std::string Place(int line, int column) const {  // protobuf counts from 0, editors from 1
    return filename_ + ":" + std::to_string(line + 1) + ":" + std::to_string(column + 1) + ": ";
  }

  const std::string filename_;
  std::string text_;
  TextPlace place_;
};

}  // namespace

bool ParseText(google::protobuf::io::ZeroCopyInputStream* input, const std::string& filename,
               google::protobuf::Message* message) {
  FirstError errors(filename);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  if (!parser.Parse(input, message)) errors.Throw();
  return true;
}

}  // namespace caffe
