// The caffe program's entry: upstream's main (compiled under the name caffe_main) with errors as one line and status 1.

#include <hdf5.h>

#include <exception>
#include <iostream>

int caffe_main(int argc, char** argv);

int main(int argc, char** argv) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);  // HDF5 prints a page for each error; Caffe's checks say what matters
  try {
    return caffe_main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "caffe: error: " << error.what() << std::endl;
    return 1;
  }
}
