# pycaffe: the module caffe._caffe (pybind11) and upstream's python/caffe/*.py, in build/python and in the wheel.

# Uses the checkout's .venv, which tools/setup.sh creates; -DPython_EXECUTABLE=... selects another Python.
if(NOT Python_EXECUTABLE AND NOT SKBUILD AND EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin/python)
  set(Python_EXECUTABLE ${CMAKE_CURRENT_SOURCE_DIR}/.venv/bin/python)
endif()
find_package(Python 3.9 COMPONENTS Interpreter Development.Module)
if(Python_FOUND)
  # Not cached: the folder depends on the build environment.
  execute_process(COMMAND ${Python_EXECUTABLE} -c "import pybind11; print(pybind11.get_cmake_dir())"
                  OUTPUT_VARIABLE pybind11_DIR OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT Python_FOUND OR NOT pybind11_DIR)
  set(pycaffe_problem "no Python 3.9 or newer with its headers (python3-dev) and pybind11 was found")
  if(SKBUILD)
    message(FATAL_ERROR "pycaffe cannot be built: ${pycaffe_problem}")
  endif()
  message(WARNING "pycaffe is not built: ${pycaffe_problem}. Run tools/setup.sh, or pip install pybind11 and configure "
                  "with -DPython_EXECUTABLE=...")
  return()
endif()
set(pybind11_DIR ${pybind11_DIR} CACHE PATH "" FORCE)
find_package(pybind11 2.12 CONFIG REQUIRED)

file(GLOB PYCAFFE_SOURCES CONFIGURE_DEPENDS caffe_layers/pycaffe/*.cpp)
pybind11_add_module(_caffe MODULE ${PYCAFFE_SOURCES})
# Default visibility: with hidden symbols, the module would have its own registries of layers and solvers.
# The headers take most of the time of a compilation, so files are compiled together.
set_target_properties(_caffe PROPERTIES CXX_VISIBILITY_PRESET default UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
target_link_libraries(_caffe PRIVATE caffelib)
set(pycaffe_libraries $ORIGIN ${OPENBLAS_DIR} ${CUDAToolkit_LIBRARY_DIR} ${CUDNN_DIR})
set_target_properties(_caffe caffelib PROPERTIES INSTALL_RPATH "${pycaffe_libraries}" INSTALL_REMOVE_ENVIRONMENT_RPATH ON)

# Upstream's Python files, our __init__.py, and the messages.
file(GLOB PYCAFFE_UPSTREAM CONFIGURE_DEPENDS ${CAFFE_SOURCE}/python/caffe/*.py)
list(REMOVE_ITEM PYCAFFE_UPSTREAM ${CAFFE_SOURCE}/python/caffe/__init__.py)
file(GLOB PYCAFFE_OURS CONFIGURE_DEPENDS caffe_layers/pycaffe/*.py caffe_layers/pycaffe/*.pyi caffe_layers/pycaffe/py.typed)
file(WRITE ${GENERATED}/caffe/proto/__init__.py "")

install(TARGETS _caffe caffelib LIBRARY DESTINATION caffe COMPONENT python)
install(FILES ${PYCAFFE_UPSTREAM} ${PYCAFFE_OURS} DESTINATION caffe COMPONENT python)
install(FILES ${GENERATED}/caffe/proto/__init__.py ${CAFFE_PB2} DESTINATION caffe/proto COMPONENT python)
install(FILES ${CAFFE_SOURCE}/python/caffe/imagenet/ilsvrc_2012_mean.npy DESTINATION caffe/imagenet COMPONENT python)
install(FILES ${CAFFE_SOURCE}/LICENSE DESTINATION caffe COMPONENT python)
