# CUDA for a build with CPU_ONLY=OFF: the language, the architectures (CMAKE_CUDA_ARCHITECTURES) and the libraries, and
# if they are found, cuDNN 8 or 9 (CUDNN_ROOT: its folder with include and lib; -DUSE_CUDNN=OFF: without) and NCCL.

option(USE_CUDNN "cuDNN's convolutions and other layers, where cuDNN is found" ON)
set(CUDNN_ROOT "$ENV{CUDNN_ROOT}" CACHE PATH "a folder with cuDNN's include and lib; empty: CUDA's and the system's")

if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(choose_architectures ON)
endif()
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
if(choose_architectures) # the compiler must be known: CUDA 11, 12 and 13 support different ones
  execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX REPLACE "[\r\n]+" ";" known "${known}")
  set(architectures)
  foreach(architecture 75 80 86 89 90 100 120)
    if(compute_${architecture} IN_LIST known)
      list(APPEND architectures ${architecture}-real)
      set(newest ${architecture})
    endif()
  endforeach()
  if(NOT architectures)
    message(FATAL_ERROR "${CMAKE_CUDA_COMPILER} knows none of the architectures 75 to 120 (nvcc --list-gpu-arch): "
                        "install CUDA 11.8 or newer, or name one with -DCMAKE_CUDA_ARCHITECTURES=...")
  endif()
  # and PTX for newer devices
  set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest}-virtual CACHE STRING "compute capabilities" FORCE)
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# libcaffe, pycaffe and the programs must share one CUDA runtime, which holds errors and devices.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
find_package(CUDAToolkit REQUIRED)

# --- cuDNN -----------------------------------------------------------------------------------------------------------
# CUDNN_FOUND, CUDNN_VERSION, CUDNN_INCLUDE_DIR, CUDNN_LIBRARY and CUDNN_DIR
set(CUDNN_FOUND OFF)
if(USE_CUDNN)
  set(places HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_LIBRARY_DIR})
  if(CUDNN_ROOT)
    set(places PATHS ${CUDNN_ROOT} NO_DEFAULT_PATH)
  endif()
  find_path(CUDNN_INCLUDE_DIR cudnn.h ${places} PATH_SUFFIXES include)
  # also by the versioned name, the only one in PyPI's packages of cuDNN
  find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 libcudnn.so.8 ${places} PATH_SUFFIXES lib lib64)
  if(CUDNN_ROOT AND NOT (CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY))
    message(FATAL_ERROR "CUDNN_ROOT is ${CUDNN_ROOT}, which has no include/cudnn.h and lib/libcudnn.so: name another "
                        "folder, leave it out, or build without cuDNN with -DUSE_CUDNN=OFF")
  endif()
endif()
if(USE_CUDNN AND CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
  set(CUDNN_VERSION)
  foreach(header cudnn_version.h cudnn.h) # in cudnn.h before cuDNN 8
    if(NOT CUDNN_VERSION AND EXISTS ${CUDNN_INCLUDE_DIR}/${header})
      file(READ ${CUDNN_INCLUDE_DIR}/${header} text)
      if(text MATCHES "#define CUDNN_MAJOR ([0-9]+).*#define CUDNN_MINOR ([0-9]+).*#define CUDNN_PATCHLEVEL ([0-9]+)")
        set(CUDNN_VERSION ${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3})
        set(major ${CMAKE_MATCH_1})
      endif()
    endif()
  endforeach()
  if(NOT CUDNN_VERSION OR CUDNN_VERSION VERSION_LESS 8)
    message(FATAL_ERROR "cuDNN ${CUDNN_VERSION} in ${CUDNN_INCLUDE_DIR} cannot be used: install cuDNN 8 or 9, name its "
                        "folder with -DCUDNN_ROOT=..., or build without it with -DUSE_CUDNN=OFF")
  endif()
  get_filename_component(file ${CUDNN_LIBRARY} REALPATH)
  if(file MATCHES "libcudnn\\.so\\.([0-9]+)" AND NOT CMAKE_MATCH_1 EQUAL major)
    message(FATAL_ERROR "cuDNN's headers in ${CUDNN_INCLUDE_DIR} are of version ${CUDNN_VERSION}, its library is "
                        "${file}: name the folder of one cuDNN with -DCUDNN_ROOT=... in a new build folder")
  endif()
  set(CUDNN_FOUND ON)
  get_filename_component(CUDNN_DIR ${CUDNN_LIBRARY} DIRECTORY)
  set(cudnn "cuDNN ${CUDNN_VERSION}: ${CUDNN_LIBRARY}")
elseif(USE_CUDNN)
  set(cudnn "without cuDNN, which was not found: Caffe's own convolutions (-DCUDNN_ROOT=... names its folder)")
else()
  set(cudnn "without cuDNN: Caffe's own convolutions")
endif()

find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS}) # NVIDIA's packages: libnccl-dev
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
set(nccl "without NCCL: one GPU trains, several together need it")
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  set(nccl "NCCL for several GPUs: ${NCCL_LIBRARY}")
endif()
message(STATUS "CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
message(STATUS "${cudnn}")
message(STATUS "${nccl}")

# Replace the .cu files in the list `sources` by files that include eight each, because the shared headers take most of
# the time, per architecture. Before CMake 3.31, UNITY_BUILD supports only .cpp files.
function(caffe_join_cuda sources)
  set(joined ${${sources}})
  set(kernels ${${sources}})
  list(FILTER joined EXCLUDE REGEX "\\.cu$")
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  list(LENGTH kernels last)
  math(EXPR last "${last} - 1")
  foreach(begin RANGE 0 ${last} 8)
    list(SUBLIST kernels ${begin} 8 some)
    list(TRANSFORM some REPLACE "(.+)" "#include \"\\1\"\n")
    string(CONCAT some ${some})
    set(file ${CMAKE_CURRENT_BINARY_DIR}/edited/${sources}_${begin}.cu)
    file(WRITE ${file}.new "${some}")
    configure_file(${file}.new ${file} COPYONLY) # keeps the time stamp if nothing changed
    set_source_files_properties(${file} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    list(APPEND joined ${file})
  endforeach()
  set(${sources} ${joined} PARENT_SCOPE)
endfunction()
