# CUDA for a build with CPU_ONLY=OFF: the language, the architectures (CMAKE_CUDA_ARCHITECTURES names others) and the
# libraries; NCCL where it is found.

if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(choose_architectures ON)
endif()
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
enable_language(CUDA)
if(choose_architectures) # not before: what the compiler knows differs between CUDA 11, 12 and 13
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
  # and PTX, which newer devices' drivers compile
  set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest}-virtual CACHE STRING "compute capabilities" FORCE)
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
# One runtime in a process: libcaffe, pycaffe and the programs are asked for errors and devices by each other.
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
find_package(CUDAToolkit REQUIRED)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS}) # NVIDIA's packages: libnccl-dev
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR})
set(nccl "without NCCL: one GPU trains, several together need it")
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  set(nccl "NCCL for several GPUs: ${NCCL_LIBRARY}")
endif()
message(STATUS "CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}, ${nccl}")

# Puts files that include eight of upstream's .cu files each in their place in the list `sources`: most of the work is
# in the headers they share. UNITY_BUILD does it for .cpp files alone before CMake 3.31.
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
    set(file ${CMAKE_CURRENT_BINARY_DIR}/edited/joined_${begin}.cu)
    file(WRITE ${file}.new "${some}")
    configure_file(${file}.new ${file} COPYONLY) # leaves the time stamp alone where nothing changed
    set_source_files_properties(${file} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    list(APPEND joined ${file})
  endforeach()
  set(${sources} ${joined} PARENT_SCOPE)
endfunction()
