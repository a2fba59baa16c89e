// The C interface's constants that Caffe uses are in the header beside this one.
#include "highgui.hpp"
