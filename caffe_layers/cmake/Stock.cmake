# Upstream's programs without our layers and with only the changes needed to compile, for comparisons. They are built on
# request from one compilation of upstream's sources: cmake --build build --target caffe_stock
#   caffe_stock                                          for tools/benchmark.py
#   convert_imageset_stock, compute_image_mean_stock     for tests/test_convert_stock.py and tests/convert_speed.py

function(add_caffe_stock)
  set(EDITED ${CMAKE_CURRENT_BINARY_DIR}/stock/edited)
  file(GLOB UPSTREAM_SOURCES CONFIGURE_DEPENDS ${CAFFE_SOURCE}/src/caffe/*.cpp ${CAFFE_SOURCE}/src/caffe/layers/*.cpp
       ${CAFFE_SOURCE}/src/caffe/solvers/*.cpp ${CAFFE_SOURCE}/src/caffe/util/*.cpp)
  # protobuf 3.6 removed the second argument
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

  # Objects instead of a static library, which would drop unreferenced layers that register themselves.
  add_library(stock_objects OBJECT EXCLUDE_FROM_ALL ${UPSTREAM_SOURCES} ${messages}/caffe.pb.cc)
  set_target_properties(stock_objects PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  target_include_directories(stock_objects PUBLIC ${CMAKE_CURRENT_BINARY_DIR}/stock ${messages} ${CAFFE_SOURCE}/include)
  target_include_directories(stock_objects SYSTEM PUBLIC ${OPENBLAS_INCLUDE_DIR} ${HDF5_INCLUDE_DIRS}
                                                         ${OPENCV_INCLUDE_DIR})
  # Searched after the system headers: glog is the real one, compat only adds OpenCV's headers of 2018.
  target_compile_options(stock_objects PUBLIC -w "SHELL:-idirafter ${CMAKE_CURRENT_SOURCE_DIR}/caffe_layers/compat")
  target_compile_definitions(stock_objects
                             PUBLIC $<TARGET_PROPERTY:caffe_dependencies,INTERFACE_COMPILE_DEFINITIONS>)
  target_link_libraries(stock_objects PUBLIC $<TARGET_PROPERTY:caffe_dependencies,INTERFACE_LINK_LIBRARIES>)

  foreach(program caffe convert_imageset compute_image_mean)
    add_executable(${program}_stock EXCLUDE_FROM_ALL ${CAFFE_SOURCE}/tools/${program}.cpp)
    target_link_libraries(${program}_stock PRIVATE stock_objects)
  endforeach()
endfunction()

add_caffe_stock()
