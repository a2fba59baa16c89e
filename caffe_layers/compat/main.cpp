// The entry point of the caffe program: upstream's main (compiled as caffe_main), with one-line errors and status 1.

#include <hdf5.h>

#include <exception>
#include <iostream>

int caffe_main(int argc, char** argv);

int main(int argc, char** argv) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // HDF5 prints a page per error; Caffe's checks report what matters
  try {
    return caffe_main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "caffe: error: " << error.what() << std::endl;
    return 1;
  }
}
