# CAFFE_SOURCE: the folder of BVLC Caffe's source (CAFFE_SOURCE_DIR, or fetched).
# caffe_edit(FILE OLD NEW [OLD NEW ...]): compile a copy of FILE, EDITED/FILE in the build folder, in which each OLD is
# replaced with its NEW. Fails if an OLD is missing. Later calls for the same FILE add edits.

set(EDITED ${CMAKE_CURRENT_BINARY_DIR}/edited)

if(CAFFE_SOURCE_DIR)
  set(CAFFE_SOURCE ${CAFFE_SOURCE_DIR})
else()
  set(CAFFE_SOURCE ${CMAKE_CURRENT_SOURCE_DIR}/build/caffe-source) # shared by all build folders
  if(NOT EXISTS ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto)
    execute_process(COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/tools/fetch_caffe.sh ${CAFFE_SOURCE} RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "Caffe's source could not be fetched (see above); "
                          "or name a checkout of BVLC Caffe: cmake -DCAFFE_SOURCE_DIR=DIR")
    endif()
  endif()
endif()
if(NOT EXISTS ${CAFFE_SOURCE}/src/caffe/proto/caffe.proto)
  message(FATAL_ERROR "CAFFE_SOURCE_DIR is ${CAFFE_SOURCE}, which has no src/caffe/proto/caffe.proto: "
                      "name a checkout of BVLC Caffe, or leave it out to have the source fetched")
endif()

function(caffe_edit file)
  set(edited ${EDITED}/${file})
  get_property(edited_before GLOBAL PROPERTY CAFFE_EDITED)
  if(${edited} IN_LIST edited_before)
    file(READ ${edited}.new text)
  else()
    file(READ ${CAFFE_SOURCE}/${file} text)
    set_property(GLOBAL APPEND PROPERTY CAFFE_EDITED ${edited})
  endif()
  math(EXPR last "${ARGC} - 1")
  foreach(i RANGE 1 ${last} 2)
    math(EXPR j "${i} + 1")
    string(FIND "${text}" "${ARGV${i}}" found)
    if(found EQUAL -1)
      message(FATAL_ERROR "${file} of ${CAFFE_SOURCE} has no '${ARGV${i}}': is this BVLC Caffe 1.0 (commit 99bd997)?")
    endif()
    string(REPLACE "${ARGV${i}}" "${ARGV${j}}" text "${text}")
  endforeach()
  file(WRITE ${edited}.new "${text}")
  configure_file(${edited}.new ${edited} COPYONLY) # keeps the time stamp if nothing changed
  if(${CAFFE_SOURCE}/${file} IN_LIST UPSTREAM_SOURCES)
    list(REMOVE_ITEM UPSTREAM_SOURCES ${CAFFE_SOURCE}/${file})
    list(APPEND UPSTREAM_SOURCES ${edited})
  endif()
  set(UPSTREAM_SOURCES ${UPSTREAM_SOURCES} PARENT_SCOPE)
endfunction()
