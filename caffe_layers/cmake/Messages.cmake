# caffe.proto with the messages of caffe_layers/layers.proto, compiled by protoc into build/generated/caffe/proto.
# GENERATED: the folder of all generated files. CAFFE_PB2: the messages in Python, with stubs if protoc writes them.

set(GENERATED ${CMAKE_CURRENT_BINARY_DIR}/generated)
set(OUR_MESSAGES ${CMAKE_CURRENT_SOURCE_DIR}/caffe_layers/layers.proto)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${OUR_MESSAGES})

# The fields of our LayerParameter are added to upstream's.
file(READ ${OUR_MESSAGES} messages)
if(NOT messages MATCHES "\nmessage LayerParameter {([^}]*)}")
  message(FATAL_ERROR "${OUR_MESSAGES} has no 'message LayerParameter {' with plain fields")
endif()
set(fields "${CMAKE_MATCH_1}")
string(REPLACE "${CMAKE_MATCH_0}" "" messages "${messages}")
string(REGEX REPLACE "\n(syntax|package)[^\n]*" "" messages "${messages}")
file(READ ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto upstream)
string(FIND "${upstream}" "\nmessage LayerParameter {" found)
if(found EQUAL -1)
  message(FATAL_ERROR "caffe.proto of ${CAFFE_SOURCE} has no LayerParameter: is this BVLC Caffe 1.0?")
endif()
string(REPLACE "\nmessage LayerParameter {" "\nmessage LayerParameter {${fields}" upstream "${upstream}")
set(proto ${GENERATED}/caffe/proto/caffe.proto)
file(WRITE ${proto}.new "${upstream}\n${messages}")
configure_file(${proto}.new ${proto} COPYONLY) # keeps the time stamp if nothing changed

set(CAFFE_PB2 ${GENERATED}/caffe/proto/caffe_pb2.py)
if(NOT Protobuf_VERSION VERSION_LESS 3.20) # older versions write no stubs
  list(APPEND CAFFE_PB2 ${GENERATED}/caffe/proto/caffe_pb2.pyi)
  set(stubs --pyi_out=${GENERATED}/caffe/proto)
endif()
add_custom_command(
  OUTPUT ${GENERATED}/caffe/proto/caffe.pb.cc ${GENERATED}/caffe/proto/caffe.pb.h ${CAFFE_PB2}
  COMMAND protobuf::protoc --proto_path=${GENERATED}/caffe/proto --cpp_out=${GENERATED}/caffe/proto
          --python_out=${GENERATED}/caffe/proto ${stubs} ${proto}
  DEPENDS ${proto}
  VERBATIM)
