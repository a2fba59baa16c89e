#include "no_fill.hpp"

namespace caffe {

namespace {
thread_local int living = 0;
}

NoFill::NoFill() { ++living; }
NoFill::~NoFill() { --living; }
bool NoFill::Active() { return living > 0; }

}  // namespace caffe
