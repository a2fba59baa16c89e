// The constants of the C interface that Caffe uses are in highgui.hpp.
#include "highgui.hpp"
