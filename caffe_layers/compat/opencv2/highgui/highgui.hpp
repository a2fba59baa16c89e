// Caffe reads and writes images but opens no windows, so OpenCV's imgcodecs replaces the highgui of 2018.

#ifndef CAFFE_LAYERS_COMPAT_OPENCV2_HIGHGUI_HPP_
#define CAFFE_LAYERS_COMPAT_OPENCV2_HIGHGUI_HPP_

#include <opencv2/imgcodecs.hpp>

#ifndef CV_LOAD_IMAGE_COLOR
#define CV_LOAD_IMAGE_COLOR cv::IMREAD_COLOR
#define CV_LOAD_IMAGE_GRAYSCALE cv::IMREAD_GRAYSCALE
#endif

#endif  // CAFFE_LAYERS_COMPAT_OPENCV2_HIGHGUI_HPP_
