// HDF5 handles that are closed at the end of their scope; an open file can be neither replaced nor written.

#ifndef CAFFE_LAYERS_COMPAT_HDF5_ID_HPP_
#define CAFFE_LAYERS_COMPAT_HDF5_ID_HPP_

#include <hdf5.h>
#include <hdf5_hl.h>

#include <string>

namespace caffe {

/// Owns a file, a group or a dataset; negative values own nothing.
class Hdf5Id {
 public:
  Hdf5Id(hid_t id) : id_(id) {}  // NOLINT(runtime/explicit): replaces hid_t
  Hdf5Id(const Hdf5Id&) = delete;
  ~Hdf5Id() { Close(); }

  Hdf5Id& operator=(const Hdf5Id&) = delete;
  Hdf5Id& operator=(hid_t id) {
    Close();
    id_ = id;
    return *this;
  }
  operator hid_t() const { return id_; }  // NOLINT(runtime/explicit)

  /// Negative if writing to the disk failed.
  herr_t Close() {
    const herr_t status = id_ >= 0 ? H5Idec_ref(id_) : 0;
    id_ = -1;
    return status;
  }

 private:
  hid_t id_;
};

/// Throws caffe::Error unless the dataset is a single value of this class; HDF5 would write all values into the
/// reader's memory.
void CheckOneValue(hid_t location, const std::string& name, H5T_class_t type);

/// The text of a dataset. Throws caffe::Error if it is not a single text of fixed length.
std::string Hdf5Text(hid_t location, const std::string& name);

}  // namespace caffe

#endif  // CAFFE_LAYERS_COMPAT_HDF5_ID_HPP_
