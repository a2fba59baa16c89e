# Checks for values with which upstream accesses invalid memory, divides by zero or never ends: each raises caffe::Error.
# tests/fuzz.py found most of them, and tests/test_fuzz.py tests most.

# --- Nets and solvers ------------------------------------------------------------------------------------------------
# Numbers and text that no layer supports; errors that name the layer; the shapes of blobs given in a prototxt, which
# most layers do not check.
caffe_edit(
  src/caffe/net.cpp
  "#include \"caffe/net.hpp\"" "#include \"caffe/net.hpp\"\n#include \"check_parameters.hpp\"\n#include \"guarded_layer.hpp\""
  "  FilterNet(in_param, &filtered_param);" "  FilterNet(in_param, &filtered_param);\n  CheckParameters(filtered_param);"
  "    const LayerParameter& layer_param = param.layer(layer_id);\n    if (layer_param.propagate_down_size() > 0) {"
  "    const LayerParameter& layer_param = param.layer(layer_id);
    const AtLayer at_layer(layer_param.name());
    if (layer_param.propagate_down_size() > 0) {"
  "layers_.push_back(LayerRegistry<Dtype>::CreateLayer(layer_param));"
  "layers_.push_back(OfLayer(layer_param, [&] {
      return LayerRegistry<Dtype>::CreateLayer(WithoutBlobs(layer_param));
    }));"
  "    layers_[layer_id]->SetUp(bottom_vecs_[layer_id], top_vecs_[layer_id]);"
  "    ShapeLayer(layer_param, bottom_vecs_[layer_id], top_vecs_[layer_id], [&] {
      layers_[layer_id]->SetUp(bottom_vecs_[layer_id], top_vecs_[layer_id]);
    });
    TakeBlobs(layer_param, layers_[layer_id]->blobs());
    parameter_shapes_.push_back(LayerShapes(layers_[layer_id]->blobs()));"
  "    layers_[i]->Reshape(bottom_vecs_[i], top_vecs_[i]);"
  "    ShapeLayer(layers_[i]->layer_param(), bottom_vecs_[i], top_vecs_[i], [&] {
      layers_[i]->Reshape(bottom_vecs_[i], top_vecs_[i]);
    });"
  "Dtype layer_loss = layers_[i]->Forward(bottom_vecs_[i], top_vecs_[i]);"
  "Dtype layer_loss = ForwardLayer(layers_[i].get(), bottom_vecs_[i], top_vecs_[i], shapes_[i],
                                     parameter_shapes_[i]);"
  "      layers_[i]->Backward(\n          top_vecs_[i], bottom_need_backward_[i], bottom_vecs_[i]);"
  "      OfLayer(layers_[i]->layer_param(), [&] {
        CheckParameterShapes(layers_[i].get(), parameter_shapes_[i]);
        layers_[i]->Backward(top_vecs_[i], bottom_need_backward_[i], bottom_vecs_[i]);
      });")
caffe_edit(
  src/caffe/util/insert_splits.cpp
  "    layer_idx_to_layer_name[i] = layer_param.name();"
  "    const AtLayer at_layer(layer_param.name());\n    layer_idx_to_layer_name[i] = layer_param.name();")
# Shapes are compared before the first weights are shared.
caffe_edit(
  src/caffe/net.cpp
  "  int num_source_layers = other->layers().size();
  for (int i = 0; i < num_source_layers; ++i) {
    Layer<Dtype>* source_layer"
  "  int num_source_layers = other->layers().size();
  for (int n = 0; n < 2 * num_source_layers; ++n) {
    const int i = n % num_source_layers;
    const bool check = n < num_source_layers;
    Layer<Dtype>* source_layer"
  "      target_blobs[j]->ShareData(*source_blob);" "      if (!check) target_blobs[j]->ShareData(*source_blob);")
# An update reads a parameter and its history together.
caffe_edit(
  src/caffe/solvers/sgd_solver.cpp
  "  Dtype rate = GetLearningRate();\n  if"
  "  for (int i = 0; i < this->net_->learnable_params().size(); ++i) {
    LOG_IF(FATAL, this->net_->learnable_params()[i]->count() != history_[i]->count())
        << \"learnable parameter \" << i << \" has been reshaped since the solver was built: build a new solver\";
  }
  CHECK_LT(this->iter_, INT_MAX) << \"iteration\";
  Dtype rate = GetLearningRate();\n  if")
caffe_edit(
  src/caffe/solver.cpp
  "#include \"caffe/solver.hpp\"" "#include \"caffe/solver.hpp\"\n#include \"check_parameters.hpp\""
  "  param_ = param;\n" "  CheckParameters(param);\n  param_ = param;\n"
  # Test nets whose outputs grow between two batches.
  "        for (int k = 0; k < result[j]->count(); ++k) {\n          test_score[idx++] += result_vec[k];"
  "        for (int k = 0; k < result[j]->count(); ++k) {
          CHECK_LT(idx, test_score.size()) << \"the outputs of the test net have grown since the first batch\";
          test_score[idx++] += result_vec[k];")

# --- Blobs -----------------------------------------------------------------------------------------------------------
caffe_edit(
  src/caffe/blob.cpp
  "#include \"caffe/blob.hpp\"" "#include \"caffe/blob.hpp\"\n#include \"check_values.hpp\""
  # All sizes are checked before a change, also those next to a 0, because layers multiply them.
  "  count_ = 1;\n  shape_.resize(shape.size());"
  "  int product = 1;
  for (int i = 0; i < shape.size(); ++i) {
    CHECK_GE(shape[i], 0) << \"size of axis \" << i;
    CHECK_LE(shape[i], INT_MAX / product) << \"blob size exceeds INT_MAX\";
    if (shape[i] > 0) product *= shape[i];
  }
  count_ = 1;\n  shape_.resize(shape.size());"
  # truncated to int, 2^32 + 4 was 4
  "shape_vec[i] = shape.dim(i);"
  "shape_vec[i] = shape.dim(i);\n    CHECK_EQ(shape_vec[i], shape.dim(i)) << \"size of axis \" << i << \" is too large\";"
  # memory is allocated only if there are values
  "  // copy data\n  Dtype* data_vec = mutable_cpu_data();"
  "  CheckValues(proto, count_);
  // copy data\n  Dtype* data_vec = mutable_cpu_data();")
# Shared memory may be smaller than the blob's former memory; an empty blob had none.
caffe_edit(
  src/caffe/blob.cpp
  "if (count_ > capacity_) {"
  "const size_t needed = count_ * sizeof(Dtype);
  if (count_ > capacity_ || !data_ || data_->size() < needed || !diff_ || diff_->size() < needed) {")
caffe_edit(include/caffe/filler.hpp "DCHECK(blob->count());" "CHECK(blob->count());")

# --- Files -----------------------------------------------------------------------------------------------------------
# Files stayed open after a parse error or a failed allocation.
caffe_edit(
  src/caffe/util/io.cpp
  "#include <algorithm>" "#include <algorithm>\n#include <memory>"
  "  FileInputStream* input = new FileInputStream(fd);\n"
  "  std::unique_ptr<FileInputStream> owner(new FileInputStream(fd));\n  FileInputStream* input = owner.get();
  input->SetCloseOnDelete(true);\n"
  "  delete input;\n  close(fd);\n" ""
  "  ZeroCopyInputStream* raw_input = new FileInputStream(fd);\n  CodedInputStream* coded_input = new CodedInputStream(raw_input);"
  "  FileInputStream raw_input(fd);\n  raw_input.SetCloseOnDelete(true);
  CodedInputStream limited(&raw_input);\n  CodedInputStream* coded_input = &limited;"
  "  delete coded_input;\n  delete raw_input;\n  close(fd);\n" "")
# Input sizes are missing.
caffe_edit(
  src/caffe/util/upgrade_proto.cpp
  "  if (has_shape || has_dim) {\n    LayerParameter* layer_param = net_param->add_layer();"
  "  if (has_shape || has_dim) {
    if (has_shape) {
      CHECK_EQ(net_param->input_shape_size(), net_param->input_size()) << \"one input_shape per input is required\";
    } else {
      CHECK_EQ(net_param->input_dim_size(), 4 * net_param->input_size()) << \"4 values of input_dim per input are required\";
    }
    LayerParameter* layer_param = net_param->add_layer();")
caffe_edit(
  src/caffe/util/hdf5.cpp
  "#include \"caffe/util/hdf5.hpp\"" "#include \"caffe/util/hdf5.hpp\"\n#include \"hdf5_id.hpp\""
  "blob_dims[i] = dims[i];"
  "CHECK_LE(dims[i], INT_MAX) << \"size of axis \" << i << \" of dataset \" << dataset_name_;\n    blob_dims[i] = dims[i];"
  # a text without terminator, or several texts, caused accesses outside its memory
  "string hdf5_load_string(hid_t loc_id, const string& dataset_name) {"
  "string hdf5_load_string(hid_t loc_id, const string& dataset_name) {\n  return Hdf5Text(loc_id, dataset_name);"
  "  int val;\n" "  CheckOneValue(loc_id, dataset_name, H5T_INTEGER);\n  int val;\n"
  "  hsize_t *dims = new hsize_t[num_axes];" "  vector<hsize_t> dims(num_axes);"
  "num_axes, dims, data);" "num_axes, dims.data(), data);"
  "  delete[] dims;\n" "")
# HDF5 handles stayed open after errors, and a mismatch left a partly loaded net.
caffe_edit(
  src/caffe/net.cpp
  "#include \"check_parameters.hpp\"" "#include \"check_parameters.hpp\"\n#include \"check_values.hpp\"\n#include \"hdf5_id.hpp\""
  "hid_t file_hid = " "Hdf5Id file_hid = "
  "hid_t data_hid = " "Hdf5Id data_hid = "
  "hid_t diff_hid = " "Hdf5Id diff_hid = "
  "hid_t layer_hid = " "Hdf5Id layer_hid = "
  "hid_t layer_data_hid = " "Hdf5Id layer_data_hid = "
  "hid_t layer_diff_hid = " "Hdf5Id layer_diff_hid = "
  "H5Gclose(layer_hid);" "layer_hid.Close();"
  "H5Gclose(layer_data_hid);" "layer_data_hid.Close();"
  "H5Gclose(layer_diff_hid);" "layer_diff_hid.Close();"
  "H5Gclose(data_hid);" "data_hid.Close();"
  "H5Gclose(diff_hid);" "diff_hid.Close();"
  "  H5Fclose(file_hid);\n// This code"
  "  CHECK_GE(file_hid.Close(), 0) << \"cannot write \" << filename;\n// This code"
  "H5Fclose(file_hid);" "file_hid.Close();"
  "  for (int i = 0; i < num_layers; ++i) {\n    string source_layer_name = hdf5_get_name_by_idx(data_hid, i);"
  "  for (int n = 0; n < 2 * num_layers; ++n) {
    const bool check = n < num_layers;
    string source_layer_name = hdf5_get_name_by_idx(data_hid, n % num_layers);"
  "      hdf5_load_nd_dataset(layer_hid, dataset_name.c_str(), 0, kMaxBlobAxes,\n          target_blobs[j].get());"
  "      Blob<Dtype> checked;
      if (check) checked.ReshapeLike(*target_blobs[j]);
      hdf5_load_nd_dataset(layer_hid, dataset_name.c_str(), 0, kMaxBlobAxes,
          check ? &checked : target_blobs[j].get());")
# A state of another net was detected after a partial restore, or by the next update.
caffe_edit(
  src/caffe/solvers/sgd_solver.cpp
  "#include \"caffe/sgd_solvers.hpp\"" "#include \"caffe/sgd_solvers.hpp\"\n#include \"check_values.hpp\"\n#include \"hdf5_id.hpp\""
  "  ReadProtoFromBinaryFile(state_file, &state);\n  this->iter_ = state.iter();\n"
  "  CHECK(ReadProtoFromBinaryFile(state_file, &state)) << \"Failed to parse solver state file: \" << state_file;
  CHECK_GE(state.iter(), 0) << \"iteration of the solver state\";
  CHECK_GE(state.current_step(), 0) << \"step of the solver state\";
  CHECK_EQ(state.history_size(), history_.size()) << \"Incorrect length of history blobs.\";
  for (int i = 0; i < history_.size(); ++i) {
    const BlobProto& blob = state.history(i);
    CHECK(history_[i]->ShapeEquals(blob)) << \"history blob \" << i << \" of the state must have the shape \"
        << history_[i]->shape_string();
    CheckValues(blob, history_[i]->count());
  }\n"
  "  this->current_step_ = state.current_step();\n"
  "  this->iter_ = state.iter();\n  this->current_step_ = state.current_step();\n"
  "history_[i]->FromProto(state.history(i));" "history_[i]->FromProto(state.history(i), false);"
  "hid_t file_hid = " "Hdf5Id file_hid = "
  "hid_t history_hid = " "Hdf5Id history_hid = "
  "  H5Gclose(history_hid);\n" "  history_hid.Close();\n"
  "  H5Fclose(file_hid);\n// This code"
  "  CHECK_GE(file_hid.Close(), 0) << \"cannot write \" << snapshot_filename;\n// This code"
  "  H5Fclose(file_hid);\n" ""
  "  this->iter_ = hdf5_load_int(file_hid, \"iter\");\n"
  "  const int iteration = hdf5_load_int(file_hid, \"iter\");
  const int step = hdf5_load_int(file_hid, \"current_step\");
  CHECK_GE(iteration, 0) << \"iteration of the solver state\";
  CHECK_GE(step, 0) << \"step of the solver state\";
  {
    Hdf5Id histories = H5Gopen2(file_hid, \"history\", H5P_DEFAULT);
    CHECK_GE(histories, 0) << \"Error reading history from \" << state_file;
    CHECK_EQ(hdf5_get_num_links(histories), history_.size()) << \"Incorrect length of history blobs.\";
    for (int i = 0; i < history_.size(); ++i) {
      Blob<Dtype> checked(history_[i]->shape());
      hdf5_load_nd_dataset<Dtype>(histories, std::to_string(i).c_str(), 0, kMaxBlobAxes, &checked);
    }
  }\n"
  "  this->current_step_ = hdf5_load_int(file_hid, \"current_step\");\n"
  "  this->iter_ = iteration;\n  this->current_step_ = step;\n")
caffe_edit(
  src/caffe/layers/hdf5_data_layer.cpp
  "#include \"caffe/util/hdf5.hpp\"" "#include \"caffe/util/hdf5.hpp\"\n#include \"hdf5_id.hpp\""
  "hid_t file_id = " "Hdf5Id file_id = "
  "H5Fclose(file_id);" "file_id.Close();"
  "  hdf_filenames_.clear();" "  hdf_filenames_.clear();\n  row_counts_.clear();"
  # no rows, or rows of another length than those of the first file
  "  // Default to identity permutation.\n  data_permutation_.clear();"
  "  CHECK_GT(num, 0) << \"number of rows in the HDF5 file \" << filename;
  for (int i = 0; i < row_counts_.size(); ++i) {
    CHECK_EQ(hdf_blobs_[i]->count(1), row_counts_[i]) << \"number of values per row of \" << this->layer_param_.top(i) << \" in \" << filename;
  }
  // Default to identity permutation.\n  data_permutation_.clear();"
  "    top[i]->Reshape(top_shape);" "    top[i]->Reshape(top_shape);\n    row_counts_.push_back(hdf_blobs_[i]->count(1));")
caffe_edit(include/caffe/layers/hdf5_data_layer.hpp
           "  std::vector<shared_ptr<Blob<Dtype> > > hdf_blobs_;"
           "  std::vector<shared_ptr<Blob<Dtype> > > hdf_blobs_;\n  std::vector<int> row_counts_;")
# Destructors must not throw.
caffe_edit(src/caffe/layers/hdf5_output_layer.cpp "CHECK_GE(status, 0) << \"Failed to close"
           "LOG_IF(ERROR, status < 0) << \"Failed to close")
# Empty databases.
caffe_edit(src/caffe/layers/data_layer.cpp "  // Read a data point, and use it to initialize the top blob."
           "  CHECK(cursor_->valid()) << \"the database \" << this->layer_param_.data_param().source() << \" is empty\";")

# --- Layers ----------------------------------------------------------------------------------------------------------
# Kernels and strides.
foreach(file base_conv_layer im2col_layer)
  caffe_edit(src/caffe/layers/${file}.cpp
             "    stride_data[1] = conv_param.stride_w();\n"
             "    stride_data[1] = conv_param.stride_w();
    CHECK(stride_data[0] > 0 && stride_data[1] > 0) << \"stride_h and stride_w must both be set\";\n")
endforeach()
caffe_edit(src/caffe/layers/deconv_layer.cpp
           "    const int output_dim = stride_data[i] * (input_dim - 1)\n        + kernel_extent - 2 * pad_data[i];"
           "    const int64_t output_dim = int64_t(stride_data[i]) * (input_dim - 1) + kernel_extent - 2 * pad_data[i];
    CHECK(output_dim > 0 && output_dim <= INT_MAX) << \"its output would have size \" << output_dim;")
caffe_edit(
  src/caffe/layers/im2col_layer.cpp
  "  vector<int> top_shape = bottom[0]->shape();"
  "  CHECK_EQ(bottom[0]->num_axes(), channel_axis_ + 1 + num_spatial_axes_) << \"number of axes of its bottom\";
  vector<int> top_shape = bottom[0]->shape();"
  "    top_shape[channel_axis_] *= kernel_shape_data[i];"
  "    CHECK_LE(kernel_shape_data[i], INT_MAX / std::max(1, top_shape[channel_axis_])) << \"kernel size\";
    top_shape[channel_axis_] *= kernel_shape_data[i];"
  "    top_shape[channel_axis_ + i + 1] = output_dim;"
  "    LOG_IF(FATAL, output_dim <= 0) << \"its kernel of size \" << kernel_extent << \" is larger than its input of size \"
        << input_dim + 2 * pad_data[i];
    top_shape[channel_axis_ + i + 1] = output_dim;")
caffe_edit(
  src/caffe/layers/pooling_layer.cpp
  "  CHECK_GT(kernel_w_, 0) << \"Filter dimensions cannot be zero.\";"
  "  CHECK_GT(kernel_w_, 0) << \"Filter dimensions cannot be zero.\";
  CHECK_LE(kernel_h_, INT_MAX / kernel_w_) << \"kernel size\";"
  # other layers may write to the second top
  "if (bottom_index >= 0) bottom_diff" "if (bottom_index >= 0 && bottom_index < height_ * width_) bottom_diff")
# Products that exceed int, and division by zero.
caffe_edit(
  src/caffe/layers/reshape_layer.cpp
  "      constant_count_ *= top_dim;"
  "      CHECK_GT(top_dim, 0) << \"size of axis \" << i << \" in shape: it must be -1, 0 or more\";
      CHECK_LE(top_dim, INT_MAX / constant_count_) << \"product of the sizes in shape\";
      constant_count_ *= top_dim;"
  "    int explicit_count = constant_count_;"
  "    int64_t explicit_count = constant_count_;"
  "    CHECK_EQ(0, bottom[0]->count() % explicit_count)"
  "    CHECK_GT(explicit_count, 0) << \"-1 cannot be inferred if another axis has size 0\";
    CHECK_EQ(0, bottom[0]->count() % explicit_count)")
caffe_edit(src/caffe/layers/tile_layer.cpp "  vector<int> top_shape = bottom[0]->shape();"
           "  vector<int> top_shape = bottom[0]->shape();
  CHECK_LE(tiles_, INT_MAX / std::max(1, bottom[0]->shape(axis_))) << \"tiles\";")
caffe_edit(
  src/caffe/layers/memory_data_layer.cpp
  "  size_ = channels_ * height_ * width_;" "  top[0]->Reshape(batch_size_, channels_, height_, width_);\n  size_ = channels_ * height_ * width_;")
# The bottom may have shrunk.
caffe_edit(src/caffe/layers/argmax_layer.cpp "  int num_top_axes = bottom[0]->num_axes();"
           "  CHECK_LE(top_k_, has_axis_ ? bottom[0]->shape(axis_) : bottom[0]->count(1)) << \"top_k is larger than the number of values\";
  int num_top_axes = bottom[0]->num_axes();")

# Labels and indices out of range.
foreach(file hinge_loss_layer multinomial_logistic_loss_layer)
  caffe_edit(src/caffe/layers/${file}.cpp "#include \"caffe/util/math_functions.hpp\""
             "#include \"caffe/util/math_functions.hpp\"\n#include \"check_label.hpp\"")
endforeach()
caffe_edit(src/caffe/layers/hinge_loss_layer.cpp "static_cast<int>(label[i])" "CheckLabel(label[i], dim)")
caffe_edit(src/caffe/layers/multinomial_logistic_loss_layer.cpp "static_cast<int>(bottom_label[i])"
           "CheckLabel(bottom_label[i], dim)")
caffe_edit(src/caffe/layers/softmax_loss_layer.cpp
           "          bottom_diff[i * dim + label_value * inner_num_ + j] -= 1;"
           "          CHECK_GE(label_value, 0) << \"label out of range\";
          CHECK_LT(label_value, prob_.shape(softmax_axis_)) << \"label out of range\";
          bottom_diff[i * dim + label_value * inner_num_ + j] -= 1;")
caffe_edit(
  src/caffe/layers/infogain_loss_layer.cpp
  "    ReadProtoFromBinaryFile(\n" "    ReadProtoFromBinaryFileOrDie(\n"
  # the backward pass also checked ignored labels, and only in debug builds
  "        DCHECK_GE(label_value, 0);\n        DCHECK_LT(label_value, num_labels_);\n        if (has_ignore_label_"
  "        if (has_ignore_label_"
  "      DCHECK_GE(label_value, 0);\n      DCHECK_LT(label_value, num_labels_);"
  "      CHECK_GE(label_value, 0) << \"label out of range\";
      CHECK_LT(label_value, num_labels_) << \"label out of range\";"
  "        } else {\n          for (int l = 0; l < num_labels_; ++l) {"
  "        } else {
          CHECK_GE(label_value, 0) << \"label out of range\";
          CHECK_LT(label_value, num_labels_) << \"label out of range\";
          for (int l = 0; l < num_labels_; ++l) {")
caffe_edit(src/caffe/layers/embed_layer.cpp "    DCHECK_GE(index, 0);" "    CHECK_GE(index, 0) << \"index out of range\";"
           "    DCHECK_LT(index, K_);" "    CHECK_LT(index, K_) << \"index out of range (input_dim)\";")
caffe_edit(
  src/caffe/layers/batch_reindex_layer.cpp
  "int inner_dim = bottom[0]->count() / bottom[0]->shape(0);" "int inner_dim = bottom[0]->count(1);"
  "  const Dtype* top_diff = top[0]->cpu_diff();\n"
  "  check_batch_reindex(bottom[0]->shape(0), bottom[1]->count(), permut);
  const Dtype* top_diff = top[0]->cpu_diff();\n")
caffe_edit(src/caffe/layers/filter_layer.cpp
           "int dim = bottom[t]->count() / bottom[t]->shape(0);" "int dim = bottom[t]->count(1);"
           "const int dim = top[i]->count() / top[i]->shape(0);" "const int dim = bottom[i]->count(1);")
# Its buffers kept the sizes of the first batch, and the size of the third bottom was not checked.
caffe_edit(include/caffe/layers/contrastive_loss_layer.hpp
           "  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,\n      const vector<Blob<Dtype>*>& top);\n"
           "  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,\n      const vector<Blob<Dtype>*>& top);\n")
caffe_edit(
  src/caffe/layers/contrastive_loss_layer.cpp
  "void ContrastiveLossLayer<Dtype>::LayerSetUp(" "void ContrastiveLossLayer<Dtype>::Reshape("
  "LossLayer<Dtype>::LayerSetUp(bottom, top);"
  "LossLayer<Dtype>::Reshape(bottom, top);\n  CHECK_EQ(bottom[0]->num(), bottom[2]->num());")

# Window files that are truncated, do not count from 0, or contain invalid numbers.
caffe_edit(
  src/caffe/layers/window_data_layer.cpp
  "    channels = image_size[0];" "    CHECK(infile) << \"the window file ends at image \" << image_index;
    channels = image_size[0];
    CHECK_EQ(channels, 3) << \"channels of image \" << image_index << \": images are decoded in colour\";"
  "        LOG(ERROR) << \"Could not open or find file \" << image_path;\n        return;"
  "        LOG(FATAL) << \"Could not open or find file \" << image_path;"
  "      infile >> label >> overlap >> x1 >> y1 >> x2 >> y2;"
  "      infile >> label >> overlap >> x1 >> y1 >> x2 >> y2;
      CHECK(infile) << \"the window file ends at window \" << i << \" of image \" << image_index;
      const int far = 1 << 20;  // pixels: the differences fit an int
      CHECK(-far <= x1 && x1 <= x2 && x2 <= far && -far <= y1 && y1 <= y2 && y2 <= far)
          << \"window \" << i << \" of image \" << image_index << \" is not x1 y1 x2 y2\";"
  "window[WindowDataLayer::IMAGE_INDEX] = image_index;" "window[WindowDataLayer::IMAGE_INDEX] = image_database_.size() - 1;"
  "<< image_index+1;" "<< image_database_.size();"
  "  CHECK_GT(crop_size, 0);"
  "  CHECK_GT(crop_size, 0) << \"crop_size\";
  CHECK_LT(this->layer_param_.window_data_param().context_pad(), (crop_size - 1) / 2 + 1)
      << \"context_pad must be at most half of crop_size\";"
  "    data_mean_.FromProto(blob_proto);"
  "    data_mean_.FromProto(blob_proto);
    CHECK_EQ(data_mean_.channels(), channels) << \"channels of the mean image\";
    CHECK_GE(data_mean_.width(), crop_size) << \"width of the mean image is less than crop_size\";
    CHECK_GE(data_mean_.height(), (data_mean_.width() - crop_size) / 2 + crop_size) << \"height of the mean image is too small\";"
  "          LOG(ERROR) << \"Could not open or find file \" << image.first;\n          return;"
  "          LOG(FATAL) << \"Could not open or find file \" << image.first;"
  "      const int channels = cv_img.channels();"
  "      CHECK(cv_img.data) << \"could not decode \" << image.first;
      const int channels = cv_img.channels();")
# It never deleted its internal blobs.
caffe_edit(include/caffe/layers/spp_layer.hpp
           "  explicit SPPLayer(const LayerParameter& param)\n      : Layer<Dtype>(param) {}"
           "  explicit SPPLayer(const LayerParameter& param)\n      : Layer<Dtype>(param) {}
  virtual ~SPPLayer() {
    for (Blob<Dtype>* blob : split_top_vec_) delete blob;
    for (vector<Blob<Dtype>*>* blobs : pooling_bottom_vecs_) delete blobs;
    for (Blob<Dtype>* blob : pooling_outputs_) delete blob;
    for (vector<Blob<Dtype>*>* blobs : pooling_top_vecs_) delete blobs;
    for (Blob<Dtype>* blob : flatten_outputs_) delete blob;
    for (vector<Blob<Dtype>*>* blobs : flatten_top_vecs_) delete blobs;
    for (FlattenLayer<Dtype>* layer : flatten_layers_) delete layer;
  }"
           "#include \"caffe/proto/caffe.pb.h\"" "#include \"caffe/layers/flatten_layer.hpp\"\n#include \"caffe/proto/caffe.pb.h\"")
# A forked process has no prefetch threads and waited for them forever.
caffe_edit(
  src/caffe/layers/base_data_layer.cpp
  "  prefetch_current_ = prefetch_full_.pop(\"Waiting for data\");"
  "  CheckProcess(process_);\n  prefetch_current_ = prefetch_full_.pop(\"Waiting for data\");")
caffe_edit(
  include/caffe/layers/base_data_layer.hpp
  "#include \"caffe/layer.hpp\"" "#include \"caffe/layer.hpp\"\n#include \"check_process.hpp\""
  "  Batch<Dtype>* prefetch_current_;" "  Batch<Dtype>* prefetch_current_;\n  const pid_t process_ = getpid();")
