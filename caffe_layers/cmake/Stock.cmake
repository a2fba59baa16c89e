# caffe_stock: upstream's caffe program with no layer and no edit of ours beyond what it takes to compile, for
# tools/benchmark.py to compare with. Made on request alone: cmake --build build --target caffe_stock

function(add_caffe_stock)
  set(EDITED ${CMAKE_CURRENT_BINARY_DIR}/stock/edited)
  file(GLOB UPSTREAM_SOURCES CONFIGURE_DEPENDS ${CAFFE_SOURCE}/src/caffe/*.cpp ${CAFFE_SOURCE}/src/caffe/layers/*.cpp
       ${CAFFE_SOURCE}/src/caffe/solvers/*.cpp ${CAFFE_SOURCE}/src/caffe/util/*.cpp)
  # protobuf 3.6 dropped the second argument
  caffe_edit(src/caffe/util/io.cpp "SetTotalBytesLimit(kProtoReadBytesLimit, 536870912)"
             "SetTotalBytesLimit(kProtoReadBytesLimit)")

  set(messages ${CMAKE_CURRENT_BINARY_DIR}/stock/caffe/proto)
  file(MAKE_DIRECTORY ${messages})
  add_custom_command(
    OUTPUT ${messages}/caffe.pb.cc ${messages}/caffe.pb.h
    COMMAND protobuf::protoc --proto_path=${CAFFE_SOURCE}/src/caffe/proto --cpp_out=${messages}
            ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto
    DEPENDS ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto
    VERBATIM)

  add_executable(caffe_stock EXCLUDE_FROM_ALL ${UPSTREAM_SOURCES} ${messages}/caffe.pb.cc ${CAFFE_SOURCE}/tools/caffe.cpp)
  set_target_properties(caffe_stock PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  set_source_files_properties(${CAFFE_SOURCE}/tools/caffe.cpp PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  target_include_directories(caffe_stock PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/stock ${messages} ${CAFFE_SOURCE}/include)
  target_include_directories(caffe_stock SYSTEM PRIVATE ${OPENBLAS_INCLUDE_DIR} ${HDF5_INCLUDE_DIRS} ${OPENCV_INCLUDE_DIR})
  # After the system's own, so that its glog is taken and compat only fills in OpenCV's headers of 2018.
  target_compile_options(caffe_stock PRIVATE -w "SHELL:-idirafter ${CMAKE_CURRENT_SOURCE_DIR}/caffe_layers/compat")
  target_compile_definitions(caffe_stock PRIVATE $<TARGET_PROPERTY:caffe_dependencies,INTERFACE_COMPILE_DEFINITIONS>)
  target_link_libraries(caffe_stock PRIVATE $<TARGET_PROPERTY:caffe_dependencies,INTERFACE_LINK_LIBRARIES>)
endfunction()

add_caffe_stock()
