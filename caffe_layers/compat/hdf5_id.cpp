#include "hdf5_id.hpp"

#include <glog/logging.h>

namespace caffe {

void CheckOneValue(hid_t location, const std::string& name, H5T_class_t type) {
  LOG_IF(FATAL, H5Lexists(location, name.c_str(), H5P_DEFAULT) <= 0) << "the HDF5 file has no dataset " << name;
  const Hdf5Id dataset = H5Dopen2(location, name.c_str(), H5P_DEFAULT);
  LOG_IF(FATAL, dataset < 0) << name << " in the HDF5 file is not a dataset";
  const Hdf5Id kind = H5Dget_type(dataset), space = H5Dget_space(dataset);
  LOG_IF(FATAL, H5Tget_class(kind) != type || H5Sget_simple_extent_npoints(space) != 1)
      << "dataset " << name << " of the HDF5 file must be a single " << (type == H5T_STRING ? "text" : "integer");
  LOG_IF(FATAL, type == H5T_STRING && H5Tis_variable_str(kind) != 0)
      << "dataset " << name << " of the HDF5 file must be a text of fixed length";
}

std::string Hdf5Text(hid_t location, const std::string& name) {
  CheckOneValue(location, name, H5T_STRING);
  size_t size = 0;
  H5T_class_t type;
  LOG_IF(FATAL, H5LTget_dataset_info(location, name.c_str(), nullptr, &type, &size) < 0) << "cannot read " << name;
  std::string text(size + 1, '\0');
  LOG_IF(FATAL, H5LTread_dataset_string(location, name.c_str(), &text[0]) < 0) << "cannot read " << name;
  return text.c_str();  // up to its terminator, which may be missing
}

}  // namespace caffe
